"""`fusionjax study …`: the commands around a study's folder."""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fusionjax.errors import UserError

TOLERANCE = 1e-3
"""By how much a metric may differ when a cell is run again on another machine or with other versions."""


def add_parser(commands: Any) -> None:
    """Adds `study` and its subcommands to the command line."""
    study = commands.add_parser("study", help="plan, run, report or verify a study").add_subparsers(
        required=True, metavar="WHAT"
    )
    init = study.add_parser("init", help="write a template of a study file", description="write a template of a study file")
    init.add_argument("folder", metavar="FOLDER", type=Path, help="the study's folder, made where it is missing")
    init.add_argument("--base", metavar="CONFIG", type=Path, help="the run config that its rows change (none: one is written)")
    init.set_defaults(run=_init)
    text = "JSON Schema of a study file, for editors"
    study.add_parser("schema", help=text, description=text).set_defaults(run=_schema)
    for name, run, text in (
        ("plan", _plan, "the runs of a study, and what they will cost"),
        ("run", _run, "do what is missing"),
        ("search", _search, "only the search of the study's `search:` section; `run` does it first"),
        ("status", _status, "what is done, what is missing, what failed"),
        ("report", _report, "write report.md, report.html, tables and plots"),
        ("verify", _verify, "recompute the tables from the stored scores"),
        ("reproduce", _reproduce, "run one cell again and compare"),
    ):
        command = study.add_parser(name, help=text, description=text)
        command.add_argument("study", metavar="STUDY", type=Path, help="the study's folder, or its study.yaml")
        command.add_argument(
            "places", nargs="*", metavar="KEY=VALUE", help="where data lie on this machine: data.source_dir=FOLDER"
        )
        command.set_defaults(run=run if name == "reproduce" else _each_data_set(run))
        if name == "plan":
            command.add_argument("--no-probe", action="store_true", help="do not train a few steps to estimate the cost")
        if name in ("run", "search"):
            command.add_argument("--workers", type=int, default=1, help="cells, or trials of a search, at a time (1)")
            command.add_argument("--storage", help="Optuna storage URL where workers meet (default: a journal file in runs/)")
        if name == "run":
            command.add_argument("--retry-failed", action="store_true", help="run failed cells again")
        if name == "reproduce":
            command.add_argument("--row", required=True)
            command.add_argument("--seed", required=True, type=int)
            command.add_argument(
                "--tolerance", type=float, default=TOLERANCE, help=f"largest difference of a metric that passes ({TOLERANCE})"
            )


