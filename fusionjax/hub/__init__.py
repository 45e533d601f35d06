"""Pretrained encoders, in and out: Hugging Face and sentence-transformers folders ↔ parameter trees; nothing is executed."""

from fusionjax.hub.checkpoint import Checkpoint, read_checkpoint, write_checkpoint, write_without_weights
from fusionjax.hub.files import fingerprint, locate

__all__ = ["Checkpoint", "fingerprint", "locate", "read_checkpoint", "write_checkpoint", "write_without_weights"]
