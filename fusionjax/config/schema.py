"""Every key of a run config: its type, range, default and meaning.

A run is shop × towers × weighted objectives × optimiser × evaluation. All models are frozen and refuse unknown keys; reading
YAML, `extends` and dotted overrides is `config/load.py`. Descriptions here become the JSON Schema editors show.
"""

import itertools
import math
import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionjax.config.kge import PARTS, Kge
from fusionjax.config.section import Positive, Rate, Section, Share


# ---------------------------------------------------------------------------------------------------------------- data
class DemoShop(Section):
    """The synthetic, bilingual shop."""

    seed: int = 0
    """Seed of the generator; independent of the run's seed."""
    products: Annotated[int, Field(ge=50, le=20_000_000)] = 1000
    users: Positive = 1500
    queries: Positive = 400
    events_per_user: Annotated[float, Field(ge=3.0, le=200.0)] = 14.0
    """Mean number of events a user (the distribution has a long tail, at least 3)."""
    cold_share: Rate = 0.05
    """Share of products that no training event touches."""
    misspelt_share: Rate = 0.25
    """Share of queries with a misspelling."""


class AmazonBeauty(Section):
    """The Amazon Beauty 5-core with its product graph."""

    relations: tuple[Literal["also_bought", "also_viewed", "bought_together"], ...] = ("also_viewed", "bought_together")
    """Product-product relations to read. `also_bought` may hold the very purchases the test asks for."""


class Files(Section):
    """Bring your own: a folder of tables, `data.source_dir`."""

    columns: dict[Literal["products", "triples", "users", "events", "queries", "judgments"], dict[str, str]] = Field(default={})
    """For each table: our column name → the file's column name, where they differ."""
    encoding: str = "utf-8"
    on_bad_row: Literal["error", "skip"] = "error"
    """`skip` drops malformed rows and prints how many, by reason; `error` stops with all reasons, file and line."""


class TriplesFiles(Section):
    """Bring your own graph: a folder `data.source_dir` with train.txt, and valid.txt, test.txt and more if you have them."""

    separator: Literal["tab", "space", "comma"] = "tab"
    """Exactly one between two names; there is no quoting."""
    columns: tuple[Literal["head", "relation", "tail"], ...] = ("head", "relation", "tail")
    """What each column holds, from left to right."""
    header: bool = False
    """The first line of each file names its columns: not read."""
    on_duplicate: Literal["drop", "error"] = "drop"
    """A triple that stands twice: keep the first (training before validation before test) and say how many, or stop."""
    on_unseen: Literal["keep", "drop", "error"] = "keep"
    """A validation or test triple with an entity or relation that no training triple has. Kept, it is ranked, but right only by
    luck; whichever it is, how many is said."""

    @model_validator(mode="after")
    def _each_column_once(self) -> "TriplesFiles":
        if sorted(self.columns) != ["head", "relation", "tail"]:
            raise ValueError(f"columns [{', '.join(self.columns)}] are not head, relation and tail in some order")
        return self


class Wikidata5m(Section):
    """Wikidata5M, from the folder `data.source_dir`."""

    variant: Literal["transductive", "inductive"] = "transductive"
    """`inductive`: the entities of validation and test occur in no other split."""


class Clean(Section):
    """Normalisation, in this order; the effect of each step is printed."""

    nfkc: bool = True
    """Unicode NFKC: full-width letters and digits become their usual forms."""
    html: bool = True
    """Remove tags and resolve entities (`&amp;`)."""
    whitespace: bool = True
    """Collapse runs of white space and control characters, trim."""
    case: Literal["keep", "lower"] = "keep"
    """Case policy of the stored text; the tokeniser lowers case on its own (`text.lowercase`)."""
    deduplicate_events: bool = True
    """Drop events equal in user, product, kind and time."""
    min_user_events: Annotated[int, Field(ge=0)] = 0
    """Drop the events of users with fewer events than this."""
    min_product_events: Annotated[int, Field(ge=0)] = 0
    """Drop events on products with fewer events than this."""


