"""PyKEEN on a graph of `graph.py`: speed and memory of training and of evaluation, and its ranks of given vectors.

    PEER/python -m benchmarks.kge.peer train GRAPH.npz --model transe [--dim 200] [--loop negatives] [--epochs 3]
    PEER/python -m benchmarks.kge.peer evaluate GRAPH.npz --model transe [--dim 200] [--batches 32,256,1024]
    PEER/python -m benchmarks.kge.peer ranks GRAPH.npz VECTORS.npz OUT.npz

PEER has PyKEEN and no FusionJAX (`make peer` makes it). `train` and `evaluate` print one line of JSON, with the peak resident
memory of the process (VmHWM): run each in a process of its own. Dimensions count real numbers: 200 are 100 complex ones.

`train`: steady triples a second, without the first epoch; Adam. Loops: `negatives` (sLCWA: `--negatives` random ones for each
triple, halves on each side), `all` (each triple against all heads and all tails), `pairs` (LCWA: each distinct pair of head and
relation against all tails, inverse triples too). No constraint and no regularisation unless `--defaults`, which keeps the
model's own (TransE: entities of unit length after each step; ComplEx: an L2 penalty).

`ranks`: VECTORS.npz holds `MODEL:CASE/entities`, `/relations` and `/shared/NAME` of any number of cases, in the layout of our
scorers; OUT.npz gets `MODEL:CASE/SIDE/TYPE`, a filtered rank for each test triple; SIDE head or tail, TYPE optimistic,
realistic or pessimistic.
"""
# pyright: reportMissingImports=false

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pykeen.evaluation import RankBasedEvaluator
from pykeen.losses import CrossEntropyLoss, Loss, MarginRankingLoss, NSSALoss, SoftplusLoss
from pykeen.models import ComplEx, DistMult, ERModel, Model, RotatE, TransE
from pykeen.nn import quaternion
from pykeen.nn.init import PretrainedInitializer
from pykeen.nn.modules import (
    ComplExInteraction,
    DistMultInteraction,
    Interaction,
    PairREInteraction,
    QuatEInteraction,
    RESCALInteraction,
    RotatEInteraction,
    SimplEInteraction,
    TransEInteraction,
    TuckERInteraction,
)
from pykeen.training import LCWATrainingLoop, SLCWATrainingLoop, SymmetricLCWATrainingLoop, TrainingCallback, TrainingLoop
from pykeen.triples import CoreTriplesFactory
from pykeen.utils import set_random_seed

from benchmarks.kge import graph as graphs

SIDES = ("head", "tail")
TYPES = ("optimistic", "realistic", "pessimistic")
LOSSES: dict[str, type[Loss]] = {"nssa": NSSALoss, "softplus": SoftplusLoss, "margin": MarginRankingLoss}


def factory(graph: graphs.Graph, *, inverse: bool = False) -> CoreTriplesFactory:
    """The training triples."""
    return CoreTriplesFactory(torch.tensor(graph.train), graph.n_entities, graph.n_relations, create_inverse_triples=inverse)


