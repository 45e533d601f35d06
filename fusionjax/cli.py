"""The `fusionjax` command. Exit codes: 0; 2 for the user's mistake (one clear line, no traceback); 1 otherwise."""

import argparse
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fusionjax import __version__
from fusionjax.errors import UserError
from fusionjax.studies.commands import add_parser as add_study_parser

_EPILOG = "Overrides are KEY=VALUE with dotted keys, checked like the file: train.steps=200 data.name=amazon_beauty"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = _parse(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return arguments.run(arguments) or 0
    except UserError as error:
        print(f"fusionjax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fusionjax: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `fusionjax … | head`
        sys.stderr.close()
        return 1
    except Exception as error:  # the top of the program: say what broke, keep the traceback for the report of it
        if type(error).__name__ == "NonFiniteLoss":
            print(f"fusionjax: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        return 1


def _terminated(*_: object) -> None:
    """SIGTERM outside the training loop, where nothing is unsaved (inside it the loop has its own handler).

    Ends the process here: an exception is lost where the signal meets a finaliser or a callback, and the command would go on.
    """
    os.write(2, b"fusionjax: stopped by SIGTERM; the same command goes on from the last checkpoint\n")
    os._exit(0)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments in any order: argparse alone takes no KEY=VALUE that stands behind an option."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    name = next((name for name in ("overrides", "places") if hasattr(arguments, name)), None)
    if rest and (name is None or not all("=" in each and not each.startswith("-") for each in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if name is not None:
        setattr(arguments, name, [*getattr(arguments, name), *rest])
    return arguments


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fusionjax", description="Joint text, product-graph and behaviour models of a shop.")
    parser.add_argument("--version", action="version", version=f"fusionjax {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "train a config, measure it, write its run folder", config=True)
    train.add_argument(
        "--run-dir", type=Path, help="the run folder (default: runs/CONFIG-DIGEST); the same command resumes there"
    )

    evaluate = _command(commands, "evaluate", _evaluate, "measure a run's best checkpoint again")
    evaluate.add_argument("run_dir", metavar="RUN", type=Path)

    search = _command(commands, "search", _search, "products for a query")
    search.add_argument("run_dir", metavar="RUN", type=Path)
    search.add_argument("query")
    search.add_argument("-k", type=int, default=10, help="how many (10)")
    search.add_argument("--user", help="id of a user whose taste counts too")

    recommend = _command(commands, "recommend", _recommend, "next products for a user")
    recommend.add_argument("run_dir", metavar="RUN", type=Path)
    recommend.add_argument("--user", required=True, help="id of the user")
    recommend.add_argument("-k", type=int, default=10, help="how many (10)")

    export = _command(commands, "export", _export, "a run's text encoder as a checkpoint folder for other libraries")
    export.add_argument("run_dir", metavar="RUN", type=Path)
    export.add_argument("folder", metavar="FOLDER", type=Path)

    encode = _command(commands, "encode", _encode, "vectors of a file of texts, one a line, by a pretrained encoder")
    encode.add_argument("texts", metavar="TEXTS", type=Path, help="a text file, UTF-8, one text a line")
    encode.add_argument("--checkpoint", required=True, help="folder or hub id of a BERT-family checkpoint")
    encode.add_argument("-o", "--out", required=True, type=Path, help="where to write float32 [lines, width], a .npy file")
    encode.add_argument("--prompt", help="name of one of the checkpoint's prompts, such as query ('': none)")
    encode.add_argument("--on-invalid", choices=("error", "replace"), default="error", help="bytes that are not UTF-8 (error)")
    encode.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the layers (float32)")

    config = commands.add_parser("config", help="show a resolved config or the schema, upgrade a file").add_subparsers(
        required=True, metavar="WHAT"
    )
    _command(config, "show", _config_show, "the resolved config", config=True)
    _command(config, "schema", _config_schema, "JSON Schema for editors")
    upgrade = _command(config, "upgrade", _config_upgrade, "print a config file in today's keys")
    upgrade.add_argument("file", metavar="FILE", type=Path)

    data = commands.add_parser("data", help="list, describe or prepare data sets").add_subparsers(required=True, metavar="WHAT")
    _command(data, "list", _data_list, "the data sets")
    for name, run, text in (
        ("describe", _data_describe, "counts, long tail, samples"),
        ("prepare", _data_prepare, "build a data set into the cache"),
    ):
        command = _command(data, name, run, text)
        command.add_argument("name", metavar="NAME", help="a data set (fusionjax data list) or a config file (*.yaml)")
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
        if name == "describe":
            command.add_argument(
                "--plot", type=Path, default=None, help="where to draw the long tail (default: NAME-long-tail.png)"
            )
    add_study_parser(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str, config: bool = False) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, epilog=_EPILOG if config else None)
    if config:
        command.add_argument("config", metavar="CONFIG", type=Path)
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    command.set_defaults(run=run)
    return command


# Imports stand inside the commands: `fusionjax --help` must not wait for JAX.
def _train(arguments: argparse.Namespace) -> int:
    from fusionjax.config import load_run

    renamed: dict[str, str] = {}
    config = load_run(arguments.config, arguments.overrides, renamed=renamed, dotted=True)
    _say_renamed(arguments.config, renamed)
    from fusionjax import pipeline, runs

    runs.keep_compiled_programs()
    from fusionjax.errors import Interrupted
    from fusionjax.reporting.tables import print_results, print_seeds, print_settings
    from fusionjax.seeds import run_seeds
    from fusionjax.settings import run_settings

    run = run_settings if config.settings else run_seeds if config.seeds else pipeline.run
    try:
        home = run(config, arguments.run_dir, arguments.config.stem, say=_say)
    except Interrupted as stop:
        print(f"fusionjax: {stop}", file=sys.stderr)
        return 0
    print_results(home.results())
    if config.settings:
        print_settings(home.results())
    elif config.seeds:
        print_seeds(home.results())
    else:
        print(f"report: {home.path / 'report.html'}")
    print(home.path)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from fusionjax import pipeline, runs

    runs.keep_compiled_programs()
    from fusionjax.reporting.tables import print_results

    results, same = pipeline.evaluate(arguments.run_dir, say=_say)
    print_results(results)
    print(f"{'equal to' if same else 'written to'} {arguments.run_dir / 'results.json'}")
    return 0


def _search(arguments: argparse.Namespace) -> int:
    _show_hits(_load(arguments).search(arguments.query, arguments.k, arguments.user))
    return 0


def _recommend(arguments: argparse.Namespace) -> int:
    _show_hits(_load(arguments).recommend(arguments.user, arguments.k))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from fusionjax.export import export

    model = _load(arguments)
    checkpoint = export(model, arguments.folder)
    what = "text vectors" if model.layout.heads else "vectors of products and queries"
    print(f"{arguments.folder}: {checkpoint.raw['model_type']} encoder; its vectors are the run's {what}")
    return 0


def _encode(arguments: argparse.Namespace) -> int:
    from fusionjax.encode import Lines, encode_file
    from fusionjax.hub import fingerprint, locate
    from fusionjax.text_encoder import TextEncoder

    folder = locate(arguments.checkpoint)
    encoder = TextEncoder.from_pretrained(folder, arguments.precision)
    encoder.tokens([], arguments.prompt)  # an unknown prompt is said before a long file is read
    lines = Lines(arguments.texts, arguments.on_invalid)
    with _texts_bar() as (started, progress):
        count = encode_file(
            encoder, lines, arguments.out, fingerprint(folder), prompt=arguments.prompt, started=started, progress=progress
        )
    print(f"{arguments.out}: {count:,} vectors of {encoder.width}")
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
                _say(f"going on behind line {done:,} of {total:,}")

        yield started, lambda more: bar.update(task, advance=more)


def _config_show(arguments: argparse.Namespace) -> int:
    from fusionjax.config import dump_run, load_run

    renamed: dict[str, str] = {}
    print(dump_run(load_run(arguments.config, arguments.overrides, renamed=renamed)), end="")
    _say_renamed(arguments.config, renamed)
    return 0


def _say_renamed(file: Path, renamed: dict[str, str]) -> None:
    """One line about keys of an earlier version."""
    if renamed:
        shown = ", ".join(list(renamed)[:8]) + (f" and {len(renamed) - 8} more" if len(renamed) > 8 else "")
        _say(f"keys of an earlier version: {shown}; in today's keys: fusionjax config upgrade {file}")


def _config_upgrade(arguments: argparse.Namespace) -> int:
    from fusionjax.config.rewrite import rewrite

    print(rewrite(arguments.file), end="")
    return 0


def _config_schema(_: argparse.Namespace) -> int:
    from fusionjax.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0


def _data_list(_: argparse.Namespace) -> int:
    from fusionjax.data.prepare import list_sources

    sources = list_sources()
    width = max(len(name) for name, _ in sources)
    for name, text in sources:
        print(f"{name:<{width}}  {text}")
    return 0


def _data_describe(arguments: argparse.Namespace) -> int:
    from fusionjax.data.prepare import describe_prepared, plot_long_tail, prepare
    from fusionjax.reporting.tables import print_description

    config = _data_config(arguments)
    prepared = prepare(config, log=_say)
    print_description(describe_prepared(prepared, config))
    if prepared.shop.has("events"):
        plot = arguments.plot or Path(f"{config.name}-long-tail.png")
        plot_long_tail(prepared.shop, plot)
        print(f"long tail: {plot}")
    return 0


def _data_prepare(arguments: argparse.Namespace) -> int:
    from fusionjax.data.clean import render_effects
    from fusionjax.data.prepare import prepare

    prepared = prepare(_data_config(arguments), log=_say)
    print(render_effects(prepared.cleaning))
    print(", ".join(f"{count:,} {part}" for part, count in prepared.shop.counts().items()))
    print(f"fingerprint {prepared.fingerprint}")
    return 0


def _data_config(arguments: argparse.Namespace) -> Any:
    """The `data` section: of a config file, or of the defaults with another name."""
    from fusionjax.config import load_run

    if arguments.name.endswith((".yaml", ".yml")):
        return load_run(Path(arguments.name), arguments.overrides).data
    return load_run(None, [f"data.name={arguments.name}", *arguments.overrides]).data


def _load(arguments: argparse.Namespace) -> Any:
    from fusionjax import runs
    from fusionjax.serving.model import load

    runs.keep_compiled_programs()

    return load(arguments.run_dir)


def _show_hits(hits: Sequence[Any]) -> None:
    for place, hit in enumerate(hits, 1):
        print(f"{place:>3}  {hit.score:7.4f}  {hit.id}  {hit.title}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