class Split(Section):
    """How rows get a split where the source fixes none."""

    events: Literal["leave_one_out", "temporal"] = "leave_one_out"
    """`leave_one_out`: each user's last new product is test, the one before it validation. `temporal`: by two global points in
    time."""
    valid_share: Rate = 0.1
    """Temporal events, triples, queries: share that becomes validation."""
    test_share: Rate = 0.1
    """Temporal events, triples, queries: share that becomes test."""


class Graph(Section):
    """Catalogue → graph: which edges exist."""

    given: bool = True
    """Merge the triples the source brings."""
    brand: bool = True
    category: bool = True
    """Product → its category, category → its parent."""
    attributes: bool | tuple[str, ...] = True
    """All attribute columns, none, or the named ones."""
    co_view: Annotated[int, Field(ge=0)] = 0
    """Products a user viewed or clicked within `co_window` training events: keep pairs seen at least this often; 0: none."""
    co_purchase: Annotated[int, Field(ge=0)] = 0
    """The same for carts and purchases."""
    co_window: Positive = 5
    max_attribute_values: Positive = 2000
    """An attribute with more distinct values than this is a number or an identifier, not an entity: left out, and said."""


class Controls(Section):
    """The same shop with one thing taken away or shuffled: what a study holds against the real one (see `data/controls.py`).

    Only what training reads changes. Validation and test triples, users, queries, their targets and what is left out of a
    ranking stay those of the real shop. Shuffles and subsets are drawn from the run's seed.
    """

    graph: Literal["real", "relations_shuffled", "tails_shuffled", "random_same_degree", "none", "as_text"] = "real"
    """Training edges: as they are; with permuted relation labels; with tails permuted within each relation; with tails and
    labels permuted over all; none; none, but up to 8 a product written into its text (`brand: Acme; also viewed: Blue mug`)."""
    graph_share: Share = 1.0
    """Share of the training edges kept, both directions of a pair together; smaller subsets lie inside larger ones."""
    events_share: Share = 1.0
    """Share of the training events kept; smaller subsets lie inside larger ones."""
    text: Literal["real", "shuffled", "title_only", "none"] = "real"
    """Product texts: as they are; each one that of another product; the title, whatever `text.fields` says; empty. Queries
    keep theirs."""


class Data(Section):
    name: str = "demo_shop"
    """Which source: `fusionjax data list` shows them."""
    source_dir: str | None = None
    """Folder with the source's files, already downloaded (`amazon_beauty`, `fb15k237`) or your own (`files`, `triples`).
    Relative to where you run."""
    cache_dir: str | None = None
    """Where prepared tables live; default `$FUSIONJAX_CACHE` or `~/.cache/fusionjax`."""
    demo_shop: DemoShop = DemoShop()
    amazon_beauty: AmazonBeauty = AmazonBeauty()
    files: Files = Files()
    triples: TriplesFiles = TriplesFiles()
    wikidata5m: Wikidata5m = Wikidata5m()
    clean: Clean = Clean()
    split: Split = Split()
    graph: Graph = Graph()
    controls: Controls = Controls()


