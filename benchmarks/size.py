"""Size of the package in logical lines: NEWLINE tokens of Python's own tokeniser, without docstrings.

    python -m benchmarks.size [FOLDER …]

Wrapped lines, comments, blank lines and documentation cost nothing by this measure; statements do.
"""

import argparse
import ast
import tokenize
from collections import Counter
from pathlib import Path

_HAVE_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def logical_lines(file: Path) -> int:
    """NEWLINE tokens of a Python file, less one for each docstring of a module, class or function."""
    with file.open("rb") as source:
        lines = sum(token.type == tokenize.NEWLINE for token in tokenize.tokenize(source.readline))
    documented = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, _HAVE_DOCSTRINGS)]
    return lines - sum(ast.get_docstring(node, clean=False) is not None for node in documented)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("fusionjax")])
    rooms: Counter[str] = Counter()
    for folder in parser.parse_args().folders:
        for file in sorted(folder.rglob("*.py")):
            place = file.relative_to(folder)
            rooms[f"{folder}/{place.parts[0] if len(place.parts) > 1 else ''}"] += logical_lines(file)
    for room, lines in rooms.most_common():
        print(f"{lines:>7,}  {room}")
    print(f"{sum(rooms.values()):>7,}  in all")


if __name__ == "__main__":
    main()
