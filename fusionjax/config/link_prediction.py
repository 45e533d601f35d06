"""`objectives.link_prediction`: how triples are trained; every graph-embedding method is a choice of these keys."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusionjax import names, registry
from fusionjax.config.section import Known, NonNegative, Objective, Positive, Rate, Section


class Negatives(Section):
    """`training: negatives` only: how negatives are drawn."""

    number: Positive = 128
    """Negatives of a query (head, relation, ?) or (?, relation, tail)."""
    queries: Literal["both", "one", "bernoulli"] = "both"
    """Each triple asks for its tail and its head; or for one of them, drawn evenly, or by the relation's mean tails a head and
    heads a tail (Wang et al. 2014), so that a false negative is rarer. The last two need `reciprocal: false` (with it each
    triple asks both, in turn) and `shared: 0`."""
    sampler: Annotated[str, Known(registry.SAMPLERS, names.SAMPLERS)] = "uniform"
    """From all entities; in proportion to a power of their degree; from those the relation has at that end in training (needs
    `shared: 0`, as the queries that share a draw are of several relations)."""
    power: NonNegative = 0.75
    """`sampler: degree` only."""
    shared: Annotated[int, Field(ge=0)] | Literal["batch"] = "batch"
    """Queries that share one draw of `number` negatives: one matrix product instead of as many gathered rows. A number: so many
    (it divides the queries of a batch); batch: all of the batch; 0: every query has its own."""
    filtered: bool = False
    """Negatives that are true triples of training count for nothing."""
    logq: bool = False
    """softmax with the uniform sampler only: each negative counts for (entities − 1) / `number`, so that the loss estimates
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
    targets: Annotated[int, Field(ge=0)] = 0
    """softmax only: a query is scored once for up to so many of its targets, instead of once for each of its triples. With
    one_vs_all so many triples of a query, grouped anew for each epoch, are scored together (`reciprocal` only). With k_vs_all a
    query counts once for each of its targets, and is scored once for every so many, each time with all as targets. Either way
    the loss is that of one_vs_all. 0: one_vs_all scores each triple alone, k_vs_all each query once."""


class Penalty(Section):
    """What keeps vectors small, added to the loss of each query."""

    name: Literal["none", "l2", "n3", "dura"] = "none"
    """Σ|x|²; Σ|x|³ of moduli (Lacroix et al. 2018); both ends near each other's query (Zhang et al. 2020; bilinear scorers)."""
    entity: NonNegative = 0.0
    """Weight on entities' vectors (`dura`: on all)."""
    relation: NonNegative = 0.0
    weighted: bool = True
    """Vectors of the batch's triples (k_vs_all without `loss.targets`: of the entities its queries start from), so that
    frequent ones are held tighter; false: each whole table, once a batch. `dura` always holds the batch's."""


class LinkPrediction(Objective):
    """A triple's tail is predicted from its head and relation, and its head from its tail and relation."""

    shop_parts = (("triples", "products"),)  # products alone have a graph too: their brands, categories, attributes
    reads_entities = True
    trains_products_of = "triples"

    batch_size: Positive = 512
    """Triples (k_vs_all, or with `loss.targets`: queries) a step."""
    training: Literal["one_vs_all", "k_vs_all", "negatives"] = "negatives"
    """Each triple against all entities; each query (entity, relation) with all its targets at once; against drawn negatives."""
    reciprocal: bool = False
    """Ask for heads as for tails of an inverse relation with a vector of its own (Lacroix et al. 2018)."""
    block: Annotated[int, Field(ge=0)] = 0
    """one_vs_all with softmax: entities scored at once, for bounded memory (their scores are computed again in the backward
    pass); 0: all."""
    negatives: Negatives = Negatives()
    loss: Loss = Loss()
    relation_prediction: NonNegative = 0.0
    """Weight of predicting the relation from head and tail (Chen et al. 2021); with k_vs_all those of triples drawn anew for
    each step, as many as its queries have in the mean."""
    penalty: Penalty = Penalty()

    @model_validator(mode="after")
    def _loss_fits_training(self) -> "LinkPrediction":
        loss, training = self.loss, self.training
        if training != "negatives" and loss.name in ("margin", "self_adversarial"):
            raise ValueError(f"loss.name: {loss.name} needs training: negatives, got {training}")
        if self.block and (training, loss.name) != ("one_vs_all", "softmax"):
            raise ValueError("block: needs training: one_vs_all with loss.name: softmax")
        if loss.targets and (training == "negatives" or loss.name != "softmax"):
            raise ValueError(
                "loss.targets: needs training: one_vs_all or k_vs_all, with loss.name: softmax, "
                f"got {training} with {loss.name}"
            )
        if loss.targets and training == "one_vs_all":
            if not self.reciprocal:
                raise ValueError("loss.targets: needs reciprocal: true with training: one_vs_all")
            if self.penalty.name == "dura":
                raise ValueError("penalty.name: dura holds each triple's target: not with loss.targets and one_vs_all")
        return self

    @model_validator(mode="after")
    def _negatives_fit(self) -> "LinkPrediction":
        if self.training != "negatives":
            return self
        negatives = self.negatives
        if negatives.logq and (self.loss.name, negatives.sampler) != ("softmax", "uniform"):
            raise ValueError(
                "negatives.logq: needs loss.name: softmax with negatives.sampler: uniform, "
                f"got {self.loss.name} with {negatives.sampler}"
            )
        if self.reciprocal and negatives.queries != "both":
            raise ValueError(f"negatives.queries: {negatives.queries} needs reciprocal: false")
        if negatives.shared and negatives.queries != "both":
            raise ValueError(f"negatives.shared: {negatives.shared} needs negatives.queries: both, got {negatives.queries}")
        if negatives.shared and negatives.sampler == "typed":
            raise ValueError(
                "negatives.shared: not with negatives.sampler: typed, whose candidates are of one relation; set it to 0"
            )
        if isinstance(negatives.shared, int) and negatives.shared and self.batch_size % negatives.shared:
            raise ValueError(f"negatives.shared: {negatives.shared} does not divide batch_size {self.batch_size}")
        return self
