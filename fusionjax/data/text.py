"""Texts → token rows: a WordPiece vocabulary learnt from the training texts, and BERT's tokenisation (Chinese by character)."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from fusionjax.config import schema
from fusionjax.data.shop import Products
from fusionjax.errors import UserError
from fusionjax.files import write_whole

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD = -1
"""Not a row of any vocabulary: whichever number a tokeniser gives its padding token, a token of a text may have it too."""
_LEARN_FROM = 300_000
"""Texts a vocabulary is learnt from at most (an even stride): more does not change it, but costs minutes."""
_BLOCK = 100_000
LANGUAGES = ("zh", "en", "mixed", "none")
_HAN = re.compile("[\u3400-\u9fff]")
_LATIN = re.compile("[A-Za-z]{3}")
_CJK = "\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"([{_CJK}]+)|((?:(?![{_CJK}])[^\W_])+)")


def product_texts(products: Products, fields: Sequence[str]) -> list[str]:
    """One text a product: its non-empty fields joined by a space (category separators dropped)."""
    columns = [getattr(products, field) for field in fields]
    return [" ".join(part.replace(" > ", " ") for part in parts if part) for parts in zip(*columns, strict=True)]


def language(text: str) -> str:
    """One of `LANGUAGES`: has Han characters, Latin words (three letters: `50ml` and `T恤` are none), both, neither."""
    han, latin = _HAN.search(text) is not None, _LATIN.search(text) is not None
    return "mixed" if han and latin else "zh" if han else "en" if latin else "none"


def words(text: str) -> list[tuple[str, str]]:
    """The text in NFKC and lower case, cut into runs of Chinese, Japanese or Korean characters, (run, ""), and words of letters
    and digits of other scripts, ("", word)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


class Tokenizer:
    """A `tokenizers.Tokenizer`: one learnt here, or a checkpoint's."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self.inner = inner
        self.inner.no_padding()

    @property
    def vocab_size(self) -> int:
        return self.inner.get_vocab_size()

    @property
    def mask(self) -> int:
        """Number of the token that hides a word.

        Raises:
          UserError: the vocabulary has none.
        """
        for name in ("[MASK]", "<mask>"):
            if (number := self.inner.token_to_id(name)) is not None:
                return number
        raise UserError("objectives.masked_words: this tokeniser has no mask token")

    @classmethod
    def learn(cls, texts: Sequence[str], vocab_size: int, lowercase: bool) -> "Tokenizer":
        """Learns a WordPiece vocabulary of at most `vocab_size` pieces; the same texts give the same vocabulary.

        Raises:
          UserError: no text has a letter in it.
        """
        stride = -(-len(texts) // _LEARN_FROM) if texts else 1
        sample = [text for text in texts[::stride] if text]
        if not sample:
            raise UserError("no training text to learn a vocabulary from: every product text and query is empty")
        pieces = _learn_pieces(sample, vocab_size - len(SPECIAL), lowercase)
        vocabulary = {piece: row for row, piece in enumerate((*SPECIAL, *pieces))}
        inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
        inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece()
        return cls(_with_template(inner))

    def rows(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """Token rows int32 [n, l], [CLS] … [SEP], cut to `max_length`, padded with −1; l: the longest, rounded up to 8."""
        out = np.full((len(texts), max_length), PAD, np.int32)
        self.inner.enable_truncation(max_length)
        for start, block in _blocks(texts):
            for row, encoding in enumerate(self.inner.encode_batch_fast(block), start):
                ids = encoding.ids
                out[row, : len(ids)] = ids
        longest = int((out != PAD).sum(1).max(initial=2))
        return np.ascontiguousarray(out[:, : min(max_length, -(-longest // 8) * 8)])

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json`, which the Hugging Face libraries read; atomic."""
        self.inner.no_truncation()
        write_whole(folder / "tokenizer.json", self.inner.to_str())

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        file = folder / "tokenizer.json"
        if not file.exists():
            raise UserError(f"{file}: no tokeniser there")
        return cls(tokenizers.Tokenizer.from_file(str(file)))


def _learn_pieces(texts: Sequence[str], size: int, lowercase: bool) -> list[str]:
    """WordPiece vocabulary of at most `size` pieces, the same in every process.

    The library's WordPiece trainer breaks ties by hash order, so two processes learn different vocabularies. Its plain BPE
    trainer does not: we learn merges with it, cut every word of the texts with them, and keep the pieces used most, those
    inside a word as `##piece`. All characters stay, so that nothing common becomes [UNK].
    """
    normalise, split = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in split.pre_tokenize_str(normalise.normalize_str(text)))
    bpe = tokenizers.Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, min_frequency=2, limit_alphabet=100_000)
    bpe.train_from_iterator((word for word in sorted(words) for _ in range(min(words[word], 1000))), trainer)
    used: Counter[str] = Counter()
    ordered = sorted(words)
    for word, encoding in zip(ordered, bpe.encode_batch(ordered), strict=True):
        for place, piece in enumerate(encoding.tokens):
            used[piece if place == 0 else f"##{piece}"] += words[word]
    characters = Counter[str]()
    for word, count in words.items():
        for letter in word:
            # Both forms of a letter: a misspelling may put it where no training word has it. What always stands alone
            # (Chinese characters do) needs one.
            for form in (letter, f"##{letter}") if len(word) > 1 else (letter,):
                characters[form] += count
    alphabet = sorted(characters, key=lambda piece: (-characters[piece], piece))[: size // 2]
    rest = sorted(used.keys() - set(alphabet), key=lambda piece: (-used[piece], piece))[: size - len(alphabet)]
    return alphabet + rest


def _with_template(inner: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, inner.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return inner


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for start in range(0, len(texts), _BLOCK):
        yield start, list(texts[start : start + _BLOCK])


def learn_or_load(config: schema.Text, folder: Path, texts: Sequence[str]) -> Tokenizer:
    """The run's tokeniser: loaded from its folder if a run already wrote it there, else learnt and written."""
    if (folder / "tokenizer.json").exists():
        return Tokenizer.load(folder)
    tokenizer = Tokenizer.learn(texts, config.vocab_size, config.lowercase)
    tokenizer.save(folder)
    return tokenizer
