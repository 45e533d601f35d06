"""Distillation: the encoder's vectors of product texts become those of a teacher."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fusionjax import losses
from fusionjax.config import schema
from fusionjax.data.inputs import Inputs
from fusionjax.errors import UserError
from fusionjax.objectives.base import Entry, Objective
from fusionjax.objectives.sampling import Shuffle
from fusionjax.objectives.towers import Towers


class Distillation(Objective):
    """Product texts with their vectors by the teacher.

    A batch is `tokens`: int32 [b, l]; `teacher`: float32 [b, q].
    """

    name = "distillation"
    owns_text = True
    packs_tokens = True

    def __init__(self, inputs: Inputs, config: schema.Run) -> None:
        assert inputs.product_tokens is not None and inputs.teacher is not None
        self.tokens, self.rows, self.teacher = inputs.product_tokens, np.flatnonzero(inputs.has_text), inputs.teacher
        if not len(self.rows):
            raise UserError("objectives.distillation: no product has a text")
        self.shuffle = Shuffle(len(self.rows), config.objectives.distillation.batch_size, config.seed, self.name)

    def batch(self, index: int) -> Entry:
        rows = self.rows[self.shuffle.rows(index)]
        return {"tokens": self.tokens[rows], "teacher": self.teacher[rows]}

    @staticmethod
    def loss(towers: Towers, batch: dict[str, Array]) -> Float[Array, ""]:
        """Cosine: each vector to its own. KL: the similarities within the batch, at a fixed temperature."""
        settings = towers.config.objectives.distillation
        student, teacher = towers.encode(batch, len(batch["teacher"])), batch["teacher"]
        valid = jnp.ones(len(student), bool)

        def cosine(student: Array, teacher: Array) -> Array:
            return losses.cosine_distillation(student, teacher, valid)

        def kl(student: Array, _: Array) -> Array:
            scale = jnp.asarray(1.0 / towers.config.objectives.temperature)
            return losses.kl_distillation(student, student, teacher, teacher, scale, scale, valid)

        loss = cosine if settings.loss == "cosine" else kl
        if settings.matryoshka:
            # Only the student's prefixes are compared in kl, always with the whole of the teacher.
            other = teacher if settings.loss == "cosine" else student
            return losses.matryoshka(loss, student, other, settings.matryoshka)
        return loss(student, teacher)
