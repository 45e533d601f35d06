"""A run from its config to its folder: data → inputs → training → one test → report. Every stage can be killed and repeated."""

import contextlib
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionjax import hub, plugins, runs
from fusionjax.config import dump_run, schema
from fusionjax.config.unread import unread
from fusionjax.data.clean import render_effects
from fusionjax.data.inputs import Inputs, build_inputs
from fusionjax.data.prepare import Prepared, prepare
from fusionjax.errors import UserError, nearest
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.scores import Scores, save_scores
from fusionjax.files import write_json
from fusionjax.reporting import plots, report
from fusionjax.runs import RunFolder
from fusionjax.serving import model as serving
from fusionjax.serving.folder import write_index
from fusionjax.tasks import TASKS
from fusionjax.tasks.evaluator import Evaluator, Validation
from fusionjax.tasks.predictor import RunPredictor
from fusionjax.training import trackers
from fusionjax.training.entity_text import with_entity_text
from fusionjax.training.journal import OnValidation, Trained, prefixed
from fusionjax.training.loop import Outcome, cannot_share, train
from fusionjax.training.trackers import Trackers

Say = Callable[[str], None]


def run(config: schema.Run, folder: Path | None, name: str, say: Say = print, fingerprint: str | None = None) -> RunFolder:
    """Does what of the run is not yet done, and returns its folder.

    Args:
      config: resolved.
      folder: where; default `runs/NAME-DIGEST`.
      name: of the config, for the default folder.
      fingerprint: of the data the run must have, where other runs are to be compared with it.

    Raises:
      UserError: the config asks for what the data lacks, the folder holds another run, or its data changed.
      NonFiniteLoss, Interrupted: from training.
    """
    trackers.require(config.track)
    plugins.used(config)  # its mistakes before anything is prepared
    home = runs.open_run(config, folder, name)
    prepared = prepare(config.data, log=say)
    check_fingerprint(home.path, prepared.fingerprint, fingerprint)
    record = _start(home, config, prepared)
    if complete(home):
        say("this run is complete; nothing to do")
        return home
    started = time.monotonic()
    say("cleaning:\n" + render_effects(prepared.cleaning))
    say("shop: " + ", ".join(f"{count:,} {part}" for part, count in prepared.shop.counts().items()))
    inputs = _inputs(prepared, config, home, say)
    with Trackers(home, config, record, say) as tracked:
        trained = _train_one(config, inputs, home, say, tracked)
        _finish(home, config, prepared, inputs, trained, record, time.monotonic() - started, say, tracked)
    return home


def _inputs(prepared: Prepared, config: schema.Run, home: RunFolder, say: Say) -> Inputs:
    if ignored := unread(config):
        say(f"not read by this run, as it is set here: {', '.join(ignored)}")
    inputs = build_inputs(prepared.shop, config, home.tokenizer, log=say)
    return with_entity_text(inputs, config, say)


def _train(
    configs: Sequence[schema.Run],
    inputs: Sequence[Inputs],
    homes: Sequence[RunFolder],
    say: Say,
    tracked: Sequence[Trackers],
    on_validation: OnValidation | None = None,
) -> list[Outcome]:
    return train(configs, inputs, homes, Validation, say, tracked, on_validation)


def _train_one(
    config: schema.Run,
    inputs: Inputs,
    home: RunFolder,
    say: Say,
    tracked: Trackers,
    on_validation: OnValidation | None = None,
) -> Trained:
    (trained,) = _train([config], [inputs], [home], say, [tracked], on_validation)
    assert isinstance(trained, Trained)  # a lone run that fails raises
    return trained


@dataclasses.dataclass(frozen=True)
class Validated:
    """A run trained and validated, but never tested."""

    value: float
    """The best validation value by `train.select`."""
    best_step: int
    steps: int
    curve: dict[int, float]
    """Step → validation value."""


