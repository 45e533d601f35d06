"""A checkpoint folder ↔ its encoder, masked-words head, tokeniser and sentence-transformers settings.

Written back, a folder loads in transformers and in sentence-transformers with the same outputs: tensors that are no part of the
encoder (BERT's pooler) are carried along, and `config.json` is the one that was read.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from flax import traverse_util
from tokenizers.normalizers import Lowercase, Sequence

from fusionjax.errors import UserError, nearest
from fusionjax.files import write_json, write_whole
from fusionjax.hub import families, sentence
from fusionjax.hub.files import WEIGHTS, read_json, read_tensors, write_tensors
from fusionjax.models.encoder import EncoderConfig, MaskedWords, build, words_of


@dataclasses.dataclass
class Checkpoint:
    """What a checkpoint folder says. Arrays are NumPy, float32, in this framework's parameter trees."""

    raw: dict[str, Any]
    """config.json as it stands there."""
    config: EncoderConfig
    params: dict[str, Any]
    """Of `encoder.build(config)`."""
    head: dict[str, Any] | None
    """Of `encoder.MaskedWords(config)`; None: the checkpoint has no masked-words head, or part of one."""
    tokenizer: tokenizers.Tokenizer
    sentence: sentence.Settings
    others: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Tensors of neither (BERT's pooler), by their names, written back as they were."""
    tokenizer_files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """Small files that say how other libraries use the tokeniser (tokenizer_config.json), written back as they were."""

    @property
    def family(self) -> families.Family:
        return families.FAMILIES[self.raw["model_type"]]


_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")
_VOCABULARIES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model")


def read_checkpoint(folder: Path, weights: bool = True) -> Checkpoint:
    """Reads a Hugging Face or sentence-transformers folder.

    Args:
      weights: False: all but the tensors (`params` is empty), which need not be there.

    Raises:
      UserError: a file is missing, damaged or pickled; a family, setting or module is not built; a tensor is missing or has
        another shape than config.json says; the tokeniser's vocabulary is larger than the word embeddings.
    """
    settings, inner = sentence.read_settings(folder)
    raw = read_json(inner / "config.json")
    where = str(inner / "config.json")
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected an object of settings")
    family = families.family_of(raw, where)
    try:
        config = family.read(raw)
    except KeyError as error:
        raise UserError(f"{where}: {error} is missing") from None
    except UserError as error:
        raise UserError(str(error).replace("config.json", where, 1)) from None
    tensors = _modern_names(read_tensors(inner)) if weights else {}
    used: set[str] = set()
    params = _encoder_params(family, config, tensors, inner, used) if weights else {}
    head = _head_params(family, config, params, tensors, inner, used) if weights else None
    tokenizer = _read_tokenizer(inner)
    if settings.lower:
        _lower(tokenizer)
    size = tokenizer.get_vocab_size()
    if size > config.vocab_size:
        raise UserError(
            f"{inner / 'tokenizer.json'}: the vocabulary has {size:,} pieces, the word embeddings {config.vocab_size:,} rows "
            f"({where}: vocab_size): tokeniser and weights are not of one checkpoint"
        )
    return Checkpoint(
        raw=raw,
        config=config,
        params=params,
        head=head,
        tokenizer=tokenizer,
        sentence=settings.within(config.max_length, _tokenizer_limit(inner)),
        others={name: value for name, value in tensors.items() if name not in used},
        tokenizer_files={name: (inner / name).read_bytes() for name in _TOKENIZER_FILES if (inner / name).exists()},
    )


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a folder that transformers and sentence-transformers load; files are replaced one by one, each atomically."""
    family, head = checkpoint.family, checkpoint.head
    prefix = family.prefix if head is not None else ""
    flat = {"/".join(path): np.asarray(value) for path, value in traverse_util.flatten_dict(checkpoint.params).items()}
    tensors: dict[str, np.ndarray] = {}
    for path, name in families.encoder_names(family, checkpoint.config.layers):
        if (value := flat.get("/".join(path))) is not None:
            tensors[prefix + name] = value.T if families.turned(path) else value
    if left := flat.keys() - {"/".join(path) for path, _ in families.encoder_names(family, checkpoint.config.layers)}:
        raise ValueError(f"parameters with no name in a checkpoint: {', '.join(sorted(left))}: merge LoRA first")
    if head is not None:
        flat_head = {"/".join(path): np.asarray(value) for path, value in traverse_util.flatten_dict(head).items()}
        for path, name in families.head_names(family):
            if (value := flat_head.get("/".join(path))) is not None:
                tensors[name] = value.T if families.turned(path) else value
    tensors |= {_moved(name, family.prefix, prefix): value for name, value in checkpoint.others.items()}
    write_without_weights(folder, checkpoint)
    write_tensors(folder / WEIGHTS, tensors)


def write_without_weights(folder: Path, checkpoint: Checkpoint) -> None:
    """Config, tokeniser and sentence-transformers settings: all that reading with `weights=False` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "ForMaskedLM" if checkpoint.head is not None else "Model"
    architectures = [checkpoint.family.architecture + kind]
    raw = {name: value for name, value in checkpoint.raw.items() if name != "torch_dtype"}  # dtype's old name
    write_json(folder / "config.json", {**raw, "architectures": architectures, "dtype": "float32"})
    checkpoint.tokenizer.no_padding()
    checkpoint.tokenizer.no_truncation()
    write_whole(folder / "tokenizer.json", checkpoint.tokenizer.to_str(pretty=False).encode())
    for name, content in checkpoint.tokenizer_files.items():
        write_whole(folder / name, content)
    sentence.write_settings(folder, checkpoint.sentence, checkpoint.config.width)


def _moved(name: str, family_prefix: str, prefix: str) -> str:
    """A carried tensor's name where the encoder's now have `prefix`: a pooler moves with the encoder."""
    bare = name.removeprefix(family_prefix)
    return prefix + bare if bare != name or bare.startswith("pooler.") else name


def _modern_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names as written today: TensorFlow's gamma and beta are weight and bias; buffers are no parameters."""
    renamed = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): value
        for name, value in tensors.items()
    }
    return {name: value for name, value in renamed.items() if not name.endswith("embeddings.position_ids")}