# -------------------------------------------------------------------------------------------------------------- towers
class Lora(Section):
    """Low-rank adaptation, for `text.tune: lora`."""

    rank: Positive = 8
    alpha: Annotated[float, Field(gt=0.0)] = 16.0
    """What the adapters add is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("query", "value", "qkv")
    """Dense layers that get one: query, key, value (ModernBERT: qkv), attention_output, intermediate, output."""

    @model_validator(mode="after")
    def _known_targets(self) -> "Lora":
        known = ("query", "key", "value", "qkv", "attention_output", "intermediate", "output")
        for target in self.targets:
            if target not in known:
                raise ValueError(f"target '{target}' is none of {', '.join(known)}")
        return self


class Text(Section):
    """The BERT encoder and its tokeniser, shared by product and query towers."""

    checkpoint: str | None = None
    """Folder or hub id of a Hugging Face or sentence-transformers checkpoint (BERT, RoBERTa, XLM-R, DistilBERT, ModernBERT) to
    start from, with its tokeniser and pooling; none: trained from scratch. With one, `vocab_size`, `lowercase`, `layers`,
    `width`, `heads`, `feed_forward` and `pooling` are not read."""
    fields: tuple[Literal["title", "description", "brand", "category"], ...] = ("title", "description")
    """Product fields joined into the product's text."""
    vocab_size: Annotated[int, Field(ge=100)] = 8000
    """Size of the WordPiece vocabulary learnt from the training texts."""
    lowercase: bool = True
    max_length: Annotated[int, Field(ge=4, le=8192)] = 32
    """Tokens kept of a product's text or a query, [CLS] and [SEP] included."""
    layers: Positive = 2
    width: Positive = 128
    heads: Positive = 4
    feed_forward: Positive = 512
    dropout: Rate = 0.1
    pooling: Literal["mean", "cls"] = "mean"
    live: Positive = 256
    """Products whose text is encoded with gradient in a step; the other rows of the text bank are reused as last encoded."""
    refresh_every: Annotated[int, Field(ge=0)] = 200
    """Steps between re-encodings of the whole text bank; 0: only at the start and at validation."""
    query_prompt: str = ""
    """Put before each query; E5 wants `query: `."""
    product_prompt: str = ""
    """Put before each product text; E5 wants `passage: `."""
    tune: Literal["full", "frozen", "last", "lora"] = "full"
    """What of the encoder is trained: all; nothing (the text bank is encoded once); the last `tune_layers` layers; low-rank
    adapters beside its dense layers."""
    tune_layers: Positive = 2
    """`tune: last` only."""
    lora: Lora = Lora()
    chunk: Annotated[int, Field(ge=0)] = 0
    """Texts encoded at a time within a step, and again in its backward pass (gradient caching, Gao et al. 2021): memory is set
    by the chunk, loss and gradients are those of the whole batch. 0: all at once."""
    pack: bool = False
    """Lay a step's texts end to end in rows of one length, instead of each in a row of its own, padded to the shop's longest
    text: no padding is computed, but a program is compiled for each of a few numbers of rows. Worth it with a large encoder.
    Where rows cannot be packed (`chunk`, poolings other than mean and cls) they are cut to a few lengths instead."""
    remat: bool = False
    """Compute each encoder layer again in the backward pass instead of keeping its activations."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "Text":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Entity(Section):
    """The entity and relation tables of graph embedding; a product's entity row is also its behaviour embedding."""

    scorer: Literal["transe", "distmult", "complex", "simple", "rotate", "rotate_l2", "rescal", "quate", "pairre"] = "transe"
    dim: Annotated[int, Field(ge=2)] = 128
    """Real numbers an entity; ComplEx and RotatE read them as dim / 2 complex ones, SimplE as two halves, QuatE as dim / 4
    quaternions. A relation has as many, RotatE half, PairRE twice, RESCAL dim²."""
    norm: Literal[1, 2] = 2
    """TransE only: L1 or L2 distance."""
    margin: Annotated[float, Field(ge=0.0)] = 9.0
    """TransE, RotatE, PairRE: score = margin − distance."""
    behaviour: bool = True
    """Learn entity rows from next products and queries too; false: from the graph (and alignment) alone."""

    @model_validator(mode="after")
    def _dim_can_be_cut(self) -> "Entity":
        parts = PARTS.get(self.scorer, 1)
        if self.dim % parts:
            raise ValueError(f"dim {self.dim}: {self.scorer} needs a multiple of {parts}")
        return self


class Product(Section):
    """Product tower: gated fusion of text and entity vectors."""

    sources: tuple[Literal["text", "entity"], ...] = ("text", "entity")
    """What a product vector is made of."""
    source_dropout: Rate = 0.1
    """While training, chance that one of two sources is hidden, so that the vector survives its absence (cold products)."""

    @model_validator(mode="after")
    def _some_source(self) -> "Product":
        if not self.sources or len(set(self.sources)) != len(self.sources):
            raise ValueError(f"sources {list(self.sources)} must name 'text', 'entity' or both, once each")
        return self


class User(Section):
    """User tower: a causal transformer over recent events, and the profile."""

    history: Positive = 50
    """Most recent events read."""
    layers: Positive = 2
    heads: Positive = 2
    dropout: Rate = 0.2
    kind: bool = True
    """Tell views from clicks, carts and purchases."""
    recency: bool = True
    """Tell how long before the moment of prediction each event was (logarithmic buckets)."""
    profile: bool = True
    """Use the profile fields where the shop has them."""


