"""A run from its config to its folder: data → inputs → training → one test → report. Every stage can be killed and repeated."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusionjax import runs
from fusionjax.config import dump_run, schema
from fusionjax.data.clean import render_effects
from fusionjax.data.inputs import Inputs, build_inputs
from fusionjax.data.prepare import Prepared, prepare
from fusionjax.data.shop import TEST, VALID
from fusionjax.errors import UserError
from fusionjax.evaluation.metrics import Result
from fusionjax.evaluation.tasks import evaluate_baselines, evaluate_model, recommendation_cases, sample, tasks_of
from fusionjax.reporting import plots, report
from fusionjax.runs import RunFolder
from fusionjax.serving import model as serving
from fusionjax.training.loop import train

Say = Callable[[str], None]


def run(config: schema.Run, folder: Path | None, name: str, say: Say = print) -> RunFolder:
    """Does what of the run is not yet done, and returns its folder.

    Args:
      config: resolved.
      folder: where; default `runs/NAME-DIGEST`.
      name: of the config, for the default folder.

    Raises:
      UserError: the config asks for what the data lacks, the folder holds another run, or its data changed.
      NonFiniteLoss, Interrupted: from training.
    """
    home = runs.open_run(config, folder, name)
    prepared = prepare(config.data, log=say)
    record = _start(home, config, prepared)
    if home.results_file.exists() and (home.path / "report.html").exists():
        say("this run is complete; nothing to do")
        return home
    started = time.monotonic()
    say("cleaning:\n" + render_effects(prepared.cleaning))
    say("shop: " + ", ".join(f"{count:,} {part}" for part, count in prepared.shop.counts().items()))
    inputs = build_inputs(prepared.shop, config, home.tokenizer, log=say)
    say(f"graph: {len(inputs.graph.entities):,} entities, {len(inputs.graph.relations)} relations, {len(inputs.graph):,} edges")
    trained = train(config, inputs, home, say)
    say(f"best checkpoint: step {trained.best_step} of {trained.steps}; measuring it on test")
    best = serving.from_checkpoint(config, inputs, home)
    results = measure(best, inputs, config)
    runs.write_json(home.results_file, results)
    record |= {
        "finished": runs.now(),
        "seconds": round(record.get("seconds", 0.0) + time.monotonic() - started, 1),
        "steps": trained.steps,
        "best_step": trained.best_step,
        "stopped_early": trained.stopped_early,
        "parameters": trained.parameters,
    }
    runs.write_json(home.provenance_file, record)
    write_report(home, config, prepared, inputs, best, results, record)
    return home


def evaluate(folder: Path, say: Say = print) -> tuple[dict[str, Any], bool]:
    """Measures a run's best checkpoint again, and writes results and report anew.

    Returns:
      (results, whether they equal those the folder held).
    """
    home = RunFolder(folder)
    config = home.config()
    prepared = prepare(config.data, log=say)
    record = _start(home, config, prepared)
    inputs = build_inputs(prepared.shop, config, home.tokenizer, log=say)
    best = serving.from_checkpoint(config, inputs, home)
    results = measure(best, inputs, config)
    same = home.results_file.exists() and home.results() == results
    runs.write_json(home.results_file, results)
    write_report(home, config, prepared, inputs, best, results, record)
    return results, same


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
    runs.write_json(home.provenance_file, record)
    return record


def measure(best: serving.Model, inputs: Inputs, config: schema.Run) -> dict[str, Any]:
    """What results.json holds: the best checkpoint on validation and test, baselines on test."""
    settings = config.evaluation
    valid = evaluate_model(best.encoder, best.bank, inputs, config, VALID, settings.max_valid)
    test = evaluate_model(best.encoder, best.bank, inputs, config, TEST, settings.max_test)
    found = evaluate_baselines(inputs, config, settings.max_test) if settings.baselines else {}
    results: dict[str, Any] = {
        "valid": _numbers(valid),
        "test": _numbers(test),
        "baselines": {task: _numbers(by_name) for task, by_name in found.items()},
    }
    chosen = {
        task: {name: result.settings for name, result in by_name.items() if result.settings} for task, by_name in found.items()
    }
    if any(chosen.values()):
        results["baseline_settings"] = chosen
    sampled = {name: size for name, size in (("valid", settings.max_valid), ("test", settings.max_test)) if size}
    if sampled:
        results["sampled"] = {name: f"at most {size} examples a task, drawn once at random" for name, size in sampled.items()}
    return results


def _numbers(results: Mapping[str, Result]) -> dict[str, dict[str, float | None]]:
    """Metrics as JSON can hold them: what is undefined (NaN) is null."""
    return {
        task: {name: float(value) if math.isfinite(value) else None for name, value in result.metrics.items()}
        for task, result in results.items()
    }


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
    if inputs.n_products > 2:
        vectors, labels = best.unit, [path.split(" > ")[0] for path in inputs.shop.products.category]
        if not any(labels):
            labels = list(inputs.shop.products.brand)
    legend = plots.write_plots(home.plots, curves=home.metrics(), results=results, vectors=vectors, labels=labels)
    report.write_report(
        home.path,
        title=f"{config.data.name}: {' + '.join(config.model.product.sources)}",
        config_yaml=dump_run(config),
        results=results,
        provenance=record,
        curves=home.metrics(),
        legend=legend,
        examples=examples(best, inputs, config),
        cleaning=prepared.cleaning,
        counts=prepared.shop.counts(),
        graph_counts=inputs.graph.relation_counts(),
    )


def examples(best: serving.Model, inputs: Inputs, config: schema.Run, most: int = 6, k: int = 5) -> report.Examples:
    """A few test queries and test users with what the model returns for them, drawn once at random."""
    tasks = tasks_of(config, inputs, TEST)
    queries: list[report.QueryExample] = []
    users: list[report.UserExample] = []
    products = inputs.shop.products
    if "search" in tasks:
        judgments = inputs.shop.judgments
        rows = judgments.split == TEST
        grades = {
            (query, product): grade
            for query, product, grade in zip(judgments.query[rows], judgments.product[rows], judgments.grade[rows], strict=True)
        }
        for query in sample(np.unique(judgments.query[rows]), most):
            text = str(inputs.shop.queries.text[query])
            hits = [
                report.Shown(hit.title or hit.id, hit.score, _grade(grades.get((query, best.product_row[hit.id]))))
                for hit in best.search(text, k)
            ]
            queries.append(report.QueryExample(text, hits))
    if "recommendation" in tasks:
        cases = recommendation_cases(inputs, TEST, config.evaluation)
        assert inputs.sequences is not None
        places = sample(np.arange(len(cases.user)), most)
        vectors = best.encoder.users(best.raw, inputs.sequences, cases.user[places], cases.before[places], inputs.profile)
        for place, vector in zip(places, vectors, strict=True):
            history, taken = cases.history[place], set(cases.targets[place].tolist())
            scores = best.unit @ vector
            if config.evaluation.exclude_seen:
                scores[history] = -np.inf
            shown = [
                report.Shown(_name(products, row), float(scores[row]), "taken" if row in taken else "")
                for row in np.argsort(-scores, kind="stable")[:k]
            ]
            latest = [_name(products, row) for row in history[-k:]]
            users.append(
                report.UserExample(
                    str(inputs.shop.users.id[cases.user[place]]), latest, shown, [_name(products, row) for row in sorted(taken)]
                )
            )
    return report.Examples(queries, users)


def _name(products: Any, row: int) -> str:
    return products.title[row] or products.id[row]


def _grade(grade: float | None) -> str:
    return "not judged" if grade is None else f"grade {grade:g}"
