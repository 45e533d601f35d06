"""Every key of graph embedding: what `kge.scorer` turns a run into.

With a scorer named, the run trains entity and relation vectors on the graph alone, an epoch a compiled program, and reads of
the other sections only `seed`, `seeds`, `data`, `evaluation` and `track`. Without one, the joint model trains as ever.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionjax.config.section import Positive, Rate, Section, Share

ScorerName = Literal[
    "transe", "distmult", "complex", "simple", "rotate", "rotate_l2", "rescal", "tucker", "conve", "quate", "pairre"
]
PARTS = {"complex": 2, "simple": 2, "rotate": 2, "rotate_l2": 2, "quate": 4}
"""Equal parts some scorers cut an entity's numbers into (this room knows no models: the scorers say the same)."""
NonNegative = Annotated[float, Field(ge=0.0)]
SettingName = Literal[
    "optimiser.learning_rate",
    "loss.margin",
    "loss.temperature",
    "loss.label_smoothing",
    "relation_prediction",
    "penalty.entity",
    "penalty.relation",
    "dropout.entity",
    "dropout.relation",
    "text.align",
    "text.temperature",
]
"""Numbers that a compiled program takes as arguments, so that runs that differ in them alone can share one."""


class Init(Section):
    """How the tables start."""

    name: Literal["paper", "xavier_normal", "xavier_uniform", "normal", "uniform"] = "xavier_normal"
    """`paper`: as the scorer's authors do. `xavier_*`: of a table as a matrix (rows + columns)."""
    scale: Annotated[float, Field(gt=0.0)] = 1.0
    """normal: standard deviation; uniform: from −scale to scale; the others are multiplied by it."""


class Dropout(Section):
    entity: Rate = 0.0
    """Of the numbers of the vector of the entity given."""
    relation: Rate = 0.0
    input: Rate = 0.0
    """RESCAL, TuckER, ConvE: of what goes into the scorer, …"""
    feature: Rate = 0.0
    """… of RESCAL's and TuckER's relation matrices and ConvE's feature maps (whole maps), …"""
    hidden: Rate = 0.0
    """… of what is compared with the entities."""


class Convolution(Section):
    """ConvE only."""

    height: Positive | None = None
    """Rows of the image an entity's vector is laid out in; none: the divisor of `dim` nearest to its root."""
    filters: Positive = 32
    kernel: Positive = 3


class Negatives(Section):
    """`training: negatives` only: how corruptions are drawn, on the device."""

    number: Positive = 64
    """Corruptions of a question (head, relation, ?) or (?, relation, tail)."""
    questions: Literal["both", "one", "bernoulli"] = "both"
    """Each triple asks for its tail and its head; or for one of them, drawn evenly, or by the relation's mean tails a head and
    heads a tail (Wang et al. 2014), so that a wrong negative is rarer. The last two need `reciprocal: false`: with it each
    triple asks both, in turn."""
    sampler: Literal["uniform", "degree", "typed"] = "uniform"
    """From all entities; in proportion to a power of their degree; from those the relation has at that end in training (not
    `shared`: a chunk's questions are of several relations)."""
    power: NonNegative = 0.75
    """`degree` only."""
    shared: Annotated[int, Field(ge=0)] = 0
    """Questions that share one draw of `number` corruptions (a chunk; it divides the batch's questions): one matrix product
    instead of as many gathered rows. 0: every question has its own."""
    filtered: bool = False
    """Corruptions that are true triples of training count for nothing."""
    logq: bool = False
    """softmax with the uniform sampler only: each corruption counts for (entities − 1) / `number`, so that the loss estimates
    that against all entities (sampled softmax with logQ correction, Bengio and Senécal 2008)."""


class Loss(Section):
    name: Literal["softmax", "bce", "margin", "self_adversarial"] = "softmax"
    """Cross-entropy over the candidates; each candidate judged alone; hinge between the true one and each negative; the second
    with negatives weighted by the model's own softmax (Sun et al. 2019). The last two need `training: negatives`."""
    margin: NonNegative = 1.0
    """margin only."""
    temperature: NonNegative = 1.0
    """self_adversarial only."""
    label_smoothing: Rate = 0.0
    """one_vs_all, k_vs_all: share of the target spread evenly over all entities."""
    answers: Annotated[int, Field(ge=0)] = 0
    """softmax only: a question is scored once for up to so many of its answers, instead of once for each of its triples. With
    one_vs_all so many triples of a question, grouped anew for each pass, are asked together (`reciprocal` only). With k_vs_all
    a question counts once for each of its answers, and is asked once for every so many, each time with all as answers. Either
    way the loss is that of one_vs_all. 0: one_vs_all asks each triple alone, k_vs_all each question once."""


