"""Search by a zero-shot run's own vectors, beside search by sentence-transformers' vectors of the same texts.

    fusionjax train configs/home_depot_minilm.yaml text.checkpoint=FOLDER data.source_dir=FOLDER --run-dir RUN
    python benchmarks/search_parity.py RUN CHECKPOINT [--peer .venv-peer/bin/python]

RUN is a run with `model.heads: none`; CHECKPOINT the folder it started from. Both sides rank all products for every test query,
with the same code. Prints NDCG@10 and MRR of both and their differences; exit 1 if NDCG@10 differs by more than 1e-4.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_PEER = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
for name in ("products", "queries"):
    texts = json.load(open(f"{sys.argv[2]}/{name}.json", encoding="utf-8"))
    np.save(f"{sys.argv[2]}/{name}.npy", model.encode(texts, normalize_embeddings=True, show_progress_bar=True))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("--peer", default=".venv-peer/bin/python")
    arguments = parser.parse_args()

    import fusionjax
    from fusionjax.data.inputs import build_inputs, texts_read
    from fusionjax.data.prepare import prepare
    from fusionjax.data.shop import TEST
    from fusionjax.evaluation.ranking import VectorScorer
    from fusionjax.evaluation.search import evaluate_search
    from fusionjax.tasks.search import judged_queries

    model = fusionjax.load(arguments.run)
    shop = prepare(model.config.data).shop
    inputs = build_inputs(shop, model.config, model.folder.tokenizer)
    assert inputs.query_tokens is not None and shop.queries is not None
    text = model.config.text
    n_queries = len(shop.queries)
    judged = judged_queries(inputs, TEST)
    asked = np.unique(judged.query)
    texts = {
        "products": [text.product_prompt + each for each in texts_read(inputs, model.config)],
        "queries": [text.query_prompt + str(shop.queries.text[row]) for row in asked],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, found in texts.items():
            (Path(folder) / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
        subprocess.run([arguments.peer, "-c", _PEER, arguments.checkpoint, folder], check=True)
        theirs = {name: np.load(Path(folder) / f"{name}.npy") for name in texts}

    def measure(queries: np.ndarray, products: np.ndarray) -> dict[str, float]:
        vectors = np.zeros((n_queries, queries.shape[1]), np.float32)
        vectors[asked] = queries
        return dict(evaluate_search(VectorScorer(vectors, products), judged).metrics)

    mine = model.encoder.queries(inputs.query_tokens[asked])
    ours, peer = measure(mine, model.unit), measure(theirs["queries"], theirs["products"])
    has_text = inputs.has_text
    print(f"largest difference of a vector: {np.abs(model.unit - theirs['products'])[has_text].max():.2e} (products), ", end="")
    print(f"{np.abs(mine - theirs['queries']).max():.2e} (queries)")
    for name in ("ndcg@10", "mrr"):
        print(
            f"{name}: ours {ours[name]:.6f}, sentence-transformers {peer[name]:.6f}, difference {ours[name] - peer[name]:+.1e}"
        )
    return int(abs(ours["ndcg@10"] - peer["ndcg@10"]) > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
