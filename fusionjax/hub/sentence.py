"""The sentence-transformers side of a folder: modules.json, pooling, normalisation, longest text, prompts."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionjax.errors import UserError, nearest
from fusionjax.files import write_json
from fusionjax.hub.files import read_json
from fusionjax.models.bert import POOLINGS

_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How pooling was written before `pooling_mode`."""


@dataclasses.dataclass(frozen=True)
class Settings:
    pooling: str = "mean"
    """As `models.bert.pool` takes it. A folder that says nothing: the mean, as sentence-transformers has it."""
    normalise: bool = False
    """Vectors of length 1."""
    max_length: int | None = None
    """Tokens a text is cut to; None: as many as the encoder has positions for."""
    lower: bool = False
    """Lower case before the tokeniser, whatever the tokeniser does."""
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name → text put before a text (`query: `)."""
    default_prompt: str | None = None
    """Name of the prompt that is used when none is asked for."""
    similarity: str = "cosine"
    """How sentence-transformers' users compare the vectors; only carried along."""

    def within(self, positions: int, tokenizer_limit: int | None) -> "Settings":
        """With a longest text that the encoder has positions for, and, where nothing else is said, the tokeniser allows."""
        asked = self.max_length if self.max_length is not None else tokenizer_limit
        return dataclasses.replace(self, max_length=positions if asked is None else min(asked, positions))


def read_settings(folder: Path) -> tuple[Settings, Path]:
    """(settings, the folder inside that holds the encoder). A folder without modules.json is a plain Hugging Face checkpoint.

    Raises:
      UserError: a module that is not built; it would change the vectors.
    """
    file = folder / "modules.json"
    modules = read_json(file, required=False)
    if modules is None:
        return Settings(), folder
    if not isinstance(modules, list) or not all(isinstance(each, dict) and "type" in each for each in modules):
        raise UserError(f"{file}: expected a list of modules with `type` and `path`")
    inner, settings = folder, Settings()
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    for module, kind in zip(modules, kinds, strict=True):
        place = folder / str(module.get("path", ""))
        if kind == "Transformer":
            inner = place
            found = read_json(inner / "sentence_bert_config.json", required=False) or {}
            settings = dataclasses.replace(
                settings, max_length=found.get("max_seq_length"), lower=bool(found.get("do_lower_case"))
            )
        elif kind == "Pooling":
            settings = dataclasses.replace(settings, pooling=_pooling(place / "config.json"))
        elif kind == "Normalize":
            settings = dataclasses.replace(settings, normalise=True)
        else:
            raise UserError(f"{file}: module {module['type']} is not built: Transformer, Pooling and Normalize are")
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise UserError(f"{file}: expected Transformer, Pooling and perhaps Normalize, in this order; got {', '.join(kinds)}")
    more = read_json(folder / "config_sentence_transformers.json", required=False) or {}
    settings = dataclasses.replace(
        settings,
        prompts=more.get("prompts") or {},
        default_prompt=more.get("default_prompt_name"),
        similarity=more.get("similarity_fn_name") or "cosine",
    )
    return settings, inner


def _pooling(file: Path) -> str:
    config = read_json(file)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    for mode in modes:
        if mode not in POOLINGS:
            raise UserError(f"{file}: pooling_mode '{mode}' is not built{nearest(mode, POOLINGS)}")
    if config.get("include_prompt", True) is False:
        raise UserError(f"{file}: include_prompt: false is not built: a prompt's tokens are pooled like the text's")
    return "+".join(modes)


def write_settings(folder: Path, settings: Settings, width: int) -> None:
    """Writes the files sentence-transformers reads beside the encoder's own."""
    modes = settings.pooling.split("+")
    names = [("Transformer", ""), ("Pooling", "1_Pooling")] + ([("Normalize", "2_Normalize")] if settings.normalise else [])
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{name}"}
        for place, (name, path) in enumerate(names)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flags = {flag: mode in modes for flag, mode in _FLAGS.items()}
    pooling: dict[str, Any] = {"word_embedding_dimension": width, **flags, "include_prompt": True}
    if list(modes) != [mode for mode in _FLAGS.values() if mode in modes]:  # another order than the flags can say
        pooling = {"embedding_dimension": width, "pooling_mode": modes, "include_prompt": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    if settings.normalise:
        (folder / "2_Normalize").mkdir(exist_ok=True)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": settings.max_length, "do_lower_case": settings.lower})
    prompts = {"prompts": dict(settings.prompts), "default_prompt_name": settings.default_prompt}
    write_json(folder / "config_sentence_transformers.json", {**prompts, "similarity_fn_name": settings.similarity})
    write_json(folder / "modules.json", modules)
