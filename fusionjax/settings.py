"""One run of graph embedding with several settings (`kge.settings`): trained in one program, chosen on validation, tested once.

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
      UserError: as `pipeline.run`; no scorer is named; every setting diverged.
    """
    if config.kge.scorer is None:
        raise UserError("kge.settings: names settings of graph embedding, but kge.scorer names no scorer")
    if config.seeds:
        raise UserError("kge.settings: not together with seeds: choose a setting first, then train it with several seeds")
    home = runs.open_run(config, folder, name)
    plain = config.model_copy(update={"kge": config.kge.model_copy(update={"settings": ()})})
    changes = [{f"kge.{key}": value for key, value in setting.items()} for setting in config.kge.settings]
    configs = [with_params(plain, each, "kge.settings") for each in changes]
    folders = [home.path / f"setting-{place}" for place in range(len(configs))]
    values = pipeline.validate_settings(configs, folders, name, say)
    ended = [place for place, value in enumerate(values) if value is not None]
    if not ended:
        raise UserError(f"{home.path}: training diverged with every setting; lower kge.optimiser.learning_rate")
    chosen = max(ended, key=lambda place: values[place] or 0.0)
    say(f"setting {chosen} is the best on validation: {changes[chosen]}")
    found = pipeline.run(configs[chosen], folders[chosen], name, say)
    table = [
        {"setting": setting, "validation_mrr": value, "chosen": place == chosen}
        for place, (setting, value) in enumerate(zip(config.kge.settings, values, strict=True))
    ]
    write_json(home.results_file, {**found.results(), "settings": table})
    return home
