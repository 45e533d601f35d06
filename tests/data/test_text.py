"""The tokeniser: one vocabulary in every process, Chinese by character, rows as BERT expects them, readable by others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from fusionjax.config import schema
from fusionjax.data.shop import Products
from fusionjax.data.text import PAD, SPECIAL, Tokenizer, learn_or_load, product_texts
from fusionjax.errors import UserError

TEXTS = [
    *("Red cotton tee, size M", "Blue cotton tee", "cotton shirt", "Woollen jumper", "red mug 300 ml"),
    *("纯棉T恤 黑色", "黑色马克杯", "Café crème mug", "纯棉衬衫"),
]
CLS, SEP, UNK = (SPECIAL.index(name) for name in ("[CLS]", "[SEP]", "[UNK]"))


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.inner.encode(text).tokens


def test_one_vocabulary_whatever_the_hash_seed(tmp_path: Path) -> None:
    """Two processes of unlike hash seeds write the same file, byte for byte."""
    program = (
        "import sys, json, pathlib; from fusionjax.data.text import Tokenizer;"
        "Tokenizer.learn(json.loads(sys.argv[1]), 150, True).save(pathlib.Path(sys.argv[2]))"
    )
    written = []
    for seed in ("0", "4242"):
        folder = tmp_path / seed
        command = [sys.executable, "-c", program, json.dumps(TEXTS * 3), str(folder)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        written.append((folder / "tokenizer.json").read_bytes())
        assert [path.name for path in folder.iterdir()] == ["tokenizer.json"]  # no temporary file stays
    assert written[0] == written[1]
    assert written[0].decode() == Tokenizer.learn(TEXTS * 3, 150, True).inner.to_str()


def test_size_of_the_vocabulary_and_special_tokens() -> None:
    tokenizer = Tokenizer.learn(TEXTS, 100, True)
    assert len(SPECIAL) < tokenizer.vocab_size <= 100
    vocabulary = tokenizer.inner.get_vocab()
    assert [vocabulary[name] for name in SPECIAL] == [0, 1, 2, 3, 4] and PAD == -1
    assert sorted(vocabulary.values()) == list(range(tokenizer.vocab_size))


def test_chinese_by_character() -> None:
    tokenizer = Tokenizer.learn(TEXTS, 300, True)
    assert tokens(tokenizer, "纯棉T恤 黑色") == ["[CLS]", "纯", "棉", "t", "恤", "黑", "色", "[SEP]"]
    assert tokens(tokenizer, "色黑") == ["[CLS]", "色", "黑", "[SEP]"]  # characters known, order new


def test_words_repeated_in_the_texts_are_pieces_and_others_are_cut() -> None:
    tokenizer = Tokenizer.learn(TEXTS * 5, 300, True)
    assert tokens(tokenizer, "cotton tee mug") == ["[CLS]", "cotton", "tee", "mug", "[SEP]"]
    cut = tokens(tokenizer, "teetee")[1:-1]
    assert len(cut) > 1 and "".join(piece.removeprefix("##") for piece in cut) == "teetee"
    assert all(piece.startswith("##") for piece in cut[1:])
    assert tokens(tokenizer, "☃")[1:-1] == ["[UNK]"]


def test_case_policy() -> None:
    lower, keep = Tokenizer.learn(TEXTS * 3, 300, True), Tokenizer.learn(TEXTS * 3, 300, False)
    assert tokens(lower, "RED Café") == tokens(lower, "red cafe")  # BERT's lower-casing strips accents too
    assert tokens(keep, "Red") != tokens(keep, "red")
    assert not any(piece != piece.lower() for piece in lower.inner.get_vocab() if piece not in SPECIAL)
    assert "R" in keep.inner.get_vocab() and "R" not in lower.inner.get_vocab()


def test_rows_are_framed_cut_and_padded() -> None:
    tokenizer = Tokenizer.learn(TEXTS, 300, True)
    rows = tokenizer.rows(["red mug", "", "cotton " * 40], 12)
    assert rows.dtype == np.int32 and rows.shape == (3, 12) and rows.flags.c_contiguous
    assert rows[0, 0] == CLS and (rows[0] == SEP).sum() == 1
    assert rows[1].tolist() == [CLS, SEP] + [PAD] * 10
    assert rows[2, 0] == CLS and rows[2, -1] == SEP and (rows[2] != PAD).all()
    assert not (rows == UNK).any()
    short = tokenizer.rows(["red mug"], 64)
    assert short.shape == (1, 8)  # the longest, rounded up to 8
    np.testing.assert_array_equal(short[0, :6], rows[0, :6])
    assert tokenizer.rows([], 12).shape[0] == 0
    # What was asked before changes nothing.
    np.testing.assert_array_equal(tokenizer.rows(["red mug", "", "cotton " * 40], 12), rows)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    tokenizer = Tokenizer.learn(TEXTS, 200, True)
    before = tokenizer.rows(TEXTS, 10)  # sets a truncation, which must not be saved
    tokenizer.save(tmp_path / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "tokenizer")
    assert loaded.vocab_size == tokenizer.vocab_size
    np.testing.assert_array_equal(loaded.rows(TEXTS, 10), before)
    assert json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["truncation"] is None
    with pytest.raises(UserError, match=r"tokenizer\.json: no tokeniser there"):
        Tokenizer.load(tmp_path / "elsewhere")


def test_hugging_face_reads_it(tmp_path: Path) -> None:
    tokenizer = Tokenizer.learn(TEXTS, 200, True)
    tokenizer.save(tmp_path)
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    for text in (*TEXTS, "", "Unseen words ☃ and 汉字"):
        ours = [code for code in tokenizer.rows([text], 64)[0].tolist() if code != PAD]
        assert theirs(text)["input_ids"] == ours
    assert theirs.pad_token_id == 0 and len(theirs) == tokenizer.vocab_size


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_without_any_text_there_is_nothing_to_learn(texts: list[str]) -> None:
    with pytest.raises(UserError, match="no training text to learn a vocabulary from"):
        Tokenizer.learn(texts, 100, True)


def test_a_run_keeps_its_tokeniser(tmp_path: Path) -> None:
    config = schema.Text(vocab_size=120)
    first = learn_or_load(config, tmp_path / "t", TEXTS)
    again = learn_or_load(config, tmp_path / "t", ["quite other texts"])
    assert again.inner.to_str() == Tokenizer.learn(TEXTS, 120, True).inner.to_str()
    np.testing.assert_array_equal(first.rows(TEXTS, 9), again.rows(TEXTS, 9))


def test_product_texts() -> None:
    products = Products.of(
        ["1", "2"], title=["Tee", ""], description=["soft", ""], brand=["Acme", "Klar"], category=["A > B > C", ""]
    )
    assert product_texts(products, ("title", "description")) == ["Tee soft", ""]
    assert product_texts(products, ("category", "brand")) == ["A B C Acme", "Klar"]
