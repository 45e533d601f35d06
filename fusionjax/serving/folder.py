"""Which run a folder stands for, and its index: the one saved with it, or one made again while its data are still there."""

import dataclasses
import logging
from typing import Any

from fusionjax.config import schema
from fusionjax.errors import UserError
from fusionjax.retrieval.index import Index, load_index, readable_size, save_index
from fusionjax.runs import RunFolder

_LOG = logging.getLogger(__name__)


def chosen_run(home: RunFolder) -> RunFolder:
    """The run itself; of several seeds or settings the one best on validation, which is said in the log.

    Raises:
      UserError: no run there, or none of its seeds has been measured.
    """
    home.config()  # raises where there is no run
    results = home.results() if home.results_file.exists() else {}
    if "settings" in results:
        place = next(place for place, row in enumerate(results["settings"]) if row["chosen"])
        _LOG.warning("%s: setting %d is the best on validation", home.path, place)
        return RunFolder(home.path / f"setting-{place}")
    seeds = [RunFolder(path) for path in sorted(home.path.glob("seed-*")) if (path / "results.json").exists()]
    if not seeds:
        if any(home.path.glob("seed-*")) or any(home.path.glob("setting-*")):
            raise UserError(f"{home.path}: a run of several seeds or settings, none of which has finished; train it first")
        return home
    best = max(seeds, key=_selected)
    if len(seeds) > 1:
        _LOG.warning("%s: %s is the best of %d seeds on validation", home.path, best.path.name, len(seeds))
    return best


def _selected(home: RunFolder) -> float:
    """The validation value by which the run's best checkpoint was chosen."""
    return max((row["selected"] for row in home.metrics() if row["kind"] == "valid" and row["best"]), default=float("-inf"))


def best_step(home: RunFolder) -> int | None:
    """Step of the best checkpoint; None where there is none."""
    folder = home.checkpoints / "best"
    steps = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return max(steps, default=None)


def write_index(home: RunFolder, index: Index, fingerprint: str, say: Any) -> None:
    """Saves the index with the run and says how large it is.

    Args:
      fingerprint: of the data.
    """
    size = save_index(home.index, dataclasses.replace(index, data=fingerprint))
    left_out = " (users left out: data.keep_users is false)" if index.users_left_out else ""
    say(f"index: {readable_size(size)}{left_out}")


def open_index(home: RunFolder, config: schema.Run) -> Index:
    """The run's index; of an older run, or one that was trained on, made anew from its data and saved where that is allowed.

    Raises:
      UserError: not trained yet; no index and the data are gone or have changed.
    """
    index, step = load_index(home.index), best_step(home)
    if index is not None and step in (None, index.step):
        return index
    if not home.checkpoints.exists():
        raise UserError(f"{home.path}: not trained yet (no checkpoints)")
    index, fingerprint = _made(home, config)
    try:
        write_index(home, index, fingerprint, _LOG.info)
    except UserError as error:  # a folder one may only read: the index stays in memory
        _LOG.warning("%s", error)
    return index


def _made(home: RunFolder, config: schema.Run) -> tuple[Index, str]:
    """(index, fingerprint of the data)."""
    # Here and not above: a run that has its index needs none of this.
    from fusionjax.data.inputs import build_inputs
    from fusionjax.data.prepare import prepare
    from fusionjax.serving.model import from_checkpoint
    from fusionjax.training.entity_text import with_entity_text

    prepared = prepare(config.data, log=_LOG.info)
    recorded = home.provenance().get("fingerprint")
    if recorded is not None and recorded != prepared.fingerprint:
        raise UserError(
            f"{home.path}: the data is not what the run was trained on "
            f"(fingerprint {prepared.fingerprint[:12]}, was {recorded[:12]})"
        )
    inputs = build_inputs(prepared.shop, config, home.tokenizer, log=_LOG.info)
    inputs = with_entity_text(inputs, config, _LOG.info)
    return from_checkpoint(config, inputs, home).index, prepared.fingerprint
