"""A BERT checkpoint of random parameters, small enough to train inside a test."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fusionjax.data.text import Tokenizer
from fusionjax.export import for_others
from fusionjax.hub import Checkpoint, write_checkpoint
from fusionjax.hub.families import bert_json
from fusionjax.hub.sentence import Settings
from fusionjax.models.bert import BertConfig
from fusionjax.models.encoder import MaskedWords, build

TEXTS = [
    "red lipstick matte",
    "哑光 口红 red shoe blue",
    "mug bottle cup skin cream",
    "women tea tree face cream",
    "送礼 米色 跑鞋",
]


def write_tiny_bert(folder: Path, width: int = 16, layers: int = 2, seed: int = 0, settings: Settings | None = None) -> Path:
    """Writes a checkpoint with a masked-words head; parameters are large, so that vectors of different texts differ."""
    tokenizer = Tokenizer.learn(TEXTS * 3, 300, lowercase=True)
    config = BertConfig(tokenizer.vocab_size, width, layers, heads=2, feed_forward=32, max_positions=64)
    shapes = (
        jax.eval_shape(build(config).init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"],
        jax.eval_shape(
            MaskedWords(config).init, jax.random.key(0), jnp.zeros((1, width)), jnp.zeros((config.vocab_size, width))
        )["params"],
    )
    generator = np.random.Generator(np.random.Philox(seed))
    params, head = jax.tree.map(lambda leaf: 0.3 * generator.normal(size=leaf.shape).astype(np.float32), shapes)
    settings = settings or Settings(max_length=32)
    inner, files = for_others(tokenizer.inner, 64)
    write_checkpoint(folder, Checkpoint(bert_json(config), config, params, head, inner, settings, tokenizer_files=files))
    return folder