class Penalty(Section):
    """What keeps vectors small, added to the loss of each question."""

    name: Literal["none", "l2", "n3", "dura"] = "none"
    """Σ|x|²; Σ|x|³ of moduli (Lacroix et al. 2018); both ends near each other's query (Zhang et al. 2020; bilinear scorers)."""
    entity: NonNegative = 0.0
    """Weight on entities' vectors (`dura`: on all)."""
    relation: NonNegative = 0.0
    weighted: bool = True
    """Vectors of the batch's triples (k_vs_all without `loss.answers`: of its questions' anchors), so that frequent ones are
    held tighter; false: each whole table, once a batch. `dura` always holds the batch's."""


class Optimiser(Section):
    name: Literal["adagrad_torch", "adagrad_optax", "adam", "sgd"] = "adagrad_torch"
    """Adagrad's sum of squares starts at 0 in torch, at 0.1 in optax: at small learning rates two different methods."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.1
    schedule: Literal["constant", "plateau"] = "constant"
    """plateau: multiplied by `factor` after more than `wait` validations without a better one."""
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    wait: Annotated[int, Field(ge=0)] = 1
    rows: Literal["auto", "on", "off"] = "auto"
    """Update only the entities of a batch (`training: negatives`), so that a step costs the same however many there are. Adam
    then is lazy: moments of rows left out stand still. auto: where it is cheaper than a whole table."""


class GraphText(Section):
    """Entities' names and descriptions, encoded once by a pretrained encoder; a learned projection leads to entity vectors."""

    use: Literal["none", "replace", "add", "align"] = "none"
    """replace: an entity is its text alone, so one unseen in training has a vector too; add: text plus its row of the table;
    align: the table alone is scored, and drawn to the text (InfoNCE, `align`)."""
    checkpoint: str | None = None
    """Folder or hub id, as `text.checkpoint`."""
    hidden: Annotated[int, Field(ge=0)] = 0
    """Width of the projection's hidden layer; 0: linear."""
    align: NonNegative = 0.1
    """Weight of the alignment loss."""
    temperature: Annotated[float, Field(gt=0.0)] = 0.05

    @model_validator(mode="after")
    def _some_checkpoint(self) -> "GraphText":
        if self.use != "none" and self.checkpoint is None:
            raise ValueError("checkpoint: name an encoder")
        return self


