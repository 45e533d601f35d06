"""One run of a graph alone with several settings (`settings`): trained in one program, chosen on validation, tested once.

The folder of the whole holds `config.yaml`, a run folder `setting-N` for each, and `results.json`: that of the chosen one, with
`settings` beside: what each changes, and its best validation MRR.
"""

from collections.abc import Callable
from pathlib import Path

from fusionjax import pipeline, runs
from fusionjax.config import schema
from fusionjax.config.search import with_params
from fusionjax.errors import UserError
from fusionjax.files import write_json
from fusionjax.runs import RunFolder


def run_settings(config: schema.Run, folder: Path | None, name: str, say: Callable[[str], None] = print) -> RunFolder:
    """Does what of the settings' runs is not yet done, and returns the folder of the whole.

    Raises:
      UserError: as `pipeline.run`; the run is no graph alone; every setting diverged.
    """
    if config.only_objective != "link_prediction":
        raise UserError(
            f"settings: are for a graph alone, but the objectives with a weight are {', '.join(config.objectives.used())}"
        )
    if config.seeds:
        raise UserError("settings: not together with seeds: choose a setting first, then train it with several seeds")
    home = runs.open_run(config, folder, name)
    plain = config.model_copy(update={"settings": ()})
    changes: list[dict[str, float]] = [{str(key): value for key, value in each.items()} for each in config.settings]
    configs = [with_params(plain, each, "settings") for each in changes]
    folders = [home.path / f"setting-{place}" for place in range(len(configs))]
    values = pipeline.validate_settings(configs, folders, name, say)
    ended = [place for place, value in enumerate(values) if value is not None]
    if not ended:
        raise UserError(f"{home.path}: training diverged with every setting; lower train.optimiser.learning_rate.tables")
    chosen = max(ended, key=lambda place: values[place] or 0.0)
    say(f"setting {chosen} is the best on validation: {changes[chosen]}")
    found = pipeline.run(configs[chosen], folders[chosen], name, say)
    table = [
        {"setting": setting, "validation_mrr": value, "chosen": place == chosen}
        for place, (setting, value) in enumerate(zip(config.settings, values, strict=True))
    ]
    write_json(home.results_file, {**found.results(), "settings": table})
    return home