def _each_data_set(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The command on each data set of a study in turn, and then on what joins them; as it is where there is but one."""

    def run(arguments: argparse.Namespace) -> int:
        from fusionjax.config.study import data_set_folders, place_of

        folders = data_set_folders(arguments.study)
        if not folders:
            return command(arguments)
        codes = []
        for folder in folders:
            print(f"data set {folder.name}", flush=True)
            one = argparse.Namespace(**{**vars(arguments), "study": folder})
            codes.append(command(one))
            if getattr(one, "stopped", False):
                return max(codes)
        joined = _report_joined if command is _report else _verify_joined if command is _verify else None
        return max(*codes, joined(place_of(arguments.study).home, folders) if joined else 0)

    return run


def _open(arguments: argparse.Namespace, before_search: bool = False) -> tuple[Any, Any]:
    """(plan, folder), checked against each other; `before_search`: unless a search is to say first what the cells are."""
    if getattr(arguments, "workers", 1) < 1:
        raise UserError(f"--workers {arguments.workers}: at least 1")
    from fusionjax.config.study import load_study, place_of
    from fusionjax.studies.folder import StudyFolder
    from fusionjax.studies.plan import make_plan
    from fusionjax.studies.runner import check, orphans

    home = place_of(arguments.study).home
    folder = StudyFolder(home)
    study, _ = load_study(arguments.study)
    chosen = None
    if study.search is not None:
        from fusionjax.studies.trace import load_chosen

        chosen = load_chosen(home)
    plan = make_plan(arguments.study, arguments.places, chosen)
    others = [] if before_search and study.search is not None else check(plan, folder)
    if others:
        _say(orphans(others))
    return plan, folder


# Imports stand inside the commands: `fusionjax --help` must not wait for JAX.
def _plan(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from fusionjax.studies.estimate import estimate, readable

    plan, folder = _open(arguments)
    missing = [cell for cell in plan.distinct() if not folder.has(cell.digest)]
    table = Table(header_style="bold", pad_edge=False)
    table.add_column("row", overflow="fold")
    table.add_column("is the base but for", overflow="fold")
    table.add_column("done", justify="right", no_wrap=True)
    usual = {axis: next(iter(values)) for axis, values in plan.axes.items()}
    for row, values in plan.values.items():
        cells = [plan.cell(row, seed) for seed in plan.study.seeds]
        done = sum(folder.has(cell.digest) for cell in cells)
        changes = [f"{axis}: {value}" for axis, value in values.items() if value != usual[axis]]
        changes += [f"{key}: {value}" for key, value in plan.study.rows.get(row, {}).get("set", {}).items()]
        mark = f"{row} (reference)" if row == plan.study.reference else row
        table.add_row(mark, ", ".join(changes), f"{done} of {len(cells)}")
    Console().print(table)
    print(f"seeds: {', '.join(map(str, plan.study.seeds))}")
    same = len(plan.cells) - len(plan.distinct())
    print(
        f"{len(plan.cells)} cells, {len(plan.distinct())} of them different{f' ({same} are equal to another)' if same else ''}"
    )
    print(f"{len(missing)} to do")
    if plan.study.search is not None:
        _print_search(arguments, plan, folder)
    found = estimate(plan, missing, folder.records(), may_probe=not arguments.no_probe)
    if found is None:
        print("cost: nothing is finished yet to estimate it from")
    elif missing:
        gib = found.peak_memory_bytes / 2**30
        print(
            f"about {readable(found.seconds)} with one worker, {readable(found.seconds / 2)} with two that do not slow each "
            f"other; {gib:.1f} GiB of memory for each worker (from {found.basis})"
        )
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from fusionjax.studies.claims import Claims, open_storage
    from fusionjax.studies.live import Watch
    from fusionjax.studies.runner import Runner

    plan, folder = _open(arguments, before_search=True)
    if plan.study.search is not None:
        if not _search_rows(arguments, plan, folder):
            return 0
        plan, folder = _open(arguments)
    storage = open_storage(arguments.storage or plan.study.storage, folder.runs)
    with Watch() as watch:
        runner = Runner(plan, folder, Claims(folder.name, storage), arguments.workers, watch.say, arguments.retry_failed)
        failed = runner.run(watch)
    arguments.stopped = runner.stop.is_set()  # so that the next data set is not begun
    missing = sum(not folder.has(cell.digest) for cell in plan.distinct())
    print(f"{len(plan.distinct()) - missing} of {len(plan.distinct())} cells done, {failed} failed")
    if not missing:
        print(f"next: fusionjax study report {arguments.study}")
    return 1 if failed else 0


def _search(arguments: argparse.Namespace) -> int:
    plan, folder = _open(arguments, before_search=True)
    if plan.study.search is None:
        raise UserError(f"{folder.path}: the study has no search: section")
    if _search_rows(arguments, plan, folder):
        print(f"next: fusionjax study run {arguments.study}")
    return 0


def _unsearched(arguments: argparse.Namespace) -> dict[str, Any]:
    """Row → its config before the search."""
    from fusionjax.studies.plan import make_plan

    plan = make_plan(arguments.study, arguments.places)
    return {row: plan.cell(row, plan.study.seeds[0]).config for row in plan.rows}


def _search_rows(arguments: argparse.Namespace, plan: Any, folder: Any) -> bool:
    """Does what is missing of the search; returns false if it was stopped, its state saved."""
    from fusionjax import runs
    from fusionjax.errors import Interrupted
    from fusionjax.studies.claims import open_storage
    from fusionjax.studies.search import search_rows

    runs.keep_compiled_programs()
    storage = open_storage(arguments.storage or plan.study.storage, folder.runs)
    try:
        with _helpers(arguments, arguments.workers - 1):
            search_rows(folder.name, _unsearched(arguments), plan.study.search, storage, folder.path, _say)
    except Interrupted as stop:
        _say(str(stop))
        arguments.stopped = True
        return False
    return True


@contextlib.contextmanager
def _helpers(arguments: argparse.Namespace, number: int) -> Iterator[None]:
    """Other processes that take trials of the same search, for as long as the block runs."""
    command = [sys.executable, "-m", "fusionjax.cli", "study", "search", str(arguments.study), *arguments.places]
    command += ["--storage", arguments.storage] if arguments.storage else []
    processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for _ in range(number)]
    try:
        yield
    finally:  # nothing is left to do, or this process is to stop: they save their state
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _print_search(arguments: argparse.Namespace, plan: Any, folder: Any) -> None:
    from fusionjax.studies.claims import open_storage
    from fusionjax.studies.search import progress

    storage = open_storage(plan.study.storage, folder.runs)
    found = progress(folder.name, _unsearched(arguments), plan.study.search, storage, folder.path)
    left = {row: each.budget - each.done for row, each in found.items() if each.done < each.budget}
    if left:
        print("search first: " + ", ".join(f"{row}: {count} of {found[row].budget} trials" for row, count in left.items()))
    else:
        print("the search is complete: search/chosen.yaml")


def _status(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from fusionjax.studies.claims import Claims, open_storage
    from fusionjax.studies.live import status
    from fusionjax.studies.runner import Runner

    plan, folder = _open(arguments)
    claims = Claims(folder.name, open_storage(plan.study.storage, folder.runs))
    Console().print(status(Runner(plan, folder, claims, 1, _say)))
    for failure in folder.failures():
        print(f"failed: {failure['row']}, seed {failure['seed']}: {failure['error']}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from fusionjax.files import write_whole
    from fusionjax.studies.analysis import analyse, to_json
    from fusionjax.studies.collect import collect
    from fusionjax.studies.report import write_report
    from fusionjax.studies.tables import write_tables
    from fusionjax.studies.verify import ANALYSIS

    plan, folder = _open(arguments)
    collected = collect(plan, folder)
    if collected.missing:
        _say(f"{len(collected.missing)} of {len(plan.cells)} cells are missing: the report says so")
    analysis = analyse(collected)
    write_whole(folder.path / ANALYSIS, to_json(analysis))
    write_tables(collected, analysis, folder.path)
    write_report(collected, analysis, folder.path)
    print(folder.path / "report.html")
    return 0


def _report_joined(home: Path, folders: list[Path]) -> int:
    from fusionjax.studies.data_sets import write_joined

    write_joined(home, folders, home)
    print(home / "report.html")
    return 0


def _verify_joined(home: Path, folders: list[Path]) -> int:
    import tempfile

    from fusionjax.studies.data_sets import write_joined
    from fusionjax.studies.verify import different

    with tempfile.TemporaryDirectory() as scratch:
        problems = different(home, Path(scratch), write_joined(home, folders, Path(scratch)))
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"the table that joins the data sets: {'follows from theirs' if not problems else f'{len(problems)} differences'}")
    return 1 if problems else 0


def _verify(arguments: argparse.Namespace) -> int:
    from fusionjax.studies.collect import collect
    from fusionjax.studies.verify import verify

    plan, folder = _open(arguments)
    collected = collect(plan, folder)
    problems = verify(plan, collected)
    if plan.study.search is not None:
        from fusionjax.studies.trace import verify_search

        problems += verify_search(folder.path, plan.study.search, _unsearched(arguments))
    for problem in problems:
        print(problem, file=sys.stderr)
    done = len(plan.cells) - len(collected.missing)
    print(f"{done} cells: {'their scores give the tables' if not problems else f'{len(problems)} differences'}")
    return 1 if problems else 0


def _reproduce(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from fusionjax.studies.verify import reproduce

    plan, folder = _open(arguments)
    found = reproduce(plan, folder, arguments.row, arguments.seed, _say)
    table = Table(header_style="bold", pad_edge=False)
    for name in ("task", "metric", "stored", "again", "difference"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for (task, metric), (stored, again) in found.metrics.items():
        if metric in plan.study.tasks.get(task, ()):
            table.add_row(task, metric, f"{stored:.6f}", f"{again:.6f}", f"{again - stored:+.6f}")
    Console().print(table)
    for task, share in found.equal_ranks.items():
        print(f"{task}: {100 * share:.2f} % of the ranks are equal")
    for line in found.different:
        print(f"differs: {line}")
    largest = found.largest()
    print(f"largest difference of a metric: {largest:.2g} (tolerance {arguments.tolerance:g})")
    return 0 if largest <= arguments.tolerance else 1


def _init(arguments: argparse.Namespace) -> int:
    from fusionjax.studies.template import write_template

    print(f"next: fusionjax study plan {write_template(arguments.folder, arguments.base)}")
    return 0


def _schema(_: argparse.Namespace) -> int:
    import json

    from fusionjax.config.study import study_schema

    print(json.dumps(study_schema(), indent=2, ensure_ascii=False))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
