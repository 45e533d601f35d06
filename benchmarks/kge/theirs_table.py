"""Quality of PyKEEN's own models on small graphs, to stand beside ours: filtered, realistic ranks, both sides together.

    PEER/python -m benchmarks.kge.theirs_table UMLS=umls.tar.gz Kinship=kinship.tar.gz --out OUT.json [--models TransE …]

Each NAME=SOURCE is a folder or .tar.gz that `graph.read` takes. For each model, PyKEEN's pipeline runs
- `defaults`: as it comes (its loss, sizes, regularisation; sLCWA, Adam 1e-3), but 100 epochs instead of 5; one seed;
- `tuned`: the best of the settings below by validation MRR of seed 0, then two seeds more. Inverse triples, each pair of head
  and relation against all entities (LCWA), batches of 512, Adam, early stopping on validation MRR every 10 epochs.
OUT.json is written after every run, and a run that stands there is not done again. One thread, so that results do not depend
on the machine's cores.
"""
# pyright: reportMissingImports=false

import argparse
import functools
import json
import logging
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pykeen.evaluation import RankBasedEvaluator
from pykeen.pipeline import pipeline
from pykeen.triples import CoreTriplesFactory

from benchmarks.kge import graph as graphs

EPOCHS = {"defaults": 100, "tuned": 150}
SEEDS = (0, 1, 2)
METRICS = {"mrr": "inverse_harmonic_mean_rank", "hits@1": "hits_at_1", "hits@3": "hits_at_3", "hits@10": "hits_at_10"}
EVALUATOR: dict[str, Any] = {
    "metrics": ["inverse_harmonic_mean_rank", "hits_at_k", "hits_at_k", "hits_at_k"],
    "metrics_kwargs": [None, {"k": 1}, {"k": 3}, {"k": 10}],
    "add_defaults": False,
}
SOFTMAX: dict[str, Any] = {"loss": "CrossEntropyLoss"}
BINARY: dict[str, Any] = {"loss": "BCEWithLogitsLoss", "smoothing": 0.1}
FREE: dict[str, Any] = {"regularizer": None}
N3: dict[str, Any] = {"regularizer": "PowerSumRegularizer", "regularizer_kwargs": {"weight": 0.01, "p": 3.0}}
"""PyKEEN's own penalties, which `FREE` leaves out, were set for FB15k. `spread`: standard deviation of the start, else 1."""
TUNED: dict[str, list[dict[str, Any]]] = {
    "TransE": [
        {"model": {"embedding_dim": 128, "scoring_fct_norm": norm}, "rate": rate, **SOFTMAX}
        for norm, rate in ((1, 1e-2), (2, 1e-2))
    ],
    "DistMult": [
        {"model": {"embedding_dim": 128, "entity_constrainer": None, **FREE}, "rate": 1e-2, **SOFTMAX},
        {"model": {"embedding_dim": 128, "entity_constrainer": None, **FREE}, "rate": 3e-3, **BINARY},
        {"model": {"embedding_dim": 128, "entity_constrainer": None, **N3}, "rate": 1e-2, **SOFTMAX},
    ],
    "ComplEx": [
        {"model": {"embedding_dim": 64, **FREE}, "spread": 0.1, "rate": 1e-2, **SOFTMAX},
        {"model": {"embedding_dim": 64, **FREE}, "spread": 0.1, "rate": 3e-3, **BINARY},
        {"model": {"embedding_dim": 64, **N3}, "spread": 0.1, "rate": 1e-2, **SOFTMAX},
    ],
    "SimplE": [
        {"model": {"embedding_dim": 64}, "spread": 0.1, "rate": 1e-2, **SOFTMAX},
        {"model": {"embedding_dim": 64}, "spread": 0.1, "rate": 3e-3, **BINARY},
        {"model": {"embedding_dim": 64, **N3}, "spread": 0.1, "rate": 1e-2, **SOFTMAX},
    ],
    "RotatE": [{"model": {"embedding_dim": 64}, "rate": rate, **SOFTMAX} for rate in (1e-2, 1e-3)],
    "RESCAL": [
        {"model": {"embedding_dim": 64, **FREE}, "rate": 1e-3, **SOFTMAX},
        {"model": {"embedding_dim": 32, **FREE}, "rate": 3e-3, **BINARY},
        {"model": {"embedding_dim": 64, **N3}, "spread": 0.1, "rate": 1e-3, **SOFTMAX},
    ],
    "TuckER": [
        {"model": {"embedding_dim": 64}, "rate": 3e-3, **BINARY},
        {"model": {"embedding_dim": 64}, "rate": 3e-3, **SOFTMAX},
    ],
    "ConvE": [
        {"model": {"embedding_dim": 64, "output_channels": 16}, "rate": 3e-3, **BINARY},
        {"model": {"embedding_dim": 64, "output_channels": 16}, "rate": 3e-3, **SOFTMAX},
    ],
    "QuatE": [
        {"model": {"embedding_dim": 32, "entity_regularizer": None, "relation_regularizer": None}, "rate": 1e-2, **SOFTMAX},
        {"model": {"embedding_dim": 32, "entity_regularizer": None, "relation_regularizer": None}, "rate": 3e-3, **BINARY},
    ],
    "PairRE": [{"model": {"embedding_dim": 64}, "rate": rate, **SOFTMAX} for rate in (1e-2, 1e-3)],
}


