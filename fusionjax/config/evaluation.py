"""`evaluation`: which tasks are measured, and how."""

from typing import Annotated, Literal

from pydantic import Field

from fusionjax.config.section import Positive, Section

TaskName = Literal["link_prediction", "triple_classification", "search", "recommendation"]


class Evaluation(Section):
    tasks: tuple[TaskName, ...] | None = None
    """Tasks to measure; none given: each task the shop has data for and the model can do."""
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
    metrics: dict[TaskName, tuple[str, ...]] = Field(default={})
    """Task → metrics, such as `hits@5`, `recall@50`, `map`, `amri`; a task not named has its usual ones."""
