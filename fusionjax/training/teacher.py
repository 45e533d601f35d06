"""The teacher of `objectives.distillation`: its vectors of the product texts, computed once a process."""

import dataclasses
from collections.abc import Callable

from fusionjax.config import schema
from fusionjax.data.inputs import Inputs, texts_read
from fusionjax.errors import UserError
from fusionjax.text_encoder import TextEncoder
from fusionjax.training.state import layout


def taught(inputs: Inputs, config: schema.Run, say: Callable[[str], None]) -> Inputs:
    """The inputs with the teacher's vectors, where an objective asks for them.

    Raises:
      UserError: the teacher cannot be read; its vectors are not as wide as the student's and the loss needs it.
    """
    settings = config.objectives.distillation
    if settings.weight <= 0 or inputs.teacher is not None:
        return inputs
    assert settings.teacher is not None
    teacher, student = TextEncoder.from_pretrained(settings.teacher), layout(config, inputs)
    assert student.encoder is not None
    width = student.encoder.width * len(student.pooling.split("+"))
    if settings.loss == "cosine" and teacher.width != width:
        raise UserError(
            f"objectives.distillation.loss: cosine needs vectors of one width: the teacher's have {teacher.width} numbers, the "
            f"encoder's {width}; use kl, which compares similarities"
        )
    texts = texts_read(inputs, config)
    say(f"distillation: {len(texts):,} texts through the teacher")
    return dataclasses.replace(inputs, teacher=teacher.encode(texts))