class Model(Section):
    dim: Positive = 64
    """Width of the shared space in which all towers meet and cosines are taken."""
    heads: Literal["learned", "none"] = "learned"
    """What leads from text vectors to the shared space: learned projections; none: text vectors are the shared space (`dim` is
    not read, products are made of text alone), as sentence encoders are used and trained."""
    entity: Entity = Entity()
    product: Product = Product()
    user: User = User()

    @model_validator(mode="after")
    def _no_heads_reads_text(self) -> "Model":
        if self.heads == "none" and self.product.sources != ("text",):
            raise ValueError(f"heads none needs product.sources [text], got {list(self.product.sources)}")
        return self

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "Model":
        if self.dim % self.user.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of user.heads {self.user.heads}")
        return self


# ---------------------------------------------------------------------------------------------------------- objectives
class Objective(Section):
    weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight in the joint loss; 0 removes the objective and its cost."""
    batch_size: Positive = 256
    every: Positive = 1
    """Takes part in every n-th step …"""
    offset: Annotated[int, Field(ge=0)] = 0
    """… beginning with this one (0 ≤ offset < every): objectives with different offsets alternate."""
    begin: Share = 0.0
    """Takes part from this share of the run's steps on …"""
    end: Share = 1.0
    """… until this one (begin < end): objectives may follow each other."""

    @model_validator(mode="after")
    def _offset_within_every(self) -> "Objective":
        if self.offset >= self.every:
            raise ValueError(f"offset {self.offset} must be smaller than every {self.every}")
        if self.begin >= self.end:
            raise ValueError(f"begin {self.begin:g} must be smaller than end {self.end:g}")
        return self


class LinkPrediction(Objective):
    """Softmax over a true triple and negatives, heads and tails corrupted in turn."""

    batch_size: Positive = 512
    negatives: Positive = 128
    """Corrupting entities, drawn uniformly, shared by the batch."""
    self_adversarial: Annotated[float, Field(ge=0.0)] = 0.0
    """Temperature of self-adversarial weighting (Sun et al. 2019); 0: plain softmax over the negatives."""
    l2: Annotated[float, Field(ge=0.0)] = 0.0
    """Penalty on the squared norm of the embeddings of the batch."""


class Alignment(Objective):
    """A product's text vector and its entity vector find each other (InfoNCE in both directions)."""


class HardNegatives(Section):
    """Products that look relevant to a query and are not: further negatives of every query in the batch."""

    file: str | None = None
    """Table (.tsv, .csv, .parquet) with columns `query` and `product`, ids of the shop."""
    from_file: Annotated[int, Field(ge=0)] = 0
    """Drawn from the file for each query of the batch."""
    mined: Annotated[int, Field(ge=0)] = 0
    """Nearest wrong products of each query by the model as it is, among the text bank."""
    mine_from: Positive = 65536
    """Products looked at in a step, drawn anew; all, if the shop has no more."""
    margin: Annotated[float, Field(ge=0.0, le=2.0)] = 0.05
    """A mined product is left out if its cosine is above that of the query's own product less this: it is likely relevant, only
    not judged. Known positives never count."""

    @model_validator(mode="after")
    def _file_is_read(self) -> "HardNegatives":
        if (self.file is None) != (self.from_file == 0):
            raise ValueError("file and from_file go together: how many of which file?")
        return self


class QueryProduct(Objective):
    """A query and a product judged relevant, or bought after it, find each other among the batch."""

    loss: Literal["info_nce", "siglip", "triplet"] = "info_nce"
    """info_nce: softmax over the batch; siglip: each pair judged alone, with a learned bias; triplet: hinge on cosines."""
    directions: Literal["both", "forth"] = "both"
    """info_nce only: query → product and product → query, or the first alone (multiple negatives ranking)."""
    triplet_margin: Annotated[float, Field(gt=0.0, le=2.0)] = 0.2
    triplet_hardest: bool = False
    """triplet only: the nearest negative alone, instead of the mean over all."""
    matryoshka: tuple[Positive, ...] = ()
    """Widths of prefixes of the vectors on which the loss is taken too (the mean over them); none: whole vectors only."""
    hard_negatives: HardNegatives = HardNegatives()

    min_grade: Annotated[float, Field(gt=0.0)] = 1.0
    """Judgments of at least this grade are positives."""
    from_events: bool = True
    """Training events that carry a query are positives too."""
    from_titles: Rate = 0.3
    """Share of the batch whose query is a random part of a product's own text (inverse cloze task, Lee et al. 2019): teaches
    words that no training query holds, and cold products."""


