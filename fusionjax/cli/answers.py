"""What a trained run is asked: `search`, `rank`, `recommend`, `similar`, `predict`, `vectors`."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionjax.cli.common import add_json, command, keep_compiled_programs, print_json
from fusionjax.errors import UserError


def add_parsers(commands: Any) -> None:
    search = command(commands, "search", _search, "products for a query", trained=True)
    search.add_argument("query")
    search.add_argument("--user", help="id of a user whose taste counts too")
    rank = command(commands, "rank", _rank, "any titles, best first for a query", trained=True)
    rank.add_argument("query")
    rank.add_argument("titles", metavar="TITLE", nargs="+")
    recommend = command(commands, "recommend", _recommend, "next products for a user", trained=True)
    recommend.add_argument("--user", required=True, help="id of the user")
    similar = command(commands, "similar", _similar, "products like a product", trained=True)
    similar.add_argument("product", metavar="ID")
    predict = command(commands, "predict", _predict, "entities that complete a triple", trained=True)
    predict.add_argument("--head", metavar="ID", help="the tail is asked for")
    predict.add_argument("--tail", metavar="ID", help="the head is asked for; with --head: the triple's score")
    predict.add_argument("--relation", metavar="ID", required=True)
    predict.add_argument(
        "--known",
        choices=("drop", "mark", "keep"),
        default="drop",
        help="what is done with triples that stand in the data (drop)",
    )
    for parser in (search, rank, recommend, similar, predict):
        if parser is not rank:
            parser.add_argument("-k", type=int, default=10, help="how many (10)")
        add_json(parser)
    vectors = command(commands, "vectors", _vectors, "a run's vectors, with their ids, as a file", trained=True)
    vectors.add_argument("--out", required=True, type=Path, metavar="FILE", help="FILE.npy (ids in FILE.ids.txt) or .parquet")
    vectors.add_argument("--of", help="products, entities or relations (products if the run has any)")


def _load(arguments: argparse.Namespace) -> Any:
    from fusionjax import api

    keep_compiled_programs()
    return api.load(arguments.run_dir)


def _search(arguments: argparse.Namespace) -> int:
    found = _load(arguments).search(arguments.query, arguments.k, arguments.user)
    return _show(arguments, {"query": arguments.query, "user": arguments.user}, found)


def _recommend(arguments: argparse.Namespace) -> int:
    return _show(arguments, {"user": arguments.user}, _load(arguments).recommend(arguments.user, arguments.k))


def _similar(arguments: argparse.Namespace) -> int:
    return _show(arguments, {"product": arguments.product}, _load(arguments).similar(arguments.product, arguments.k))


def _rank(arguments: argparse.Namespace) -> int:
    ranked = _load(arguments).rank(arguments.query, arguments.titles)
    if arguments.json:
        print_json({"query": arguments.query, "titles": [{"title": title, "score": score} for title, score in ranked]})
        return 0
    for place, (title, score) in enumerate(ranked, 1):
        print(f"{place:>3}  {score:7.4f}  {title}")
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    head, relation, tail = arguments.head, arguments.relation, arguments.tail
    if head is None and tail is None:
        raise UserError("predict: expected --head or --tail (or both, for the score of a triple)")
    model = _load(arguments)
    asked = {"head": head, "relation": relation, "tail": tail}
    if head is not None and tail is not None:
        score = model.score(head, relation, tail)
        print_json({**asked, "score": score}) if arguments.json else print(f"{score:.4f}")
        return 0
    if tail is None:
        found = model.predict_tail(head, relation, arguments.k, arguments.known)
    else:
        found = model.predict_head(relation, tail, arguments.k, arguments.known)
    return _show(arguments, asked, found)


def _vectors(arguments: argparse.Namespace) -> int:
    from fusionjax import api

    rows, width = api.save_vectors(arguments.run_dir, arguments.out, arguments.of)
    print(f"{arguments.out}: {rows:,} vectors of {width}")
    return 0


def _show(arguments: argparse.Namespace, asked: dict[str, Any], found: Sequence[Any]) -> int:
    """Prints rows of an answer, best first."""
    if arguments.json:
        print_json({**asked, "results": [dataclasses.asdict(each) for each in found]})
        return 0
    for place, each in enumerate(found, 1):
        known = "  known" if getattr(each, "known", None) else ""
        shown = each.title if hasattr(each, "title") else each.name
        print(f"{place:>3}  {each.score:7.4f}  {each.id}  {shown}{known}")
    return 0
