"""`TextEncoder`: the same vectors whatever the plan and the company, prompts, filled masks, defined results for odd texts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from fusionjax import TextEncoder
from fusionjax.embedding import packed_vectors, padded_vectors
from fusionjax.errors import UserError
from fusionjax.hub.sentence import Settings
from tests.tiny_bert import TEXTS, write_tiny_bert

SETTINGS = Settings(normalise=True, max_length=32, prompts={"query": "red ", "nothing": ""}, default_prompt=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("encoder") / "bert", settings=SETTINGS)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(folder)


def texts_of(n: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 30 words, Chinese and English."""
    words = " ".join(TEXTS).split()
    generator = np.random.Generator(np.random.Philox(seed))
    return [" ".join(generator.choice(words, generator.integers(1, 31))) for _ in range(n)]


def with_pooling(encoder: TextEncoder, pooling: str) -> TextEncoder:
    settings = dataclasses.replace(encoder.settings, pooling=pooling)
    return TextEncoder(dataclasses.replace(encoder.checkpoint, sentence=settings))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_plans_and_company_change_nothing(encoder: TextEncoder, pooling: str) -> None:
    encoder = with_pooling(encoder, pooling)
    texts = texts_of(60)
    packed, padded = (encoder.encode(texts, plan=plan) for plan in ("packed", "buckets"))
    assert packed.shape == (60, encoder.width) and packed.dtype == np.float32
    assert np.abs(packed - padded).max() < 1e-5
    alone = np.concatenate([encoder.encode([text]) for text in texts[:5]])
    assert np.abs(alone - packed[:5]).max() < 1e-5
    assert np.abs(encoder.encode(texts[::-1])[::-1] - packed).max() < 1e-5
    assert np.abs(packed[0] - packed[1]).max() > 0.01  # different texts do differ
    assert np.allclose(np.linalg.norm(packed, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "lasttoken", "cls+mean"])
def test_poolings_that_rows_do_not_pack(encoder: TextEncoder, pooling: str) -> None:
    encoder = with_pooling(encoder, pooling)
    texts = texts_of(3)
    hidden = encoder.hidden(texts)
    pooled = {"max": lambda h: h.max(0), "lasttoken": lambda h: h[-1], "cls+mean": lambda h: np.concatenate([h[0], h.mean(0)])}
    expected = np.stack([pooled[pooling](state) for state in hidden])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, encoder.width) == expected.shape
    assert np.abs(vectors - expected).max() < 1e-5


def test_another_corpus_compiles_nothing_new(encoder: TextEncoder) -> None:
    functions: dict[Any, Any] = {"packed": packed_vectors, "buckets": padded_vectors}
    for plan, function in functions.items():
        before = function._cache_size()
        encoder.encode(texts_of(400, seed=1), plan=plan)
        compiled = function._cache_size()
        # Texts of up to 32 tokens: packed rows of one length, seven lengths of buckets; a full and a small batch of each.
        assert compiled - before <= (2 if plan == "packed" else 14)
        encoder.encode(texts_of(300, seed=2), plan=plan)
        assert function._cache_size() == compiled


def test_texts_of_no_and_of_very_many_characters(encoder: TextEncoder) -> None:
    long = "red lipstick " * 8000
    assert len(long) > 100_000
    vectors = encoder.encode(["", "  \t ", long, long[:2000]])
    assert encoder.tokens(["", long]).lengths.tolist() == [2, encoder.max_length]  # [CLS] [SEP]
    assert np.all(np.isfinite(vectors))
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6, "white space is no token"
    assert np.abs(vectors[2] - vectors[3]).max() < 1e-6, "what is cut off does not count"
    assert np.abs(vectors[0] - vectors[2]).max() > 0.01


def test_no_texts(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.width)
    assert encoder.hidden([]) == [] and encoder.fill_mask([]) == []


def test_one_string_is_no_list(encoder: TextEncoder) -> None:
    with pytest.raises(UserError, match="list of texts, not one string"):
        encoder.encode("red lipstick")


