"""What transformers and sentence-transformers make of checkpoint folders, float32, eager attention: the expected values.

    PEER/python theirs.py FOLDER … [--whole] [--no-gradients]

PEER has both and no FusionJAX (`make peer` makes it). Writes FOLDER/expected.npz, of the texts in FOLDER/texts.json
(written, where there is none). Its keys, NAME being a text (or `one`, a row of a single token):

    ids/NAME, rows/NAME, word_rows/NAME       tokens; the rows of the next three that are kept (all of them with --whole)
    alone/hidden/NAME, batch/hidden/NAME      last hidden state, of the text alone and in a padded batch with all others
    alone/logits/NAME                         scores of every word
    alone/vectors, batch/vectors              by sentence-transformers, [texts, d]
    pooling/MODE                              vectors of the batch by each of its poolings (only where `poolings.json` asks)
    direction, masked/tokens, masked/labels   what the two losses take: sum(vectors · direction); cross-entropy (−1: no label)
    gradient/LOSS/TENSOR, kept/TENSOR         gradients by a few tensors' names; the rows of it that are kept (--whole: all)
"""
# pyright: reportMissingImports=false, reportOptionalIterable=false, reportArgumentType=false

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, logging

EAGER: dict[str, Any] = {"attn_implementation": "eager", "dtype": torch.float32}
ROWS, WORD_ROWS, KEPT = 10, 3, 12
PARTS = ("embeddings", ".1.", "final_norm", "cls.", "head", "vocab_", "decoder.bias")
"""Tensors whose gradients are kept hold one of these in their names: embeddings, the second layer, the heads …"""
ENDS = ("embeddings.weight", "query.weight", "q_lin.weight", "Wqkv.weight", "orm.weight", "bias")
"""… and end with one of these."""


def texts_of(mask: str) -> dict[str, str]:
    """Chinese, English, both, one word, nothing, more than 512 tokens of any tokeniser, odd white space, a hidden word."""
    chinese = "我想买一件白色的棉质衬衫,要轻薄透气。"
    english = "The white cotton shirt is light, soft and cheap."
    mixed = "Apple iPhone 手机壳 black 黑色 with free delivery"
    return {
        "chinese": chinese,
        "english": english,
        "mixed": mixed,
        "word": "shirt",
        "empty": "",
        "long": " ".join([english, chinese, mixed] * 24),
        "spaces": "  Soft   cotton\tshirt \n 白色 ",
        "masked": f"white {mask} 手机{mask}",
    }


def expected(folder: Path, whole: bool = False, gradients: bool = True) -> dict[str, np.ndarray]:
    """The values of a folder, by the keys above."""
    logging.set_verbosity_error()
    sentences = SentenceTransformer(str(folder), device="cpu", model_kwargs=EAGER).eval()
    tokenizer, limit = sentences.tokenizer, sentences.max_seq_length
    masked = any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in AutoConfig.from_pretrained(folder).architectures)
    full = (AutoModelForMaskedLM if masked else AutoModel).from_pretrained(folder, **EAGER).eval()
    # Weights lie in memory as they lie in their file, and torch sums in another order where they lie askew.
    for parameter in {*full.parameters(), *sentences.parameters()}:
        parameter.data = parameter.data.clone()
    encoder = full.base_model
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    out: dict[str, np.ndarray] = {}

    ids = {name: tokenizer(text, truncation=True, max_length=limit)["input_ids"] for name, text in texts.items()}
    ids["one"] = [ids["word"][1]]
    batch = _padded(list(ids.values()), tokenizer.pad_token_id)
    with torch.no_grad():
        together = encoder(**batch).last_hidden_state.numpy()
        for row, (name, tokens) in enumerate(ids.items()):
            alone = _padded([tokens], tokenizer.pad_token_id)
            rows, words = (_some(len(tokens), len(tokens) if whole else kept) for kept in (ROWS, WORD_ROWS))
            out[f"ids/{name}"], out[f"rows/{name}"], out[f"word_rows/{name}"] = np.array(tokens, np.int32), rows, words
            out[f"alone/hidden/{name}"] = encoder(**alone).last_hidden_state[0].numpy()[rows]
            out[f"batch/hidden/{name}"] = together[row, rows]
            if masked:
                out[f"alone/logits/{name}"] = full(**alone).logits[0].numpy()[words]
        out["batch/vectors"] = sentences.encode(list(texts.values()), prompt="", batch_size=len(texts), convert_to_numpy=True)
        out["alone/vectors"] = np.stack([sentences.encode([text], prompt="")[0] for text in texts.values()])
        if (folder / "poolings.json").exists():
            for mode in Pooling.POOLING_MODES:
                features = {"token_embeddings": torch.tensor(together), "attention_mask": batch["attention_mask"]}
                pooled = Pooling(together.shape[2], pooling_mode=mode)(features)["sentence_embedding"]
                out[f"pooling/{mode}"] = pooled.numpy()
    if gradients:
        _gradients(out, sentences, full if masked else None, texts, whole)
    return out