def validate_only(
    config: schema.Run,
    folder: Path,
    name: str,
    say: Say = print,
    on_validation: OnValidation | None = None,
    fingerprint: str | None = None,
) -> Validated:
    """Trains like `run` (and goes on where it was stopped), but measures nothing on test and writes no report.

    Args:
      on_validation: told each step and value, those of an earlier process too; training ends where it returns true.

    Raises:
      UserError, NonFiniteLoss, Interrupted: as `run`.
    """
    trackers.require(config.track)
    plugins.used(config)  # its mistakes before anything is prepared
    home = runs.open_run(config, folder, name)
    prepared = prepare(config.data, log=say)
    check_fingerprint(home.path, prepared.fingerprint, fingerprint)
    record = _start(home, config, prepared)
    inputs = _inputs(prepared, config, home, say)
    told: set[int] = set()

    def tell() -> bool:
        new = [row for row in _validations(home) if row["step"] not in told]
        told.update(row["step"] for row in new)
        return on_validation is not None and any([on_validation(row["step"], row["selected"]) for row in new])

    with Trackers(home, config, record, say) as tracked:
        trained = _train_one(config, inputs, home, say, tracked, lambda *_: tell())
    tell()  # what a process wrote that was killed right after its last step
    rows = _validations(home)
    best = next(row for row in reversed(rows) if row["best"])
    return Validated(best["selected"], best["step"], trained.steps, {row["step"]: row["selected"] for row in rows})


def validate_settings(
    configs: Sequence[schema.Run], folders: Sequence[Path], name: str, say: Say = print
) -> list[float | None]:
    """Trains runs of link prediction that differ in numbers alone, in one program; tests none of them.

    Returns:
      The best validation value of each; None where training diverged.

    Raises:
      UserError: as `run`; the runs differ in more than `training.loop.check_together` allows.
      Interrupted: from training.
    """
    homes = [runs.open_run(one, folder, name) for one, folder in zip(configs, folders, strict=True)]
    prepared = prepare(configs[0].data, log=say)
    records = [_start(home, one, prepared) for one, home in zip(configs, homes, strict=True)]
    inputs = _inputs(prepared, configs[0], homes[0], say)
    with contextlib.ExitStack() as stack:
        given = zip(configs, homes, records, strict=True)
        tracked = [stack.enter_context(Trackers(home, one, record, say)) for one, home, record in given]
        trained = _train(configs, [inputs] * len(configs), homes, say, tracked)
    return [
        next(row["selected"] for row in reversed(_validations(home)) if row["best"]) if isinstance(outcome, Trained) else None
        for home, outcome in zip(homes, trained, strict=True)
    ]


def _validations(home: RunFolder) -> list[dict[str, Any]]:
    return [row for row in home.metrics() if row["kind"] == "valid"]