def test_prompts(encoder: TextEncoder) -> None:
    plain, asked = encoder.encode(["shoe"]), encoder.encode(["shoe"], prompt="query")
    assert np.array_equal(asked, encoder.encode(["red shoe"]))
    assert np.abs(asked - plain).max() > 0.01
    for none in ("", "nothing"):
        assert np.array_equal(encoder.encode(["shoe"], prompt=none), plain)
    with pytest.raises(UserError, match=r"no prompt 'qeury'.*'query'"):
        encoder.encode(["shoe"], prompt="qeury")


def test_the_default_prompt_is_used_unless_another_is_asked_for(tmp_path: Path) -> None:
    settings = Settings(max_length=32, prompts={"query": "red "}, default_prompt="query")
    encoder = TextEncoder.from_pretrained(write_tiny_bert(tmp_path / "bert", settings=settings))
    assert np.array_equal(encoder.encode(["shoe"]), encoder.encode(["red shoe"], prompt=""))


def test_budget_out_and_progress(encoder: TextEncoder) -> None:
    texts, told, out = texts_of(50), [], np.zeros((50, encoder.width), np.float32)
    answer = encoder.encode(texts, budget=128, out=out, progress=told.append)
    assert answer is out and sum(told) == 50 and len(told) > 5
    assert np.abs(out - encoder.encode(texts)).max() < 1e-5


def test_hidden_has_a_row_a_token(encoder: TextEncoder) -> None:
    texts = texts_of(40)
    assert [len(state) for state in encoder.hidden(texts)] == encoder.tokens(texts).lengths.tolist()


def test_fill_mask_gives_the_likeliest_words_of_each_mask(encoder: TextEncoder) -> None:
    answers = encoder.fill_mask(["red [MASK] matte", "[MASK] cup [MASK]"], k=4)
    assert [len(masks) for masks in answers] == [1, 2]
    rows = encoder.tokens(["red [MASK] matte"]).padded(np.array([0]), 8, 1)
    logits = np.asarray(encoder.masked_logits(rows))
    assert logits.shape == (1, 8, encoder.config.vocab_size)
    column = int(np.flatnonzero(rows[0] == encoder.tokenizer.token_to_id("[MASK]"))[0])
    shares = np.exp(logits[0, column]) / np.exp(logits[0, column]).sum()
    best = answers[0][0]
    assert [word.word for word in best] == [encoder.tokenizer.decode([int(n)]) for n in np.argsort(-shares)[:4]]
    assert np.allclose([word.probability for word in best], np.sort(shares)[::-1][:4], rtol=1e-4)


def test_fill_mask_needs_a_mask_and_a_head(encoder: TextEncoder, folder: Path) -> None:
    with pytest.raises(UserError, match=r"text 2 has no \[MASK\] within 32 tokens"):
        encoder.fill_mask(["red [MASK]", "red shoe"])
    with pytest.raises(UserError, match=r"text 1 has no \[MASK\]"):
        encoder.fill_mask(["red " * 40 + "[MASK]"])
    headless = TextEncoder(dataclasses.replace(encoder.checkpoint, head=None))
    with pytest.raises(UserError, match="no masked-words head"):
        headless.fill_mask(["red [MASK]"])


def test_saved_and_read_again_it_is_the_same(encoder: TextEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / "again")
    again = TextEncoder.from_pretrained(tmp_path / "again")
    texts = texts_of(20)
    assert np.array_equal(again.encode(texts), encoder.encode(texts))
    assert np.array_equal(again.encode(texts, prompt="query"), encoder.encode(texts, prompt="query"))
    assert again.fill_mask(["a [MASK]"]) == encoder.fill_mask(["a [MASK]"])


def test_half_precision_layers_give_float32_vectors_nearby(folder: Path, encoder: TextEncoder) -> None:
    texts = texts_of(20)
    vectors = TextEncoder.from_pretrained(folder, jnp.bfloat16).encode(texts)
    assert vectors.dtype == np.float32
    difference = np.abs(vectors - encoder.encode(texts)).max()
    assert 0 < difference < 0.1


