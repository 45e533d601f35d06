"""The plug-ins that a run uses: looked up before anything is prepared, and named in its provenance."""

from typing import Any

from fusionjax import registry
from fusionjax.baselines import BASELINES
from fusionjax.config import schema
from fusionjax.config.plugins import named
from fusionjax.data.sources import SOURCES
from fusionjax.evaluation.metrics import METRICS
from fusionjax.evaluation.segments import SEGMENTS
from fusionjax.models.scorers import SCORERS
from fusionjax.objectives import OBJECTIVES
from fusionjax.objectives.link_prediction.negatives import SAMPLERS
from fusionjax.registry import Registry
from fusionjax.tasks import TASKS
from fusionjax.training.trackers import TRACKERS

_EVERY: tuple[Registry[Any], ...] = (
    SCORERS,
    SAMPLERS,
    OBJECTIVES,
    TASKS,
    METRICS,
    SEGMENTS,
    BASELINES,
    SOURCES,
    TRACKERS,
)
TABLES: dict[str, Registry[Any]] = {table.group: table for table in _EVERY}
"""Group of entry points → the table of that kind."""


def used(config: schema.Run) -> list[dict[str, str | None]]:
    """`group`, `name`, `package` and `version` of every plug-in that a config names; ours are left out.

    What was handed over under a plain name has no package: `null`.

    Raises:
      UserError: there is no such plug-in, it cannot be imported, or it is not what its group holds.
    """
    found: list[dict[str, str | None]] = []
    for group, name in dict.fromkeys(named(config.model_dump(mode="json"))):
        table = TABLES[group]
        if name in table.own or (group == registry.METRICS and name not in table and not registry.is_dotted(name)):
            continue  # a metric of plain values, such as `accuracy`, is no entry of the table of ranks
        if group == registry.SOURCES and name not in table and not registry.is_dotted(name):
            continue  # `prepare` names the nearest
        table.get(name)
        came = table.origin(name)
        found.append(
            {
                "group": group,
                "name": name,
                "package": came.package if came else None,
                "version": came.version if came else None,
            }
        )
    return found