class Kge(Section):
    scorer: ScorerName | None = None
    """Which; none: this is no run of graph embedding."""
    dim: Annotated[int, Field(ge=2)] = 128
    """Real numbers an entity (ComplEx, RotatE: dim / 2 complex ones)."""
    relation_dim: Positive | None = None
    """TuckER only; none: `dim`."""
    norm: Literal[1, 2] = 2
    """TransE only."""
    margin: NonNegative = 0.0
    """What scores of distances are subtracted from."""
    convolution: Convolution = Convolution()
    reciprocal: bool = True
    """Ask for heads as for tails of an inverse relation with a vector of its own (Lacroix et al. 2018)."""
    init: Init = Init()
    dropout: Dropout = Dropout()
    text: GraphText = GraphText()
    literals: bool = False
    """Add a learned projection of the entities' numbers (standardised, with a mark where one is missing) to their vectors."""
    training: Literal["one_vs_all", "k_vs_all", "negatives"] = "one_vs_all"
    """Each triple against all entities; each (anchor, relation) with all its answers at once; against drawn corruptions."""
    block: Annotated[int, Field(ge=0)] = 0
    """one_vs_all with softmax: entities scored at once, for bounded memory (their scores are computed again in the backward
    pass); 0: all."""
    negatives: Negatives = Negatives()
    loss: Loss = Loss()
    relation_prediction: NonNegative = 0.0
    """Weight of foretelling the relation from head and tail (Chen et al. 2021); with k_vs_all those of triples drawn anew for
    each step, as many as its questions have in the mean."""
    penalty: Penalty = Penalty()
    optimiser: Optimiser = Optimiser()
    batch_size: Positive = 512
    """Triples (k_vs_all, or with `loss.answers`: questions) a step."""
    epochs: Positive = 100
    validate_every: Positive = 5
    """Epochs between validations."""
    average: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Validate, keep and test a moving average of the parameters as each epoch leaves them (Polyak and Juditsky 1992), the
    share of what was there before, so 0.9 is about the last ten epochs; none: the parameters themselves. Training never sees
    it."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many validations without a better MRR; 0: never."""
    unseen: Share = 0.0
    """Inductive: share of the entities that is taken out of training altogether; questions about them make up validation and
    test."""
    sample: Annotated[int, Field(ge=0)] = 0
    """Entities of the sub-graph that is kept (`data.graph_samples.subsample`) where the graph is too large; 0: all."""

    settings: tuple[dict[SettingName, NonNegative], ...] = ()
    """Trained in one program, each with these numbers instead (`{optimiser.learning_rate: 0.2}`); the one with the
    best validation MRR goes on to test. For small graphs, which leave a device room."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "Kge":
        if self.scorer is None:
            return self
        if self.training != "negatives" and self.loss.name in ("margin", "self_adversarial"):
            raise ValueError(f"loss.name: {self.loss.name} needs training: negatives, got {self.training}")
        if self.loss.answers and (self.training == "negatives" or self.loss.name != "softmax"):
            raise ValueError(
                "loss.answers: needs training: one_vs_all or k_vs_all, with loss.name: softmax, "
                f"got {self.training} with {self.loss.name}"
            )
        if self.loss.answers and self.training == "one_vs_all":
            if not self.reciprocal:
                raise ValueError("loss.answers: needs reciprocal: true with training: one_vs_all")
            if self.penalty.name == "dura":
                raise ValueError("penalty.name: dura holds each triple's answer: not with loss.answers and one_vs_all")
        if self.dim % PARTS.get(self.scorer, 1):
            raise ValueError(f"dim: {self.scorer} needs a multiple of {PARTS[self.scorer]}, got {self.dim}")
        height = self.convolution.height
        if self.scorer == "conve" and height and self.dim % height:
            raise ValueError(f"convolution.height: {height} does not divide dim {self.dim}")
        if self.scorer == "conve" and not self.reciprocal:
            raise ValueError("scorer: conve answers for tails only: it needs reciprocal: true")
        if self.block and (self.training, self.loss.name) != ("one_vs_all", "softmax"):
            raise ValueError("block: needs training: one_vs_all with loss.name: softmax")
        if self.penalty.name == "dura" and self.scorer not in ("distmult", "complex", "simple", "rescal"):
            raise ValueError(f"penalty.name: dura is for distmult, complex, simple and rescal, got {self.scorer}")
        if self.relation_prediction and self.scorer not in ("transe", "distmult", "complex", "simple", "rescal", "tucker"):
            raise ValueError(f"relation_prediction: not for {self.scorer}, whose score is no product with the relation")
        if self.text.use == "align" and self.scorer == "conve":
            raise ValueError("text.use: align: not for conve, whose entity rows hold a bias")
        if self.training == "negatives":
            self._negatives_fit()
        return self

    def _negatives_fit(self) -> None:
        if self.negatives.logq and (self.loss.name, self.negatives.sampler) != ("softmax", "uniform"):
            raise ValueError(
                "negatives.logq: needs loss.name: softmax with negatives.sampler: uniform, "
                f"got {self.loss.name} with {self.negatives.sampler}"
            )
        if self.reciprocal and self.negatives.questions != "both":
            raise ValueError(f"negatives.questions: {self.negatives.questions} needs reciprocal: false")
        if self.negatives.shared and self.negatives.questions != "both":
            raise ValueError("negatives.shared: needs negatives.questions: both")
        if self.negatives.shared and self.negatives.sampler == "typed":
            raise ValueError("negatives.shared: not with negatives.sampler: typed, whose candidates are of one relation")
        if self.negatives.shared and self.batch_size % self.negatives.shared:
            raise ValueError(f"negatives.shared: {self.negatives.shared} does not divide batch_size {self.batch_size}")
