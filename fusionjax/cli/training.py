"""`train`, `evaluate`, `export`, `encode`."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fusionjax.cli.common import add_json, command, keep_compiled_programs, print_json, say
from fusionjax.errors import Interrupted


def add_parsers(commands: Any) -> None:
    train = command(commands, "train", _train, "train a config, measure it, write its run folder", config=True)
    train.add_argument(
        "--run-dir", type=Path, help="the run folder (default: runs/CONFIG-DIGEST); the same command resumes there"
    )
    evaluate = command(commands, "evaluate", _evaluate, "measure a run's best checkpoint again", trained=True)
    evaluate.add_argument("--task", action="append", help="only this task, and write nothing; may be repeated")
    add_json(evaluate)
    export = command(
        commands, "export", _export, "a run's text encoder as a checkpoint folder for other libraries", trained=True
    )
    export.add_argument("folder", metavar="FOLDER", type=Path)
    _add_encode(commands)


def _add_encode(commands: Any) -> None:
    encode = command(commands, "encode", _encode, "vectors of a file of texts, one a line, by a pretrained encoder")
    encode.add_argument("texts", metavar="TEXTS", type=Path, help="a text file, UTF-8, one text a line")
    encode.add_argument("--checkpoint", required=True, help="folder or hub id of a BERT-family checkpoint")
    encode.add_argument("-o", "--out", required=True, type=Path, help="where to write float32 [lines, width], a .npy file")
    encode.add_argument("--prompt", help="name of one of the checkpoint's prompts, such as query ('': none)")
    encode.add_argument("--on-invalid", choices=("error", "replace"), default="error", help="bytes that are not UTF-8 (error)")
    encode.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the layers (float32)")


def _train(arguments: argparse.Namespace) -> int:
    from fusionjax import api

    api.load_config(arguments.config, arguments.overrides)  # mistakes are said before JAX is waited for
    keep_compiled_programs()
    from fusionjax.reporting.tables import print_results, print_seeds, print_settings

    try:
        run = api.train(arguments.config, overrides=arguments.overrides, run_dir=arguments.run_dir, say=say)
    except Interrupted as stop:
        print(f"fusionjax: {stop}", file=sys.stderr)
        return 0
    results = run.results
    print_results(results)
    if "settings" in results:
        print_settings(results)
    elif "seeds" in results:
        print_seeds(results)
    else:
        print(f"report: {run.report}")
    print(run.run_dir)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from fusionjax import api

    keep_compiled_programs()
    from fusionjax.reporting.tables import print_results

    run = api.Run(arguments.run_dir)
    file = run.run_dir / "results.json"
    before = run.results if file.exists() else None
    results = api.evaluate(run, arguments.task, say)
    if arguments.json:
        print_json(results)
        return 0
    print_results(results)
    if arguments.task is None:
        print(f"{'equal to' if results == before else 'written to'} {file}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from fusionjax import api

    keep_compiled_programs()
    checkpoint = api.export(arguments.run_dir, arguments.folder)
    what = "vectors of products and queries" if checkpoint.sentence.normalise else "text vectors"
    print(f"{arguments.folder}: {checkpoint.raw['model_type']} encoder; its vectors are the run's {what}")
    return 0


def _encode(arguments: argparse.Namespace) -> int:
    from fusionjax import api

    with _texts_bar() as (started, progress):
        count, width = api.encode_texts(
            arguments.texts,
            arguments.checkpoint,
            arguments.out,
            prompt=arguments.prompt,
            on_invalid=arguments.on_invalid,
            precision=arguments.precision,
            started=started,
            progress=progress,
        )
    print(f"{arguments.out}: {count:,} vectors of {width}")
    return 0


@contextlib.contextmanager
def _texts_bar() -> Iterator[tuple[Callable[[int, int], None], Callable[[int], None]]]:
    """(told total and done at the start, told how many more are done): a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn("encoding"), *columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("encoding", total=None)

        def started(total: int, done: int) -> None:
            bar.update(task, total=total, completed=done)
            if done:
                say(f"going on behind line {done:,} of {total:,}")

        yield started, lambda more: bar.update(task, advance=more)
