"""Our filtered ranks beside those of PyKEEN's evaluator, live, of the same vectors: part of `make parity`.

    python -m benchmarks.kge.ranks_parity --peer PEER/python [--folder FOLDER] [--dim 16] [--steps 300]

Trains each scorer a little, on a graph it makes or on train.txt, valid.txt and test.txt of a folder, and ranks both sides of
every test triple: with the vectors as trained, rounded, rounded with every fourth entity a copy of another, and all 0. Prints a
table and writes it to ranks.md. Exit code 1 if a rank differs that must not. A peer without PyKEEN is skipped.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.kge import graph as graphs
from fusionjax.evaluation.link_prediction import KnownTrue, RankingPlan
from fusionjax.evaluation.triples import triple_scores
from fusionjax.models.entities import EntityModel
from fusionjax.models.scorers import SCORERS, Init, Sizes, make_scorer

HERE = Path(__file__).parent
SIDES = ("tail", "head")
TYPES = ("optimistic", "realistic", "pessimistic")
NAMES = tuple(SCORERS)
NEAR = 1e-4
"""Scores that differ by less, relative to the largest of their row, may rank either way in float32."""
RECIPROCAL = {"transe": (False, True), "complex": (False, True), "conve": (True,)}
"""Scorers that are tried with inverse relations, by which heads are asked for; the others without."""
INEXACT = ("rotate", "rotate_l2", "conve")
"""They take roots and turn by angles: no rounding of the vectors makes them exact."""
EXPLAINED = """\
Filtered ranks of FusionJAX beside those of PyKEEN {version}'s evaluator, optimistic, realistic and pessimistic, of both sides
of {triples:,} test triples of {graph} ({entities:,} entities); `make parity` makes this table. Vectors as trained: each adds
float32 numbers in its own order, so entities of all but equal scores may change places; "unexplained" are ranks beyond what
float64 scores allow within {near:g} of the row's largest. Rounded: multiples of 1/8, of which every sum is exact, so that all
ranks must be equal (RotatE and ConvE take roots, and never are). Copies: every fourth entity has the vector of another.
Tied: optimistic and pessimistic rank differ. SimplE and RotatE are scored by their papers' formulas inside PyKEEN's evaluator,
ConvE with layer normalisation as ours, for PyKEEN's own are others (peer.py says how). The command fails if a rank differs that
must not.
"""


class Case(NamedTuple):
    """Vectors of one scorer."""

    model: EntityModel
    given: dict[str, np.ndarray]
    """`entities`, `relations`, and `shared/NAME` of what belongs to no entity and no relation."""
    exact: bool


def trained(model: EntityModel, graph: graphs.Graph, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A few hundred steps of softmax against all entities, both sides: good enough that ranks are spread like a model's."""
    tails, heads = triple_scores(model)
    params = model.init(jax.random.key(seed))
    rule = optax.adam(0.02)

    def loss(params: Any, rows: jax.Array) -> jax.Array:
        head, relation, tail = rows.T
        given = {"shared": {}} | params
        forth = tails(given, head, relation, params["entities"])
        back = heads(given, tail, relation, params["entities"])
        each = optax.softmax_cross_entropy_with_integer_labels
        return each(forth, tail).mean() + each(back, head).mean()

    @jax.jit
    def step(params: Any, state: Any, rows: jax.Array) -> Any:
        updates, state = rule.update(jax.grad(loss)(params, rows), state, params)
        return optax.apply_updates(params, updates), state

    generator, state = np.random.Generator(np.random.Philox(seed)), rule.init(params)
    for _ in range(steps):
        rows = generator.integers(len(graph.train), size=256)
        params, state = step(params, state, jnp.asarray(graph.train[rows], jnp.int32))
    tables = {name: np.asarray(params[name]) for name in ("entities", "relations")}
    return tables | {f"shared/{name}": np.asarray(values) for name, values in params.get("shared", {}).items()}