def run(graph: graphs.Graph, model: str, setting: dict[str, Any] | None, seed: int) -> dict[str, Any]:
    """Figures of one run; setting None: PyKEEN's defaults."""
    inverse = setting is not None or model == "ConvE"  # which PyKEEN says it needs
    parts = [
        CoreTriplesFactory(torch.tensor(part), graph.n_entities, graph.n_relations, create_inverse_triples=inverse and not at)
        for at, part in enumerate(graph[:3])
    ]
    settings: dict[str, Any] = {"training_kwargs": {"num_epochs": EPOCHS["defaults"]}}
    if setting is not None:
        start = functools.partial(torch.nn.init.normal_, std=setting.get("spread", 1.0))
        spread = {"entity_initializer": start, "relation_initializer": start} if "spread" in setting else {}
        training = {"num_epochs": EPOCHS["tuned"], "batch_size": 512, "label_smoothing": setting.get("smoothing", 0.0)}
        stopping = {
            "frequency": 10,
            "patience": 5,
            "relative_delta": 0.001,
            "metric": "both.realistic.inverse_harmonic_mean_rank",
        }
        settings = {
            "model_kwargs": setting["model"] | spread,
            "loss": setting["loss"],
            "optimizer_kwargs": {"lr": setting["rate"]},
            "training_loop": "lcwa",
            "training_kwargs": training,
            "stopper": "early",
            "stopper_kwargs": stopping | {"evaluation_batch_size": 512},
        }
    settings["training_kwargs"] |= {"use_tqdm": False, "use_tqdm_batch": False, "pin_memory": False}
    evaluation = {"use_tqdm": False, "batch_size": 512}
    started = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        if setting is not None:  # else its best weights are left in the home folder
            settings["stopper_kwargs"]["best_model_path"] = Path(scratch, "best.pt")
        found = pipeline(
            training=parts[0],
            validation=parts[1],
            testing=parts[2],
            model=model,
            random_seed=seed,
            device="cpu",
            evaluator_kwargs=EVALUATOR,
            evaluation_kwargs=evaluation,
            **settings,
        )
    seconds = time.process_time() - started
    train, valid, _ = (torch.tensor(part) for part in graph[:3])
    evaluator = RankBasedEvaluator(filtered=True, **EVALUATOR)
    on_valid = evaluator.evaluate(found.model, valid, additional_filter_triples=[train], batch_size=512, use_tqdm=False)
    return {
        "seed": seed,
        "valid_mrr": float(on_valid.get_metric("both.realistic.inverse_harmonic_mean_rank")),
        "test": {name: float(found.get_metric(f"both.realistic.{theirs}")) for name, theirs in METRICS.items()},
        "epochs": len(found.losses),
        "processor_seconds": round(seconds, 1),
    }


def table(
    name: str, graph: graphs.Graph, model: str, kept: dict[str, Any], out: Path, *, seeds: tuple[int, ...], defaults: bool
) -> None:
    """Runs of a model that are missing in `kept`, which is the file's whole content."""
    rows = kept["graphs"].setdefault(name, {})

    def done(key: str, model: str, setting: dict[str, Any] | None, seed: int) -> dict[str, Any]:
        runs = rows.setdefault(model, {}).setdefault(key, {"setting": setting or "PyKEEN's defaults", "runs": []})["runs"]
        found = next((each for each in runs if each["seed"] == seed), None)
        if found is None:
            found = run(graph, model, setting, seed)
            runs.append(found)
            out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            print(name, model, key, json.dumps(found), flush=True)
        return found

    tried = {f"tuned {at}": setting for at, setting in enumerate(TUNED[model])}
    best = max(tried, key=lambda key: done(key, model, tried[key], SEEDS[0])["valid_mrr"])
    for seed in seeds[1:]:
        done(best, model, tried[best], seed)
    if defaults:
        done("defaults", model, None, SEEDS[0])
    tests = [each["test"] for each in rows[model][best]["runs"]]
    rows[model]["best"] = {"setting": best} | {
        metric: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}
        for metric in METRICS
        for values in [[test[metric] for test in tests]]
    }
    out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="NAME=SOURCE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=tuple(TUNED), default=list(TUNED))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for noisy in ("pykeen", "torch_max_mem"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    kept: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {"graphs": {}}
    kept["packages"] = {package: version(package) for package in ("pykeen", "torch", "numpy")}
    kept["command"] = "PEER/python -m benchmarks.kge.theirs_table UMLS=umls.tar.gz Kinship=kinship.tar.gz --out OUT.json"
    kept["protocol"] = "filtered, realistic ranks, both sides; settings chosen by validation MRR; one thread"
    loaded = {name: graphs.read(Path(source)) for name, _, source in (word.partition("=") for word in arguments.sources)}
    # One seed of every model first: a run that is stopped has a whole table.
    for seeds, defaults in ((SEEDS[:1], False), (SEEDS[:1], True), (SEEDS, True)):
        for model in arguments.models:
            for name, graph in loaded.items():
                table(name, graph, model, kept, arguments.out, seeds=seeds, defaults=defaults)


if __name__ == "__main__":
    main()
