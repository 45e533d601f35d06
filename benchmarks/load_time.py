"""Seconds from a trained run's folder to its answers: `load`, the first query, the next ones; imports are timed apart.

    python benchmarks/load_time.py RUN [QUERY …] [--user ID] [--no-compiled]

Prints one JSON document. Run it in a process of its own; whether files are in the page cache, and programs in JAX's, is said by
how often it ran before (the first start compiles, later ones read compiled programs back).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, what it returned)."""
    started = time.perf_counter()
    found = call()
    return round(time.perf_counter() - started, 4), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("queries", nargs="*", default=["red cotton shirt", "steel water bottle", "lamp", "warm socks"])
    parser.add_argument("--user", help="id of a user to recommend to as well")
    parser.add_argument("--no-compiled", action="store_true", help="do not read programs compiled by earlier processes")
    arguments = parser.parse_args()

    def imports() -> Any:
        import jax

        import fusionjax
        from fusionjax import runs

        jax.local_devices()
        if not arguments.no_compiled:
            runs.keep_compiled_programs()
        return fusionjax.load

    found: dict[str, Any] = {}
    found["imports"], load = timed(imports)
    busy = time.process_time()
    found["load"], model = timed(lambda: load(arguments.run))
    first, *others = arguments.queries
    found["queries"] = [timed(lambda: model.search(first))[0]]
    found["load_and_first_query"] = round(found["load"] + found["queries"][0], 4)
    found["of_which_processor"] = round(time.process_time() - busy, 4)  # of all threads: what a busy machine does not change
    found["queries"] += [timed(lambda query=query: model.search(query))[0] for query in others]
    if arguments.user:
        found["recommend"] = [timed(lambda: model.recommend(arguments.user))[0] for _ in range(3)]
    found["similar"] = [timed(lambda: model.similar(model.product_ids[7]))[0] for _ in range(2)]
    found["products"] = len(model.product_ids)
    found["index_bytes"] = sum(file.stat().st_size for file in (model.run_dir / "index").iterdir())
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
