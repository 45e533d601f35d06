"""`data`: where the shop or graph comes from, how it is cleaned, split and made into a graph."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from fusionjax.config.section import Positive, Rate, Section, Share


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
    unseen_entities: Share = 0.0
    """Inductive, for a graph alone: share of the entities that is taken out of training altogether; queries about them make up
    validation and test."""


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
    sample: Annotated[int, Field(ge=0)] = 0
    """Entities of the sub-graph that is kept (`data.graph_samples.subsample`) where the graph is too large; 0: all."""


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
    keep_users: bool = True
    """Whether a run's index holds users' ids, histories and profiles, from which it recommends; false leaves them out."""
    demo_shop: DemoShop = DemoShop()
    amazon_beauty: AmazonBeauty = AmazonBeauty()
    files: Files = Files()
    triples: TriplesFiles = TriplesFiles()
    wikidata5m: Wikidata5m = Wikidata5m()
    plugins: dict[str, dict[str, JsonValue]] = Field(default={})
    """Options of plug-ins' sources, by name: each source says which it has."""
    clean: Clean = Clean()
    split: Split = Split()
    graph: Graph = Graph()
    controls: Controls = Controls()