def as_scored(given: dict[str, np.ndarray], dtype: Any) -> dict[str, Any]:
    """What the functions of `triple_scores` read."""
    arrays = {name: jnp.asarray(values, dtype) for name, values in given.items()}
    shared = {name.removeprefix("shared/"): arrays.pop(name) for name in given if name.startswith("shared/")}
    return {**arrays, "shared": shared}


def rounded(name: str, vectors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The vectors as small multiples of 1/8, about 1/2 in size, so that float32 adds and multiplies them without error.

    What a scorer divides by lengths becomes signs, whose length is a power of two: relations of QuatE, entities of PairRE.
    """
    found = {}
    for part, values in vectors.items():
        if name in ("rotate", "rotate_l2") and part == "relations":
            found[part] = values
        elif (name, part) in (("quate", "relations"), ("pairre", "entities")):
            found[part] = np.where(values < 0, -0.5, 0.5).astype(np.float32)
        else:
            # Distances want one scale for both tables.
            of = np.concatenate([each.ravel() for each in vectors.values()]) if name == "transe" else values
            scale = 2.0 ** np.round(np.log2(0.5 / max(of.std(), 1e-6)))
            found[part] = (np.clip(np.round(values * scale * 8), -16, 16) / 8).astype(np.float32)
    return found


def copied(vectors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every fourth entity has the vector of the one after it."""
    entities = vectors["entities"].copy()
    entities[:-1:4] = entities[1::4][: len(entities[:-1:4])]
    return vectors | {"entities": entities}


def cases_of(name: str, graph: graphs.Graph, dim: int, steps: int) -> dict[str, Case]:
    """Cases by name, as peer.py knows them: `SCORER:CASE`."""
    found: dict[str, Case] = {}
    forms = RECIPROCAL.get(name, (False,))
    for reciprocal in forms:
        n_relations = graph.n_relations * (2 if reciprocal else 1)
        scorer = make_scorer(name, Sizes(dim=dim, relation_dim=4))  # of TuckER: few enough that float32 adds without error
        model = EntityModel(scorer, graph.n_entities, n_relations, reciprocal, Init("normal", 0.3))
        vectors = trained(model, graph, steps)
        small = rounded(name, vectors)
        kind = "reciprocal, " if reciprocal else ""
        exact = name not in INEXACT
        found |= {
            f"{name}:{kind}trained": Case(model, vectors, exact=False),
            f"{name}:{kind}rounded": Case(model, small, exact),
        }
        if reciprocal == forms[0]:
            found[f"{name}:{kind}rounded, copies"] = Case(model, copied(small), exact)
            if name in ("transe", "distmult"):
                zero = {part: np.zeros_like(values) for part, values in vectors.items()}
                found[f"{name}:all 0"] = Case(model, zero, exact=True)
    return found


def our_ranks(case: Case, plan: RankingPlan) -> np.ndarray:
    """float64 [n, 2, 3]: triple, side, type."""
    tails, heads = triple_scores(case.model)
    given = as_scored(case.given, jnp.float32)
    counts = plan.ranks(tails, heads, given, given["entities"])
    return np.stack([getattr(counts, kind) for kind in TYPES], axis=-1)


def allowed(case: Case, triples: np.ndarray, known: KnownTrue) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest rank that float64 scores allow if near ones may change places, int [n, 2] each."""
    scores = _scores64(case.model)
    head, relation, tail = triples.T
    found = []
    with jax.enable_x64(True):
        given = as_scored(case.given, jnp.float64)
        for side, source, target, others in (
            (0, head, tail, known.tails(head, relation)),
            (1, tail, head, known.heads(relation, tail)),
        ):
            table = np.asarray(scores[side](given, source, relation, given["entities"]))
            own = table[np.arange(len(table)), target]
            table = table.copy()
            table[others.rows(), others.values] = -np.inf
            near = NEAR * np.abs(np.where(np.isfinite(table), table, 0)).max(1) + 1e-12
            found.append((1 + (table > (own + near)[:, None]).sum(1), 1 + (table >= (own - near)[:, None]).sum(1)))
    lowest, highest = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    return lowest, highest


@functools.lru_cache(maxsize=64)
def _scores64(model: EntityModel) -> tuple[Any, Any]:
    tails, heads = triple_scores(model)
    return jax.jit(tails), jax.jit(heads)


def compare(
    cases: dict[str, Case], theirs: dict[str, np.ndarray], graph: graphs.Graph
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of the table, and what is wrong."""
    known = KnownTrue.of(graph.train, graph.valid, graph.test)
    plan = RankingPlan.of(graph.test, known, graph.n_entities)
    rows, wrong = [], []
    for name, case in cases.items():
        ours = our_ranks(case, plan)
        peer = np.stack([np.stack([theirs[f"{name}/{side}/{kind}"] for side in SIDES], axis=1) for kind in TYPES], axis=-1)
        differs = (ours != peer).any(-1)
        lowest, highest = allowed(case, graph.test, known)
        beyond = (ours[..., 0] < lowest) | (ours[..., 2] > highest) | (peer[..., 0] < lowest) | (peer[..., 2] > highest)
        tied = ours[..., 0] != ours[..., 2]
        mrr = [(1 / each[..., 1]).mean() for each in (ours, peer)]
        scorer, _, kind = name.partition(":")
        must = "exact" if case.exact else "near"
        cells = f"{differs.sum()} of {differs.size}", f"{beyond.sum()}", f"{tied.sum()}", f"{mrr[0]:.6f}", f"{mrr[1]:.6f}"
        rows.append((scorer, kind, *cells, must))
        if beyond.any() or (case.exact and differs.any()):
            at = tuple(np.argwhere(beyond | differs)[0])
            wrong.append(f"{name}: triple {graph.test[at[0]]}, {SIDES[at[1]]}: ours {ours[at]}, PyKEEN's {peer[at]}")
    return rows, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python with PyKEEN")
    parser.add_argument("--folder", type=Path, help="of train.txt, valid.txt and test.txt; none: a graph made here")
    parser.add_argument("--dim", type=int, default=16, help="a power of four, for PairRE's lengths")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--scorers", nargs="+", choices=NAMES, default=NAMES)
    arguments = parser.parse_args()
    asked = "from importlib.metadata import version; print(version('pykeen'))"
    target = subprocess.run([arguments.peer, "-c", asked], capture_output=True, text=True)
    if target.returncode:
        print(f"ranks beside PyKEEN's: skipped, {arguments.peer} has no pykeen (`make peer` installs it)")
        return 0
    graph = graphs.read(arguments.folder) if arguments.folder else graphs.grid(18, 8, 5000)
    cases: dict[str, Case] = {}
    for name in arguments.scorers:
        cases |= cases_of(name, graph, arguments.dim, arguments.steps)
    with tempfile.TemporaryDirectory() as scratch:
        file, vectors, out = (Path(scratch, name) for name in ("graph.npz", "vectors.npz", "ranks.npz"))
        graphs.save(file, graph)
        arrays: dict[str, Any] = {
            f"{name}/{part}": values for name, case in cases.items() for part, values in case.given.items()
        }
        np.savez(vectors, **arrays)
        command = [arguments.peer, "-m", "benchmarks.kge.peer", "ranks", file, vectors, out]
        subprocess.run([*map(str, command)], check=True, cwd=HERE.parents[1])
        with np.load(out) as found:
            rows, wrong = compare(cases, {key: found[key] for key in found.files}, graph)
    head = ("scorer", "vectors", "differ", "unexplained", "tied", "MRR, ours", "MRR, PyKEEN", "must be")
    table = "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)) + "\n"
    print(table)
    for line in wrong:
        print(line, file=sys.stderr)
    explained = EXPLAINED.format(
        version=target.stdout.strip(),
        triples=len(graph.test),
        graph=arguments.folder.name if arguments.folder else "a graph made for it",
        entities=graph.n_entities,
        near=NEAR,
    )
    (HERE / "ranks.md").write_text(explained + "\n" + table, encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
