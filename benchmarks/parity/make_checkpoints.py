"""Writes small random checkpoints of every family by transformers' own classes, and the values expected of them.

    PEER/python make_checkpoints.py FOLDER [--whole]

FOLDER/FAMILY/ is then a sentence-transformers folder (weights with their masked-words head, tokeniser of Chinese and English
pieces, pooling) with `texts.json` and `expected.npz` (theirs.py); tests/hub/golden/ was made so. All parameters are random,
biases and norms too, and settings differ from family to family: no bug shall hide behind a zero, a one or a default.
"""
# pyright: reportMissingImports=false, reportArgumentType=false

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from theirs import write
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "我想买一件白色的棉质衬衫,要轻薄透气。",
    "这款手机壳是黑色的,质量很好,价格便宜。",
    "白色棉质衬衫,轻薄,黑色手机壳,白色手机壳。",
    "我想要一件黑色的衬衫,质量好的。",
    "The white cotton shirt is light, soft and cheap.",
    "Apple iPhone case, black, with free delivery",
    "white shirt, black shirt, soft cotton shirt, white phone case",
    "a phone case with light and soft cotton, the cheap delivery is free",
]
WIDTH, HEADS, LAYERS, FEED_FORWARD, PIECES = 32, 4, 2, 48, 200


# ------------------------------------------------------------------------------------------------------------- tokenisers
def word_pieces(lower: bool) -> transformers.PreTrainedTokenizerBase:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=special, show_progress=False)
    )
    return transformers.BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=lower, model_max_length=512)


def _bytes(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def roberta_bytes() -> transformers.PreTrainedTokenizerBase:
    vocab, merges = _bytes(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return transformers.RobertaTokenizer(vocab=vocab, merges=merges, mask_token=mask, model_max_length=512)


def modern_bytes() -> transformers.PreTrainedTokenizerBase:
    vocab, merges = _bytes(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ends = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    mask = AddedToken("[MASK]", lstrip=True, special=True)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token=mask, model_max_length=512, **names)


def unigrams() -> transformers.PreTrainedTokenizerBase:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=PIECES, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    vocab = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return transformers.XLMRobertaTokenizer(vocab=[*vocab, ("<mask>", 0.0)], mask_token=mask, model_max_length=512)


# ------------------------------------------------------------------------------------------------------------------ models
@dataclasses.dataclass(frozen=True)
class Made:
    tokenizer: Callable[[], transformers.PreTrainedTokenizerBase]
    model: Any
    """transformers' class."""
    config: dict[str, Any]
    pooling: tuple[str, ...]
    normalise: bool
    prompts: dict[str, str] = dataclasses.field(default_factory=dict)
    old: bool = False
    """sentence-transformers' files as versions before 5 wrote them."""


_BERT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": FEED_FORWARD,
    "max_position_embeddings": 512,
}
_ROBERTA = {**_BERT, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_MODERN = {
    **{name: value for name, value in _BERT.items() if name != "max_position_embeddings"},
    "num_hidden_layers": 4,
    "max_position_embeddings": 1024,
    "local_attention": 16,
}
_PROMPTS = {"query": "query: ", "document": ""}
MADE = {
    # With pooler and next-sentence head, which are no part of our encoder and must be carried along.
    "bert": Made(lambda: word_pieces(True), transformers.BertForPreTraining, _BERT, ("mean",), True, old=True),
    # Another activation: RoBERTa's masked-words head keeps gelu.
    "roberta": Made(roberta_bytes, transformers.RobertaForMaskedLM, {**_ROBERTA, "hidden_act": "gelu_new"}, ("cls",), False),
    "xlm-roberta": Made(unigrams, transformers.XLMRobertaForMaskedLM, _ROBERTA, ("mean",), True, _PROMPTS),
    "distilbert": Made(
        lambda: word_pieces(False),
        transformers.DistilBertForMaskedLM,
        {
            "dim": WIDTH,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "hidden_dim": FEED_FORWARD,
            "max_position_embeddings": 512,
            "activation": "relu",
        },
        ("mean", "max"),
        False,
    ),
    "modernbert": Made(modern_bytes, transformers.ModernBertForMaskedLM, _MODERN, ("cls",), True),
    # Everything that ModernBERT's settings can turn on, and another order of layers.
    "modernbert-biases": Made(
        modern_bytes,
        transformers.ModernBertForMaskedLM,
        {
            **_MODERN,
            "num_hidden_layers": 3,
            "local_attention": 10,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
            },
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "norm_eps": 1e-3,
            "hidden_activation": "gelu_pytorch_tanh",
            "classifier_activation": "silu",
        },
        ("weightedmean",),
        False,
    ),
}


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Every parameter normal, of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                norm_scale = "norm" in name.lower() and name.endswith("weight")
                parameter.copy_(1.0 + 0.3 * noise if norm_scale else 0.3 * noise)
            else:
                parameter.copy_(noise * (0.7 if "embeddings" in name else 1.2 * parameter.shape[1] ** -0.5))


def make(folder: Path, name: str, seed: int, whole: bool) -> None:
    made = MADE[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = made.tokenizer()
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos", "cls", "sep")}
    config = made.model.config_class(vocab_size=len(tokenizer), **special, **made.config)
    model = made.model(config)
    randomise(model, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [Transformer(str(folder)), Pooling(WIDTH, pooling_mode=made.pooling)] + ([Normalize()] if made.normalise else [])
    SentenceTransformer(modules=modules, prompts=made.prompts, device="cpu").save_pretrained(str(folder))
    model.save_pretrained(folder)  # what sentence-transformers saved has no masked-words head
    (folder / "README.md").unlink()
    if made.old:
        _as_before(folder, made)
        (folder / "poolings.json").write_text("true\n", encoding="utf-8")
    write(folder, whole)


def _as_before(folder: Path, made: Made) -> None:
    names = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")][: 2 + made.normalise]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{name}"}
        for place, (name, path) in enumerate(names)
    ]
    flags = {f"pooling_mode_{mode}": mode.split("_")[0] in made.pooling for mode in ("cls_token", "mean_tokens", "max_tokens")}
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": WIDTH, **flags},
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.0.0"}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--whole", action="store_true", help="keep every row and every gradient")
    arguments = parser.parse_args()
    for seed, name in enumerate(MADE):
        make(arguments.folder / name, name, seed, arguments.whole)


if __name__ == "__main__":
    main()