class MaskedWords(Objective):
    """The encoder foretells hidden words of the catalogue's texts: a warm-up (`end: 0.2`), or beside the other objectives."""

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    batch_size: Positive = 64
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Words asked for: of these 80 % read as [MASK], 10 % as any word, 10 % as themselves (Devlin et al. 2019)."""


class Distillation(Objective):
    """The encoder's vectors of product texts become those of a teacher."""

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    batch_size: Positive = 128
    teacher: str | None = None
    """Folder or hub id of a checkpoint; its vectors are computed once."""
    loss: Literal["cosine", "kl"] = "cosine"
    """cosine: of the same width, each vector to its own; kl: of any width, the similarities within the batch."""
    matryoshka: tuple[Positive, ...] = ()
    """Widths of prefixes, as for query_product."""

    @model_validator(mode="after")
    def _some_teacher(self) -> "Distillation":
        if self.weight > 0 and self.teacher is None:
            raise ValueError("teacher: name a checkpoint")
        return self


class NextProduct(Objective):
    """A user's history points at the next product, at every position."""

    batch_size: Positive = 128
    softmax: Literal["full", "sampled"] = "full"
    """Over the whole catalogue, or over the batch's own next products and `negatives` with logQ correction."""
    negatives: Positive = 512
    """`sampled` only: uniformly drawn negatives shared by the batch."""


class Objectives(Section):
    link_prediction: LinkPrediction = LinkPrediction()
    alignment: Alignment = Alignment()
    query_product: QueryProduct = QueryProduct()
    next_product: NextProduct = NextProduct()
    masked_words: MaskedWords = MaskedWords()
    distillation: Distillation = Distillation()
    temperature: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Start of the learned temperatures of the cosine objectives."""

    @model_validator(mode="after")
    def _every_step_trains_something(self) -> "Objectives":
        every = (
            self.link_prediction,
            self.alignment,
            self.query_product,
            self.next_product,
            self.masked_words,
            self.distillation,
        )
        used = [each for each in every if each.weight > 0]
        # Between two neighbouring begins or ends the same objectives take turns. Rounding moves these marks, not their order,
        # so what holds for every stretch here holds for a run of any length.
        marks = sorted({0.0, 1.0, *(mark for each in used for mark in (each.begin, each.end))}) if used else []
        for start, stop in itertools.pairwise(marks):
            present = [each for each in used if each.begin <= start and stop <= each.end]
            where = "" if (start, stop) == (0.0, 1.0) else f" between {start:.4g} and {stop:.4g} of the run"
            if not present:
                raise ValueError(f"no objective takes part{where}: see begin and end of those with a weight")
            for step in range(min(math.lcm(*(each.every for each in present)), 1000)):
                if not any(step % each.every == each.offset for each in present):
                    cycle = f" of {math.lcm(*(each.every for each in present))}" if where else ""
                    raise ValueError(
                        f"no objective takes part in step {step}{cycle}{where}: see every and offset of those with a weight"
                    )
        return self


# ------------------------------------------------------------------------------------------------------------ training
class LearningRate(Section):
    encoder: Annotated[float, Field(ge=0.0)] = 5e-4
    tables: Annotated[float, Field(ge=0.0)] = 5e-3
    """Entity and relation tables."""
    heads: Annotated[float, Field(ge=0.0)] = 1e-3
    """All else."""


class Optimiser(Section):
    name: Literal["adamw", "adam", "adagrad", "sgd"] = "adamw"
    learning_rate: LearningRate = LearningRate()
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Each encoder layer's rate is this times that of the layer above it, the embeddings' below the first layer's."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_share: Rate = 0.05
    """Share of the steps over which the rate grows from 0."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """adamw only; not on tables, biases and norms."""
    clip_norm: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest global gradient norm; 0: no clipping."""