def run_together(
    config: schema.Run,
    seeds: Sequence[int],
    folders: Sequence[Path],
    name: str,
    say: Say = print,
    fingerprint: str | None = None,
) -> list[RunFolder]:
    """`run` for several seeds of one config, trained in one program; complete ones are skipped.

    A seed whose loss is not finite stops alone: its folder gets no results.json, its provenance the error under `failure`.

    Args:
      config: resolved; its own seed does not count.
      seeds, folders: the runs and where they go, each once.
      name: of the config, for messages.
      fingerprint: of the data the runs must have, where other runs are to be compared with them.

    Returns:
      The folders as `RunFolder`s, in the order of the seeds.

    Raises:
      UserError: as `run`; or seeds of this config cannot be trained together (`training.loop.cannot_share`).
      Interrupted: from training.
    """
    if len(set(seeds)) != len(seeds) or len({folder.absolute() for folder in folders}) != len(folders):
        raise ValueError(f"seeds {list(seeds)} and their folders must differ")
    if reason := cannot_share(config):
        raise UserError(f"{name}: {reason}")
    trackers.require(config.track)
    plugins.used(config)  # its mistakes before anything is prepared
    configs = [config.model_copy(update={"seed": seed}) for seed in seeds]
    homes = [runs.open_run(one, folder, name) for one, folder in zip(configs, folders, strict=True)]
    prepared = prepare(config.data, log=say)
    todo: list[tuple[schema.Run, RunFolder, dict[str, Any]]] = []
    for one, home in zip(configs, homes, strict=True):
        check_fingerprint(home.path, prepared.fingerprint, fingerprint)
        record = _start(home, one, prepared)
        if complete(home):
            say(f"seed {one.seed}: this run is complete; nothing to do")
            continue
        record.pop("failure", None)
        record["trained_together"] = {"seeds": list(seeds), "note": "one program; `seconds` is this seed's share"}
        write_json(home.provenance_file, record)
        todo.append((one, home, record))
    if not todo:
        return homes
    started = time.monotonic()
    inputs = [_inputs(prepared, todo[0][0], todo[0][1], say)]
    if config.data.controls == schema.Controls():
        inputs *= len(todo)
    else:  # drawn from the seed
        inputs += [_inputs(prepared, one, home, lambda _: None) for one, home, _ in todo[1:]]
    with contextlib.ExitStack() as stack:
        tracked = [stack.enter_context(Trackers(home, one, record, say)) for one, home, record in todo]
        trained = _train([one for one, _, _ in todo], inputs, [home for _, home, _ in todo], say, tracked)
        share = (time.monotonic() - started) / len(todo)
        for (one, home, record), own, outcome, tracker in zip(todo, inputs, trained, tracked, strict=True):
            if isinstance(outcome, Trained):
                tell = prefixed(say, f"seed {one.seed}")
                _finish(home, one, prepared, own, outcome, record, share, tell, tracker)
            else:
                tracker.close("failed")
                write_json(home.provenance_file, record | {"failure": str(outcome)})
    if failed := [one.seed for (one, _, _), outcome in zip(todo, trained, strict=True) if not isinstance(outcome, Trained)]:
        say(f"no results of seeds {', '.join(map(str, failed))}: training diverged (provenance.json, failure)")
    return homes


def _finish(
    home: RunFolder,
    config: schema.Run,
    prepared: Prepared,
    inputs: Inputs,
    trained: Trained,
    record: dict[str, Any],
    spent: float,
    say: Say,
    tracked: Trackers,
) -> None:
    """What follows training: the one test, the provenance's end, the report. `spent`: seconds this process took until here."""
    started = time.monotonic()
    say(f"best checkpoint: step {trained.best_step} of {trained.steps}; measuring it on test")
    best = serving.from_checkpoint(config, inputs, home)
    write_index(home, best.index, prepared.fingerprint, say)
    results, scores = measure(best, inputs, config)
    write_scores(home, scores)  # before results.json, which says that the run was measured
    write_json(home.results_file, results)
    tracked.write_test(trained.steps, results["test"])
    record |= {
        "finished": runs.now(),
        "seconds": round(record.get("seconds", 0.0) + spent + time.monotonic() - started, 1),
        "steps": trained.steps,
        "best_step": trained.best_step,
        "stopped_early": trained.stopped_early,
        "parameters": trained.parameters,
    }
    write_json(home.provenance_file, record)
    write_report(home, config, prepared, inputs, best, results, record)


def evaluate(folder: Path, say: Say = print, tasks: Sequence[str] | None = None) -> tuple[dict[str, Any], bool]:
    """Measures a run's best checkpoint again, and writes results and report anew.

    Args:
      tasks: only these, and nothing is written; None: all that the run is measured on.

    Returns:
      (results, whether they equal those the folder held; true where only some tasks were asked for).

    Raises:
      UserError: no run there; one of several seeds or settings; its data have changed; a task it cannot be measured on.
    """
    home = RunFolder(folder)
    config = _with_tasks(home.config(), tasks)
    if config.seeds:
        raise UserError(f"{folder}: a run of several seeds; measure one of them, such as {folder / f'seed-{config.seeds[0]}'}")
    if config.settings:
        raise UserError(f"{folder}: a run of several settings; measure the chosen one, {folder / 'setting-N'}")
    prepared = prepare(config.data, log=say)
    record = _start(home, config, prepared)
    inputs = _inputs(prepared, config, home, say)
    best = serving.from_checkpoint(config, inputs, home)
    if tasks is not None:
        return _of_tasks(measure(best, inputs, config)[0], tasks), True
    write_index(home, best.index, prepared.fingerprint, say)
    results, scores = measure(best, inputs, config)
    write_scores(home, scores)
    same = home.results_file.exists() and home.results() == results
    write_json(home.results_file, results)
    write_report(home, config, prepared, inputs, best, results, record)
    return results, same