@pytest.mark.parametrize("plan", ["packed", "buckets"])
def test_many_texts_of_no_characters(encoder: TextEncoder, plan: Any) -> None:
    """More of them fit into one packed row than a batch has answers."""
    vectors = encoder.encode(["", " ", "red shoe", *[""] * 47], plan=plan)
    alone = encoder.encode(["", "red shoe"])
    assert np.abs(np.delete(vectors, 2, 0) - alone[0]).max() < 1e-5
    assert np.abs(vectors[2] - alone[1]).max() < 1e-5


@pytest.mark.parametrize("pooling", ["mean_sqrt_len_tokens", "weightedmean", "max+mean"])
def test_poolings_weigh_only_the_texts_own_tokens(encoder: TextEncoder, pooling: str) -> None:
    settings = dataclasses.replace(encoder.settings, pooling=pooling, normalise=False)
    encoder = TextEncoder(dataclasses.replace(encoder.checkpoint, sentence=settings))
    texts = ["red", "mug bottle cup", "red shoe blue tea"]  # in one bucket: padded to one length
    pooled = {
        "mean_sqrt_len_tokens": lambda h: h.sum(0) / np.sqrt(len(h)),
        "weightedmean": lambda h: np.average(h, axis=0, weights=np.arange(1, len(h) + 1)),
        "max+mean": lambda h: np.concatenate([h.max(0), h.mean(0)]),
    }
    expected = np.stack([pooled[pooling](encoder.hidden([text])[0]) for text in texts])
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, encoder.width) == expected.shape
    assert np.abs(vectors - expected).max() < 1e-5


def test_a_cut_text_keeps_its_first_tokens_and_its_end(encoder: TextEncoder) -> None:
    text = " ".join(texts_of(1500, seed=3))
    assert len(text) > 100_000
    first, last = (encoder.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    encoder.tokenizer.no_truncation()
    ids = encoder.tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) > 10_000
    tokens = encoder.tokens([text])
    assert tokens.tokens.tolist() == [first, *ids[: encoder.max_length - 2], last]
    assert np.array_equal(encoder.encode([text]), encoder.embed(tokens))


def test_hidden_is_in_the_order_of_the_texts(encoder: TextEncoder) -> None:
    texts = texts_of(40)
    states = encoder.hidden(texts)
    for number in (0, 31, 32, 39):  # either side of the step from one batch to the next
        assert np.abs(states[number] - encoder.hidden([texts[number]])[0]).max() < 1e-5


def test_probabilities_are_shares_of_the_whole_vocabulary(encoder: TextEncoder) -> None:
    ((words,),) = encoder.fill_mask(["tea [MASK] cream"], k=10_000)
    shares = [word.probability for word in words]
    assert len(words) == encoder.config.vocab_size and shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert encoder.fill_mask(["tea [MASK] cream"], k=2) == [[words[:2]]]


def test_the_text_without_a_mask_is_named_beyond_the_first_batch(encoder: TextEncoder) -> None:
    with pytest.raises(UserError, match=r"^text 34 has no \[MASK\]"):
        encoder.fill_mask(["red [MASK]"] * 33 + ["red"])


def test_a_checkpoint_without_prompts_says_so(encoder: TextEncoder) -> None:
    bare = TextEncoder(dataclasses.replace(encoder.checkpoint, sentence=Settings(max_length=32)))
    with pytest.raises(UserError, match="no prompt 'query' in this checkpoint: it has none"):
        bare.encode(["shoe"], prompt="query")
    assert np.array_equal(bare.encode(["shoe"], prompt=""), bare.encode(["shoe"]))


def test_saving_after_encoding_writes_no_truncation(encoder: TextEncoder, tmp_path: Path) -> None:
    """Other libraries would cut every text by it, whatever length they are asked for."""
    encoder.encode(["red shoe"])
    encoder.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert written["truncation"] is None and written["padding"] is None
    assert encoder.tokens(["red " * 100]).lengths.tolist() == [encoder.max_length]  # saving does not end it here
