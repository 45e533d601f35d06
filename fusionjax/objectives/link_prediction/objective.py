"""Link prediction beside other objectives: a softmax over a true triple and negatives that the batch shares."""

import jax
from jaxtyping import Array, Float

from fusionjax import losses
from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.data.shop import TRAIN
from fusionjax.errors import UserError
from fusionjax.objectives.base import Entry, Objective
from fusionjax.objectives.sampling import Shuffle
from fusionjax.objectives.towers import Towers


class LinkPrediction(Objective):
    """Training triples of the graph.

    A batch is `head`, `relation`, `tail`: int32 [b].
    """

    name = "link_prediction"

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        self.triples = inputs.graph.triples(TRAIN)
        if not len(self.triples):
            raise UserError("objectives.link_prediction: the graph has no training edges (see data.graph)")
        self.shuffle = Shuffle(len(self.triples), config.objectives.link_prediction.batch_size, config.seed, self.name)

    def batch(self, index: int) -> Entry:
        head, relation, tail = self.triples[self.shuffle.rows(index)].T
        return {"head": head, "relation": relation, "tail": tail}

    @staticmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """Heads and tails corrupted in turn by the same uniformly drawn entities; the mean of both."""
        settings = towers.config.objectives.link_prediction
        head_row, tail_row = batch["head"], batch["tail"]
        negative_row = jax.random.randint(towers.next_key(), (settings.negatives,), 0, towers.model.layout.n_entities)
        head, tail, negative = (towers.apply("entity_vectors", rows) for rows in (head_row, tail_row, negative_row))
        relation = towers.apply("relation_vectors", batch["relation"])
        positive = towers.apply("score", head, relation, tail)
        against_tail = towers.apply("score", head[:, None], relation[:, None], negative[None])
        against_head = towers.apply("score", negative[None], relation[:, None], tail[:, None])
        # A negative that is the very entity it stands in for is none.
        is_tail, is_head = (negative_row[None] == row[:, None] for row in (tail_row, head_row))
        loss = 0.5 * (
            losses.link_prediction(positive, against_tail, is_tail, settings.self_adversarial)
            + losses.link_prediction(positive, against_head, is_head, settings.self_adversarial)
        )
        if settings.l2:
            loss += settings.l2 * sum((x * x).sum(-1).mean() for x in (head, relation, tail)) / 3
        return loss