class Train(Section):
    steps: Annotated[int, Field(ge=0)] | None = None
    """Optimiser steps. Either this or `epochs`. 0: nothing is trained, the model is measured as it starts (a checkpoint's text
    vectors, with `model.heads: none`)."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Passes over the largest objective's training examples."""
    accumulate: Positive = 1
    """Micro-batches whose gradients are averaged into one step."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters and the optimiser stay float32."""
    optimiser: Optimiser = Optimiser()
    log_every: Positive = 20
    validate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between validations; 0: ten times over the run."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints; 0: at each validation."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many validations without a better one; 0: never."""
    select: str = "mean"
    """Validation metric that picks the best checkpoint: `TASK/METRIC`, or `mean` of each task's own (see README)."""

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> "Train":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both (set the other to null)")
        if self.steps is None and self.epochs is None:
            raise ValueError("give steps or epochs")
        return self


TaskName = Literal["link_prediction", "triple_classification", "search", "recommendation"]


class Evaluation(Section):
    tasks: tuple[TaskName, ...] | None = None
    """Tasks to measure; none given: each task the shop has data for and the model can do."""
    metrics: dict[TaskName, tuple[str, ...]] = Field(default={})
    """Task → metrics, such as `hits@5`, `recall@50`, `map`, `amri`; a task not named has its usual ones."""
    batch_size: Positive = 256
    """Queries, users or triples ranked at once; bounds memory together with `block`."""
    block: Positive = 65536
    """Products or entities scored at once."""
    max_valid: Annotated[int, Field(ge=0)] = 0
    """Use at most this many queries, users or triples at a validation (a fixed random sample); 0: all."""
    max_test: Annotated[int, Field(ge=0)] = 0
    """The same for the final test; 0: all. Sampled results are marked in results.json."""
    exclude_seen: bool = True
    """Recommendation: never recommend what the user's history holds."""
    baselines: bool = True


class Track(Section):
    """Where the numbers of metrics.jsonl go besides TensorBoard. Not part of what a run is: with other trackers it is the same
    run, in the same folder. Nothing leaves the machine unless it is told to; a tracker that fails disturbs nothing.
    """

    wandb: bool = False
    """Weights & Biases (extra `wandb`): offline, in the run folder (`wandb sync` uploads it), unless WANDB_MODE is set."""
    mlflow: bool = False
    """MLflow (extra `mlflow`), at `mlflow_uri`."""
    trackio: bool = False
    """trackio (extra `trackio`): its own local folder, unless its variables (TRACKIO_DIR, TRACKIO_SPACE_ID) say otherwise."""
    project: str = "fusionjax"
    """Project (W&B, trackio) or experiment (MLflow): letters, digits and `_-.`."""
    name: str | None = None
    """Name of the run there; default: that of the run folder."""
    mlflow_uri: str | None = None
    """`sqlite:///FILE`, `https://SERVER`, …; default: MLFLOW_TRACKING_URI, else `trackers/mlflow.db` in the run folder."""

    @model_validator(mode="after")
    def _places_exist(self) -> "Track":
        if not re.fullmatch(r"\w[\w.-]*", self.project):
            raise ValueError(f"project '{self.project}' must be letters, digits and _-. only")
        uri = self.mlflow_uri
        if uri is not None and uri != "databricks" and ("://" not in uri or uri.startswith("file:")):
            raise ValueError(f"mlflow_uri '{uri}' is no database or server (MLflow gave up folders): sqlite:///FILE, https://…")
        return self


class Run(Section):
    """One run: what `fusionjax train` takes."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = ()
    """Train once with each of these instead of `seed`, in one program where that is possible (graphs alone): a run folder each
    under that of the run, and their mean and spread."""
    kge: Kge = Kge()
    data: Data = Data()
    text: Text = Text()
    model: Model = Model()
    objectives: Objectives = Objectives()
    train: Train = Train(steps=1000)
    evaluation: Evaluation = Evaluation()
    track: Track = Track()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Run":
        if self.model.heads == "none" and self.objectives.alignment.weight > 0:
            raise ValueError("model.heads: none has no projections for objectives.alignment; set its weight to 0")
        if self.text.tune != "full" and self.text.checkpoint is None:
            raise ValueError(
                f"text.tune: {self.text.tune} needs text.checkpoint: an encoder from scratch must be trained in full"
            )
        return self
