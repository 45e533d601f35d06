"""The `fusionjax` command. Exit codes: 0; 2 for the user's mistake (one clear line, no traceback); 1 otherwise.

Here are the parser and what holds for all commands; each command calls `fusionjax.api`, imported when it runs, for
`fusionjax --help` must not wait for JAX.
"""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from fusionjax import __version__
from fusionjax.cli import answers, data, training
from fusionjax.errors import NonFiniteLoss, UserError
from fusionjax.studies.commands import add_parser as add_study_parser

__all__ = ["build_parser", "main"]


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
        if isinstance(error, NonFiniteLoss):
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
    training.add_parsers(commands)
    answers.add_parsers(commands)
    data.add_parsers(commands)
    add_study_parser(commands)
    return parser
