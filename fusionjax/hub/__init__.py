"""Pretrained encoders, in and out: Hugging Face and sentence-transformers folders ↔ parameter trees; nothing is executed."""

from fusionjax.hub.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fusionjax.hub.files import locate

__all__ = ["Checkpoint", "locate", "read_checkpoint", "write_checkpoint"]
