"""What the commands share."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_EPILOG = "Overrides are KEY=VALUE with dotted keys, checked like the file: train.steps=200 data.name=amazon_beauty"


def command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    *,
    config: bool = False,
    trained: bool = False,
) -> argparse.ArgumentParser:
    """Adds a command.

    Args:
      run: does it; returns the exit code.
      config: it takes CONFIG and overrides.
      trained: it takes a run folder.
    """
    parser = commands.add_parser(name, help=text, description=text, epilog=_EPILOG if config else None)
    if config:
        parser.add_argument("config", metavar="CONFIG", help="a file, or the name of a config that comes along: quickstart")
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    if trained:
        parser.add_argument("run_dir", metavar="RUN", type=Path)
    parser.set_defaults(run=run)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def print_json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))


def say(line: str) -> None:
    """Progress goes to standard error: standard output holds results."""
    print(line, file=sys.stderr, flush=True)


def keep_compiled_programs() -> None:
    """See `fusionjax.runs.keep_compiled_programs`."""
    from fusionjax.runs import keep_compiled_programs as keep

    keep()