def _encoder_params(
    family: families.Family, config: EncoderConfig, tensors: Mapping[str, np.ndarray], folder: Path, used: set[str]
) -> dict[str, Any]:
    expected = _shapes(build(config).init, jnp.zeros((1, 4), jnp.int32))
    names = dict(families.encoder_names(family, config.layers))
    first = next(theirs for ours, theirs in names.items() if ours[-2:] == ("word_embeddings", "embedding"))
    prefix = next((prefix for prefix in ("", family.prefix) if prefix + first in tensors), None)
    if prefix is None:
        raise UserError(
            f"{folder}: the weights have no tensor {first} (nor {family.prefix}{first}){nearest(first, tensors)}; "
            f"config.json says {family.architecture}Model"
        )
    return _collect(expected, {path: prefix + name for path, name in names.items()}, tensors, folder, used)


def _head_params(
    family: families.Family,
    config: EncoderConfig,
    params: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    folder: Path,
    used: set[str],
) -> dict[str, Any] | None:
    """The head, if all of it is there: RoBERTa checkpoints for sentences keep none, or a stray bias."""
    names = dict(families.head_names(family))
    words = jax.ShapeDtypeStruct((config.vocab_size, config.width), jnp.float32)
    expected = _shapes(MaskedWords(config).init, jnp.zeros((1, config.width)), words)
    decoder = f"{family.decoder}.weight"
    # The bias stands under two names in old checkpoints: as the head's own, and as its decoder's.
    tensors = {
        **({names[("bias",)]: tensors[f"{family.decoder}.bias"]} if f"{family.decoder}.bias" in tensors else {}),
        **tensors,
    }
    used.update((f"{family.decoder}.bias", decoder) if all(names[path] in tensors for path in expected) else ())
    if not all(names[path] in tensors for path in expected):
        return None
    if decoder in tensors and not np.array_equal(tensors[decoder], words_of(dict(params))):
        raise UserError(
            f"{folder}: {decoder} is not the word embeddings: an untied masked-words head is not built (load without its "
            "head: remove that tensor)"
        )
    return _collect(expected, names, tensors, folder, used)


def _shapes(init: Any, *arguments: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    tree = jax.eval_shape(init, jax.random.key(0), *arguments)["params"]
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(tree)
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}


def _collect(
    expected: Mapping[tuple[str, ...], tuple[int, ...]],
    names: Mapping[tuple[str, ...], str],
    tensors: Mapping[str, np.ndarray],
    folder: Path,
    used: set[str],
) -> dict[str, Any]:
    found: dict[tuple[str, ...], np.ndarray] = {}
    for path, shape in expected.items():
        name = names[path]
        if name not in tensors:
            raise UserError(f"{folder}: the weights have no tensor {name}{nearest(name, tensors)}")
        value = tensors[name].T if families.turned(path) else tensors[name]
        if value.shape != shape:
            raise UserError(
                f"{folder}: tensor {name} has the shape {list(tensors[name].shape)}, config.json asks for "
                f"{list(shape[::-1] if families.turned(path) else shape)}"
            )
        found[path] = np.ascontiguousarray(value)
        used.add(name)
    return traverse_util.unflatten_dict(found)


def _read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """tokenizer.json; of an older folder, what transformers makes of vocab.txt and the like."""
    file = folder / "tokenizer.json"
    if file.exists():
        try:
            return tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"{file}: not a tokeniser ({error})") from None
    if not any((folder / name).exists() for name in _VOCABULARIES):  # transformers would make one of no words
        raise UserError(f"{folder}: no tokenizer.json, nor what a tokeniser could be made of ({', '.join(_VOCABULARIES)})")
    from transformers import AutoTokenizer

    try:
        inner = getattr(AutoTokenizer.from_pretrained(str(folder), local_files_only=True), "backend_tokenizer", None)
    except Exception as error:
        raise UserError(f"{folder}: no tokenizer.json, and no tokeniser can be made of what is there ({error})") from None
    if inner is None:
        raise UserError(f"{folder}: no tokenizer.json, and its tokeniser has no fast form")
    return inner


def _lower(tokenizer: tokenizers.Tokenizer) -> None:
    """Puts lower case before all else, unless it is there already (a folder that was written here)."""
    normalizer = tokenizer.normalizer
    parts: list[Any] = [] if normalizer is None else [normalizer]
    if isinstance(normalizer, Sequence):
        parts = [normalizer[place] for place in range(len(normalizer))]
    if not any(isinstance(part, Lowercase) for part in parts):
        tokenizer.normalizer = Sequence([Lowercase(), *parts])


def _tokenizer_limit(folder: Path) -> int | None:
    """`model_max_length` of tokenizer_config.json, where it says something."""
    found = read_json(folder / "tokenizer_config.json", required=False) or {}
    limit = found.get("model_max_length")
    return int(limit) if isinstance(limit, int | float) and 0 < limit < 1e9 else None


def stray(names: Iterable[str]) -> list[str]:
    """Names worth telling of: not a pooler's, which every BERT carries."""
    return sorted(name for name in names if "pooler." not in name)