def _with_tasks(config: schema.Run, tasks: Sequence[str] | None) -> schema.Run:
    if tasks is None:
        return config
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"no task '{task}'{nearest(task, TASKS)}")
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"tasks": tuple(tasks)})})


def _of_tasks(results: dict[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """What results.json would hold of some tasks alone."""
    if strange := [task for task in tasks if task not in results["test"]]:
        raise UserError(f"this run is not measured on {strange[0]}{nearest(strange[0], results['test'])}")
    by_task = ("valid", "test", "baselines", "baseline_settings", "intervals")
    return {
        name: {task: row for task, row in part.items() if task in tasks} if name in by_task else part
        for name, part in results.items()
    }


def check_fingerprint(place: Path, found: str, expected: str | None) -> None:
    """Raises `UserError` if data are not those that other runs of the same comparison have."""
    if expected is not None and found != expected:
        raise UserError(
            f"{place}: the data has changed (fingerprint {found[:12]}, the study's other cells have {expected[:12]}): "
            "they cannot stand in one table"
        )


def complete(home: RunFolder) -> bool:
    """Whether nothing of the run is left to do."""
    return home.results_file.exists() and (home.path / "report.html").exists()


def _start(home: RunFolder, config: schema.Run, prepared: Prepared) -> dict[str, Any]:
    """The run's provenance, begun now or by the process that was killed before."""
    record = home.provenance()
    if record:
        if record["fingerprint"] != prepared.fingerprint:
            raise UserError(
                f"{home.path}: the data has changed since this run began (fingerprint {prepared.fingerprint[:12]}, "
                f"was {record['fingerprint'][:12]}); use another --run-dir"
            )
        return record
    record = runs.provenance(config, prepared.fingerprint, prepared.source)
    if found := plugins.used(config):
        record |= _of_plugins(record, found)
    entity_text = config.model.entity.text
    places = {
        "text.checkpoint": config.text.checkpoint,
        "objectives.distillation.teacher": config.objectives.distillation.teacher,
        "model.entity.text.checkpoint": entity_text.checkpoint if entity_text.use != "none" else None,
    }
    if checkpoints := {key: hub.fingerprint(hub.locate(place)) for key, place in places.items() if place is not None}:
        record["checkpoints"] = checkpoints  # SHA-256: a folder's name says little
    write_json(home.provenance_file, record)
    return record


def _of_plugins(record: Mapping[str, Any], found: Sequence[Mapping[str, str | None]]) -> dict[str, Any]:
    """What the provenance says of plug-ins: which were used, and their packages beside the others."""
    packages = {one["package"]: one["version"] or "unknown" for one in found if one["package"]}
    return {"plugins": list(found), "versions": {**record["versions"], **packages}}


def measure(best: serving.Model, inputs: Inputs, config: schema.Run) -> tuple[dict[str, Any], dict[str, Scores]]:
    """Measures the best checkpoint on validation and test, and baselines on test.

    Returns:
      (what results.json holds, what `write_scores` writes: everyone's ranks on test by task).
    """
    tasks = Evaluator(config, inputs)
    predictor = RunPredictor(best.encoder, best.bank, inputs)
    found, valid = tasks.test(predictor), tasks.validate(predictor)
    parts = {"valid": _numbers(valid), "test": _numbers(found)}
    intervals, simple = tasks.intervals(found), tasks.baselines() if config.evaluation.baselines else {}
    more = {"intervals": intervals} if intervals else {}
    return {**parts, **more, **_baseline_results(simple), **_said_of(config.evaluation)}, tasks.scores(found, simple)


def measure_baselines(inputs: Inputs, config: schema.Run) -> tuple[dict[str, Any], dict[str, Scores]]:
    """Measures the baselines alone, without any training; the same two as `measure` returns."""
    tasks = Evaluator(config, inputs)
    found = tasks.baselines()
    return {**_baseline_results(found), **_said_of(config.evaluation)}, tasks.scores({}, found)


def baselines_alone(config: schema.Run, home: RunFolder, fingerprint: str | None, say: Say) -> None:
    """results.json, scores/ and provenance of the simple methods alone, in a folder of their own.

    Raises:
      UserError: the data are not those with the fingerprint.
    """
    found = plugins.used(config)
    home.path.mkdir(parents=True, exist_ok=True)
    prepared = prepare(config.data, log=say)
    check_fingerprint(home.path, prepared.fingerprint, fingerprint)
    record = runs.provenance(config, prepared.fingerprint, prepared.source)
    write_json(home.provenance_file, record | (_of_plugins(record, found) if found else {}))
    with tempfile.TemporaryDirectory() as elsewhere:  # the tokeniser is not worth keeping
        inputs = _inputs(prepared, config, RunFolder(Path(elsewhere)), say)
    results, scores = measure_baselines(inputs, config)
    write_scores(home, scores)
    write_json(home.results_file, results)


def write_scores(home: RunFolder, scores: Mapping[str, Scores]) -> None:
    """scores/TASK.npz."""
    for task, (asked, values) in scores.items():
        save_scores(home.scores / f"{task}.npz", asked, values)


def _baseline_results(found: Mapping[str, Mapping[str, Result]]) -> dict[str, Any]:
    results: dict[str, Any] = {"baselines": {task: _numbers(by_name) for task, by_name in found.items()}}
    chosen = {
        task: {name: result.settings for name, result in by_name.items() if result.settings} for task, by_name in found.items()
    }
    if any(chosen.values()):
        results["baseline_settings"] = chosen
    return results


def _said_of(settings: schema.Evaluation) -> dict[str, Any]:
    """What a reader of the results must know: that they are of a sample, and which metrics were asked for."""
    said: dict[str, Any] = {}
    if sampled := {name: size for name, size in (("valid", settings.max_valid), ("test", settings.max_test)) if size}:
        said["sampled"] = {name: f"at most {size} examples a task, drawn once at random" for name, size in sampled.items()}
    if settings.metrics:
        said["metrics"] = {task: list(names) for task, names in settings.metrics.items()}
    return said


def _numbers(results: Mapping[str, Result]) -> dict[str, dict[str, float | None]]:
    return {task: _finite(result.metrics) for task, result in results.items()}


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: what is undefined (NaN) is null."""
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


def write_report(
    home: RunFolder,
    config: schema.Run,
    prepared: Prepared,
    inputs: Inputs,
    best: serving.Model,
    results: dict[str, Any],
    record: dict[str, Any],
) -> None:
    """plots/*.png and report.html."""
    vectors = labels = None
    shown = report.Examples()
    what = " + ".join(config.model.product.sources) if best.layout.has_products else config.model.entity.scorer
    if best.layout.has_products:
        found = Evaluator(config, inputs).show(RunPredictor(best.encoder, best.bank, inputs))
        shown = report.Examples(found.get("search", []), found.get("recommendation", []))
        if inputs.n_products > 2:
            vectors, labels = best.unit, [path.split(" > ")[0] for path in inputs.shop.products.category]
            if not any(labels):
                labels = list(inputs.shop.products.brand)
    legend = plots.write_plots(home.plots, curves=home.metrics(), results=results, vectors=vectors, labels=labels)
    report.write_report(
        home.path,
        title=f"{config.data.name}: {what}",
        config_yaml=dump_run(config),
        results=results,
        provenance=record,
        curves=home.metrics(),
        legend=legend,
        examples=shown,
        cleaning=prepared.cleaning,
        counts=prepared.shop.counts(),
        graph_counts=inputs.graph.relation_counts(),
    )