def build(name: str, dim: int, triples: CoreTriplesFactory, loss: Loss, *, defaults: bool, seed: int) -> Model:
    """A new model of `dim` real numbers an entity."""
    common: dict[str, Any] = {"triples_factory": triples, "loss": loss, "random_seed": seed}
    free = {} if defaults else {"regularizer": None}
    if name == "transe":
        constrainer = {} if defaults else {"entity_constrainer": None}
        return TransE(embedding_dim=dim, scoring_fct_norm=2, **constrainer, **common)
    if name == "distmult":
        constrainer = {} if defaults else {"entity_constrainer": None}
        return DistMult(embedding_dim=dim, **constrainer, **free, **common)
    if name == "complex":
        return ComplEx(embedding_dim=dim // 2, **free, **common)
    if name == "rotate":
        return RotatE(embedding_dim=dim // 2, **common)
    raise ValueError(f"no timings of '{name}'; valid: transe, distmult, complex, rotate")


class _SimplE(SimplEInteraction):
    """SimplE as in its paper; PyKEEN 1.11.1 compares head vectors with head vectors, so its score is symmetric."""

    def forward(self, h: Any, r: Any, t: Any) -> torch.Tensor:
        return 0.5 * (self.base(h[0], r[0], t[1]) + self.base(t[0], r[1], h[1]))


class _RotatE(RotatEInteraction):
    """RotatE as in its authors' code, the sum of moduli; PyKEEN 1.11.1 takes the L2 norm whatever `p` is."""

    def forward(self, h: Any, r: Any, t: Any) -> torch.Tensor:
        return -(h * r - t).abs().sum(-1)


class _ConvE(Interaction):
    """ConvE with layer normalisation, as `fusionjax/models/scorers/conve.py` says; an entity's last number is its bias."""

    entity_shape, relation_shape = ("e",), ("d",)

    def __init__(self, shared: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterDict(shared)

    def reset_parameters(self) -> None:
        """They are given, and stay."""

    def forward(self, h: Any, r: Any, t: Any) -> torch.Tensor:
        weights, d = self.weights, r.shape[-1]
        leading = torch.broadcast_shapes(h.shape[:-1], r.shape[:-1])
        height = next(rows for rows in range(1, d + 1) if d % rows == 0 and rows * rows >= d)
        parts = [part.expand(*leading, d).reshape(-1, 1, height, d // height) for part in (h[..., :-1], r)]
        image = _normal(torch.cat(parts, 2)) * weights["image_scale"] + weights["image_offset"]
        filters = weights["filters"].T.reshape(-1, 1, 3, 3)
        maps = _normal(torch.conv2d(image, filters), 3)
        maps = torch.relu(maps * weights["maps_scale"][:, None, None] + weights["maps_offset"][:, None, None])
        query = _normal(maps.permute(0, 2, 3, 1).reshape(len(maps), -1) @ weights["dense"], 1)
        query = torch.relu(query * weights["query_scale"] + weights["query_offset"]).reshape(*leading, d)
        return (query * t[..., :-1]).sum(-1) + t[..., -1]


def _normal(x: torch.Tensor, axes: int = 2) -> torch.Tensor:
    """Mean 0 and variance 1 over the last axes."""
    return torch.nn.functional.layer_norm(x, x.shape[-axes:])


class _Clock(TrainingCallback):
    """When epochs ended, by the clock and by the processor time of all threads."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []
        self.processor: list[float] = []

    def post_epoch(self, epoch: int, epoch_loss: float, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())
        self.processor.append(time.process_time())


def train(graph: graphs.Graph, arguments: argparse.Namespace) -> dict[str, Any]:
    set_random_seed(arguments.seed)
    triples = factory(graph, inverse=arguments.loop == "pairs")
    loss = LOSSES[arguments.loss]() if arguments.loop == "negatives" else CrossEntropyLoss()
    model = build(arguments.model, arguments.dim, triples, loss, defaults=arguments.defaults, seed=arguments.seed)
    common: dict[str, Any] = {
        "model": model,
        "triples_factory": triples,
        "optimizer": torch.optim.Adam(model.get_grad_params(), lr=1e-3),
    }
    loop: TrainingLoop
    if arguments.loop == "negatives":
        sampling = {"num_negs_per_pos": arguments.negatives}
        loop = SLCWATrainingLoop(negative_sampler="basic", negative_sampler_kwargs=sampling, **common)
    else:
        loop = {"all": SymmetricLCWATrainingLoop, "pairs": LCWATrainingLoop}[arguments.loop](**common)
    before, clock = peak_mib(), _Clock()
    losses = loop.train(
        triples,
        num_epochs=arguments.epochs + 1,
        batch_size=arguments.batch,
        num_workers=arguments.workers,
        use_tqdm=False,
        use_tqdm_batch=False,
        drop_last=False,
        pin_memory=False,
        callbacks=clock,
    )
    each = len(graph.train) / np.diff(clock.ends)
    return {
        "triples_per_second": float(np.median(each)),
        "epochs": [round(float(rate), 1) for rate in each],
        "triples_per_processor_second": float(np.median(len(graph.train) / np.diff(clock.processor))),
        "losses": losses,
        "mib_before": before,
    }


def evaluate(graph: graphs.Graph, arguments: argparse.Namespace) -> dict[str, Any]:
    set_random_seed(arguments.seed)
    model = build(arguments.model, arguments.dim, factory(graph), NSSALoss(), defaults=True, seed=arguments.seed)
    before = peak_mib()
    evaluator, rates, queries = RankBasedEvaluator(filtered=True), {}, 2 * len(graph.test)
    processor: dict[str, float] = {}
    for batch in arguments.batches:
        times = []
        for _ in range(arguments.repeats):
            started = time.perf_counter(), time.process_time()
            _evaluated(evaluator, model, graph, batch)
            times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
        name = f"batch {batch or 'automatic'}"
        rates[name], processor[name] = (queries / min(each) for each in zip(*times, strict=True))
    return {
        "queries_per_second": max(rates.values()),
        "each": rates,
        "each_per_processor_second": processor,
        "mib_before": before,
    }


def ranks(graph: graphs.Graph, vectors: Path, out: Path) -> None:
    found: dict[str, Any] = {}
    with np.load(vectors) as arrays:
        for case in sorted({key.partition("/")[0] for key in arrays.files}):
            entities, relations = arrays[f"{case}/entities"], arrays[f"{case}/relations"]
            start = f"{case}/shared/"
            shared = {key.removeprefix(start): torch.tensor(arrays[key]) for key in arrays.files if key.startswith(start)}
            model = with_vectors(case.partition(":")[0], entities, relations, shared, graph)
            evaluator = RankBasedEvaluator(filtered=True, clear_on_finalize=False)
            _evaluated(evaluator, model, graph, 256)
            for side in SIDES:
                for kind in TYPES:
                    found[f"{case}/{side}/{kind}"] = np.concatenate(evaluator.ranks[side, kind]).astype(np.float64)
    np.savez_compressed(out, **found)


def with_vectors(
    name: str, entities: np.ndarray, relations: np.ndarray, shared: dict[str, torch.Tensor], graph: graphs.Graph
) -> Model:
    """A model of these vectors, which lie as our scorers want them (`fusionjax/models/scorers`).

    Twice as many relations as the graph has are the relations, then their inverses, by which heads are asked for.
    """
    reciprocal = len(relations) == 2 * graph.n_relations
    if reciprocal:  # PyKEEN has each inverse right after its relation
        relations = relations.reshape(2, graph.n_relations, -1).swapaxes(0, 1).reshape(relations.shape)
    e, r = torch.tensor(entities), torch.tensor(relations)
    interaction, e_parts, r_parts = {
        "transe": lambda: (TransEInteraction(p=2), [_table(e)], [_table(r)]),
        "distmult": lambda: (DistMultInteraction(), [_table(e)], [_table(r)]),
        "complex": lambda: (
            ComplExInteraction(),
            [_table(torch.complex(*e.chunk(2, -1)))],
            [_table(torch.complex(*r.chunk(2, -1)))],
        ),
        "simple": lambda: (_SimplE(), [*map(_table, e.chunk(2, -1))], [*map(_table, r.chunk(2, -1))]),
        "rotate": lambda: (_RotatE(), *_turning(e, r)),
        "rotate_l2": lambda: (RotatEInteraction(), *_turning(e, r)),
        "rescal": lambda: (RESCALInteraction(), [_table(e)], [_table(r.reshape(-1, e.shape[1], e.shape[1]))]),
        "tucker": lambda: (_tucker(shared["core"]), [_table(e)], [_table(r)]),
        "conve": lambda: (_ConvE(shared), [_table(e)], [_table(r)]),
        "quate": lambda: (
            QuatEInteraction(),
            [_table(torch.stack(e.chunk(4, -1), -1))],
            # PyKEEN's score is minus the paper's, which a relation of the other sign undoes.
            [_table(-torch.stack(r.chunk(4, -1), -1), normalizer=quaternion.normalize)],
        ),
        "pairre": lambda: (
            PairREInteraction(p=1),
            [_table(e, normalizer=torch.nn.functional.normalize, normalizer_kwargs={"dim": -1})],
            [*map(_table, r.chunk(2, -1))],
        ),
    }[name]()
    return ERModel(
        triples_factory=factory(graph, inverse=reciprocal),
        interaction=interaction,
        entity_representations_kwargs=e_parts,
        relation_representations_kwargs=r_parts,
        random_seed=0,
    )


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _tucker(core: torch.Tensor) -> TuckERInteraction:
    """Without batch normalisation; PyKEEN's core has the relation in the middle, ours in front."""

    def start(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.data.copy_(core.transpose(0, 1))

    return TuckERInteraction(core.shape[1], core.shape[0], apply_batch_normalization=False, core_initializer=start)


def _table(values: torch.Tensor, **more: Any) -> dict[str, Any]:
    """A representation that starts with these values; a complex one is kept as pairs of real numbers."""
    kept = torch.view_as_real(values) if values.is_complex() else values.contiguous()
    return {"shape": tuple(values.shape[1:]), "dtype": values.dtype, "initializer": PretrainedInitializer(kept), **more}


def _turning(e: torch.Tensor, r: torch.Tensor) -> tuple[list[Any], list[Any]]:
    """Complex entities, and relations of modulus 1 at these angles."""
    return [_table(torch.complex(*e.chunk(2, -1)))], [_table(torch.polar(torch.ones_like(r), r))]


def _evaluated(evaluator: RankBasedEvaluator, model: Model, graph: graphs.Graph, batch: int | None) -> None:
    train, valid, test = (torch.tensor(part) for part in graph[:3])
    evaluator.evaluate(model, test, batch_size=batch, additional_filter_triples=[train, valid], use_tqdm=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for name in ("train", "evaluate"):
        mode = modes.add_parser(name)
        mode.add_argument("graph", type=Path)
        mode.add_argument("--model", required=True)
        mode.add_argument("--dim", type=int, default=200, help="real numbers an entity")
        mode.add_argument("--seed", type=int, default=0)
    training, evaluation = (modes.choices[name] for name in ("train", "evaluate"))
    training.add_argument("--loop", choices=("negatives", "all", "pairs"), default="negatives")
    training.add_argument("--loss", choices=tuple(LOSSES), default="nssa", help="with negatives; else softmax cross-entropy")
    training.add_argument("--batch", type=int, default=1024)
    training.add_argument("--negatives", type=int, default=64, help="for each triple")
    training.add_argument("--epochs", type=int, default=3, help="timed ones, after one that is not")
    training.add_argument("--workers", type=int, default=0, help="processes that sample")
    training.add_argument("--defaults", action="store_true", help="keep the model's constraint and regularisation")
    sizes = evaluation.add_argument("--batches", type=lambda text: [int(size) or None for size in text.split(",")])
    sizes.default, sizes.help = [None, 64, 256, 1024], "triples at once; 0: PyKEEN's choice"
    evaluation.add_argument("--repeats", type=int, default=2)
    ranking = modes.add_parser("ranks")
    for name in ("graph", "vectors", "out"):
        ranking.add_argument(name, type=Path)
    arguments = parser.parse_args()
    for name in ("pykeen", "torch_max_mem"):
        logging.getLogger(name).setLevel(logging.ERROR)
    graph = graphs.load(arguments.graph)
    if arguments.mode == "ranks":
        ranks(graph, arguments.vectors, arguments.out)
        return
    found = {"train": train, "evaluate": evaluate}[arguments.mode](graph, arguments)
    settings = {key: value for key, value in vars(arguments).items() if key != "graph"}
    print(json.dumps({**settings, "threads": torch.get_num_threads(), **found, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