def write(folder: Path, whole: bool, gradients: bool = True) -> None:
    if not (folder / "texts.json").exists():
        texts = texts_of(AutoTokenizer.from_pretrained(folder).mask_token)
        (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / "expected.npz", **expected(folder, whole, gradients))


def _gradients(
    out: dict[str, np.ndarray], sentences: SentenceTransformer, full: Any, texts: dict[str, str], whole: bool
) -> None:
    generator = np.random.Generator(np.random.Philox(7))
    tokenizer = sentences.tokenizer
    short = [name for name in texts if name != "long"]
    direction = generator.normal(size=(len(short), sentences.get_embedding_dimension())).astype(np.float32)
    features = sentences.preprocess([texts[name] for name in short])
    (sentences(features)["sentence_embedding"] * torch.tensor(direction)).sum().backward()
    out["direction"] = direction
    model = sentences[0].model
    _keep(out, "vectors", model, whole)
    if full is None:
        return
    rows = [out[f"ids/{name}"].tolist() for name in short]
    batch = _padded(rows, tokenizer.pad_token_id)
    here = batch["attention_mask"].numpy() == 1
    asked = here & (generator.random(here.shape) < 0.3)
    labels = np.where(asked, batch["input_ids"].numpy(), -1)
    tokens = np.where(asked & (generator.random(here.shape) < 0.8), tokenizer.mask_token_id, batch["input_ids"].numpy())
    batch["input_ids"] = torch.tensor(tokens)
    full(**batch, labels=torch.tensor(np.where(asked, labels, -100))).loss.backward()
    out["masked/tokens"], out["masked/labels"] = np.where(here, tokens, -1).astype(np.int32), labels.astype(np.int32)
    _keep(out, "masked", full, whole)


def _keep(out: dict[str, np.ndarray], loss: str, model: Any, whole: bool) -> None:
    """Gradients under the names tensors have without a prefix. One that is no part of this loss (BERT's pooler) has none."""
    names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in names or "decoder" in names[id(parameter)]:  # tied ones go by the name of what they copy
            names[id(parameter)] = name
    for parameter in model.parameters():
        name = names[id(parameter)].removeprefix(f"{model.base_model_prefix}.")
        if parameter.grad is None or not (whole or (any(part in name for part in PARTS) and name.endswith(ENDS))):
            continue
        size = len(parameter)
        rows = np.union1d(np.arange(size if whole else min(size, KEPT)), _some(size, KEPT))
        out[f"gradient/{loss}/{name}"] = parameter.grad.numpy()[rows]
        out[f"kept/{name}"] = rows.astype(np.int32)


def _padded(rows: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])}


def _some(size: int, kept: int) -> np.ndarray:
    return np.unique(np.linspace(0, size - 1, min(size, kept)).astype(np.int32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--whole", action="store_true", help="keep every row and every gradient")
    parser.add_argument("--no-gradients", action="store_true")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        write(folder, arguments.whole, not arguments.no_gradients)


if __name__ == "__main__":
    main()
