"""Files of a checkpoint folder: finding it, its JSON, its safetensors. Errors name the file, what was expected, a way out."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from fusionjax.errors import UserError
from fusionjax.files import whole

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
_HASHED = (".json", ".safetensors", ".txt", ".model")
_WANTED = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model", "*/config.json", "*/*.safetensors")


def locate(place: str | Path) -> Path:
    """The folder of a checkpoint: `place` itself, or a hub id (`ORG/NAME`), downloaded once into the Hugging Face cache.

    Raises:
      UserError: neither a folder nor a hub id that can be had.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    name = str(place)
    if folder.exists():
        raise UserError(f"{name}: a file; a checkpoint is a folder (config.json, {WEIGHTS}, tokenizer.json)")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise UserError(f"{name}: no such folder, and not a hub id (ORG/NAME)")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_WANTED)))
    except Exception as error:  # its errors come from four libraries
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name}: no such folder, and the hub gave nothing ({type(error).__name__}: {reason}); without a network, "
            "download the checkpoint elsewhere and name its folder"
        ) from error


def read_json(file: Path, required: bool = True) -> Any:
    """A JSON file; None if it need not be there and is not."""
    if not file.exists():
        if not required:
            return None
        others = sorted(path.name for path in file.parent.glob("*"))[:8] if file.parent.is_dir() else []
        raise UserError(f"{file}: no such file (the folder holds: {', '.join(others) or 'nothing'})")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid JSON ({error})") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, one or, by its index, several."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise UserError(f"{folder / INDEX}: expected a `weight_map` of tensor names to files")
        files = [folder / Path(name).name for name in sorted(set(names.values()))]
        for file in files:
            if not file.exists():
                raise UserError(f"{file}: missing, though {INDEX} names it; download the checkpoint again")
        return files
    found = [name for name in _PICKLED if (folder / name).exists()]
    if found:
        raise UserError(
            f"{folder / found[0]}: refused, because loading it can run code that it carries; convert it once where you trust "
            "it: python -c \"from transformers import AutoModel as A; A.from_pretrained('FOLDER').save_pretrained('NEW')\" "
            f"(with torch installed) writes {WEIGHTS}"
        )
    raise UserError(f"{folder}: no {WEIGHTS} and no {INDEX} there")


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder by name, floats as float32.

    Raises:
      UserError: a file is cut short or damaged, or pickled; with the way out.
    """
    tensors: dict[str, np.ndarray] = {}
    for file in weight_files(folder):
        try:
            with safetensors.safe_open(str(file), framework="numpy") as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no mapping
                    tensor = opened.get_tensor(name)
                    tensors[name] = tensor if tensor.dtype.kind in "iub" else tensor.astype(np.float32)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise UserError(
                f"{file}: damaged or cut short ({file.stat().st_size:,} bytes: {error}); download or copy it again"
            ) from None
    return tensors


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file whole or not at all."""
    with whole(file) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary, {"format": "pt"})


def fingerprint(folder: Path) -> str:
    """SHA-256 over a checkpoint's weights, tokeniser and settings (also of its modules): equal ones give equal vectors."""
    files = [file for pattern in ("*", "*/*") for file in folder.glob(pattern) if file.suffix in _HASHED and file.is_file()]
    if not any(file.suffix == ".safetensors" for file in files):
        weight_files(folder)  # says what is missing
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(folder).as_posix()}:{file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
