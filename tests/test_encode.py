"""`fusionjax encode`: every line its row, through kills and odd bytes; mistakes cost nothing and are said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionjax import TextEncoder, encode
from fusionjax.encode import Lines, encode_file
from fusionjax.errors import UserError
from fusionjax.hub.sentence import Settings
from tests.tiny_bert import write_tiny_bert
from tests.trained import Cli, one_clear_line

LINES = ["red lipstick", "", "哑光 口红", "mug", "  blue  shoe ", "tea", "face cream cup"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("encode") / "bert")


@pytest.fixture(scope="module")
def encoder(bert: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(bert)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "written",
    [
        "\n".join(LINES).encode() + b"\n",
        "\n".join(LINES).encode(),  # no line feed at the end
        "\r\n".join(LINES).encode() + b"\r\n",
        b"\xef\xbb\xbf" + "\n".join(LINES).encode(),
    ],
    ids=["plain", "no final newline", "CRLF", "BOM"],
)
def test_every_line_is_a_row(written: bytes, cli: Cli, bert: Path, encoder: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(written)
    out = tmp_path / "deep" / "vectors.npy"
    code, said, _ = cli("encode", "--checkpoint", str(bert), str(tmp_path / "texts.txt"), "-o", str(out))
    assert (code, said) == (0, f"{out}: 7 vectors of 16\n")
    vectors = np.load(out)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, encoder.encode(LINES))
    assert sorted(file.name for file in out.parent.iterdir()) == ["vectors.npy"]


def test_bytes_that_are_not_utf8(cli: Cli, bert: Path, encoder: TextEncoder, tmp_path: Path) -> None:
    file, out = tmp_path / "texts.txt", tmp_path / "vectors.npy"
    file.write_bytes(b"red\ntea \xff cup\nmug\n")
    words = ("encode", "--checkpoint", str(bert), str(file), "-o", str(out))
    one_clear_line(cli(*words), r"texts\.txt: line 2: not UTF-8 \(byte 5 of the line is 0xff\).*--on-invalid replace")
    assert list(tmp_path.glob("vectors*")) == []
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbfa\xff\n")
    one_clear_line(cli(*words[:3], str(marked), *words[4:]), r"marked\.txt: line 1: not UTF-8 \(byte 5 of the line is 0xff\)")
    assert cli(*words, "--on-invalid", "replace")[0] == 0
    assert np.array_equal(np.load(out), encoder.encode(["red", "tea \ufffd cup", "mug"]))


def test_mistakes(cli: Cli, bert: Path, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    out = str(tmp_path / "vectors.npy")
    for file, target, checkpoint, said in (
        (str(texts), str(tmp_path / "vectors.txt"), str(bert), r"vectors\.txt: expected a name that ends in \.npy"),
        (str(tmp_path / "empty.txt"), out, str(bert), r"empty\.txt: no line in it"),
        (str(tmp_path / "none.txt"), out, str(bert), r"none\.txt: cannot be read: No such file"),
        (str(tmp_path), out, str(bert), r"cannot be read: Is a directory"),
        (str(texts), out, str(tmp_path / "nowhere"), r"nowhere"),
    ):
        one_clear_line(cli("encode", "--checkpoint", checkpoint, file, "-o", target), said)
    one_clear_line(cli("encode", "--checkpoint", str(bert), str(texts), "-o", out, "--prompt", "query"), "no prompt 'query'")
    assert list(tmp_path.glob("vectors*")) == []
    assert not Path(out).exists()


class Watched:
    """An encoder that counts the texts it is given, and dies before its n-th call."""

    def __init__(self, encoder: TextEncoder, dies_at: int | None = None) -> None:
        self.width, self.dtype = encoder.width, encoder.dtype
        self.inner, self.dies_at, self.calls, self.texts = encoder, dies_at, 0, 0

    def encode(self, texts: list[str], **settings: Any) -> np.ndarray:
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        self.calls += 1
        self.texts += len(texts)
        return self.inner.encode(texts, **settings)


def file_vectors(encoder: Any, texts: Path, out: Path, identity: str = "a") -> np.ndarray:
    encode_file(encoder, Lines(texts), out, identity)
    return np.load(out)


def test_a_killed_run_goes_on_where_it_was(
    encoder: TextEncoder, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BLOCK", 2)
    whole = file_vectors(encoder, texts, tmp_path / "whole.npy")
    out = tmp_path / "vectors.npy"
    with pytest.raises(KeyboardInterrupt):
        file_vectors(Watched(encoder, dies_at=2), texts, out)
    assert not out.exists()
    started: list[tuple[int, int]] = []
    rest: Any = Watched(encoder)
    encode_file(rest, Lines(texts), out, "a", started=lambda total, done: started.append((total, done)))
    assert started == [(7, 4)] and rest.texts == 3
    assert np.array_equal(np.load(out), whole)
    assert sorted(file.name for file in tmp_path.glob("*.npy*")) == ["vectors.npy", "whole.npy"]


@pytest.mark.parametrize("change", ["checkpoint", "text"])
def test_another_task_starts_anew(
    change: str, encoder: TextEncoder, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BLOCK", 2)
    out = tmp_path / "vectors.npy"
    with pytest.raises(KeyboardInterrupt):
        file_vectors(Watched(encoder, dies_at=2), texts, out)
    if change == "text":
        texts.write_text("\n".join(reversed(LINES)) + "\nmore\n", encoding="utf-8")
    anew = Watched(encoder)
    file_vectors(anew, texts, out, "b" if change == "checkpoint" else "a")
    assert anew.texts == (8 if change == "text" else 7)


def test_a_damaged_memory_of_the_last_run_starts_anew(
    encoder: TextEncoder, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BLOCK", 2)
    out = tmp_path / "vectors.npy"
    with pytest.raises(KeyboardInterrupt):
        file_vectors(Watched(encoder, dies_at=2), texts, out)
    (tmp_path / "vectors.npy.part.json").write_text("{", encoding="utf-8")
    anew = Watched(encoder)
    assert np.allclose(file_vectors(anew, texts, out), encoder.encode(LINES), atol=1e-6)
    assert anew.texts == 7


def test_lines_count_and_blocks(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "BLOCK", 3)
    lines = Lines(texts)
    assert lines.count() == 7
    assert [len(block) for block in lines.blocks()] == [3, 3, 1]
    assert list(lines.blocks(5)) == [LINES[5:]]
    with pytest.raises(UserError, match="cannot be read"):
        Lines(texts.with_name("none")).count()


def test_lines_that_are_blank_or_hold_odd_white_space(
    cli: Cli, bert: Path, encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a line feed ends a line: no other character that Python's splitlines would take for an end."""
    monkeypatch.setattr(encode, "BLOCK", 4)
    file, out = tmp_path / "texts.txt", tmp_path / "vectors.npy"
    file.write_bytes("\n\r\nred\u2028shoe\n \ntea\rcup\x0bmug\n\n".encode())
    assert cli("encode", "--checkpoint", str(bert), str(file), "-o", str(out))[:2] == (0, f"{out}: 6 vectors of 16\n")
    assert list(Lines(file).blocks()) == [["", "", "red\u2028shoe", " "], ["tea\rcup\x0bmug", ""]]
    found = np.load(out)
    assert np.abs(found - encoder.encode(["", "", "red\u2028shoe", " ", "tea\rcup\x0bmug", ""])).max() < 1e-5
    assert np.abs(found[0] - found[2]).max() > 0.01


def test_prompt_and_precision_are_the_encoders(cli: Cli, tmp_path: Path, texts: Path) -> None:
    bert = write_tiny_bert(tmp_path / "bert", settings=Settings(max_length=32, prompts={"query": "red "}))
    out = tmp_path / "vectors.npy"
    words = ("encode", "--checkpoint", str(bert), str(texts), "-o", str(out), "--prompt", "query")
    assert cli(*words)[0] == 0
    exact = TextEncoder.from_pretrained(bert).encode(LINES, prompt="query")
    assert np.array_equal(np.load(out), exact)
    assert cli(*words, "--precision", "bfloat16")[0] == 0
    half = np.load(out)
    assert half.dtype == np.float32 and np.array_equal(
        half, TextEncoder.from_pretrained(bert, "bfloat16").encode(LINES, prompt="query")
    )
    assert not np.array_equal(half, exact)


def test_places_that_cannot_be_written(cli: Cli, bert: Path, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "file").touch()
    for out, said in (("folder.npy", r"folder\.npy: a folder"), ("file/vectors.npy", r"vectors\.npy: cannot write there: ")):
        one_clear_line(cli("encode", "--checkpoint", str(bert), str(texts), "-o", str(tmp_path / out)), said)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.npy", "texts.txt"]


def test_the_command_says_where_it_goes_on(
    cli: Cli, bert: Path, encoder: TextEncoder, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BLOCK", 3)
    out, calls = tmp_path / "vectors.npy", []
    whole, inner = file_vectors(encoder, texts, tmp_path / "whole.npy"), TextEncoder.encode

    def dies_in_its_third_block(self: TextEncoder, lines: list[str], **settings: Any) -> np.ndarray:
        calls.append(len(lines))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(self, lines, **settings)

    monkeypatch.setattr(TextEncoder, "encode", dies_in_its_third_block)
    words = ("encode", "--checkpoint", str(bert), str(texts), "-o", str(out))
    code, said, err = cli(*words)
    assert (code, said) == (1, "") and "interrupted" in err and not out.exists()
    code, _, err = cli(*words)
    assert code == 0 and "going on behind line 6 of 7" in err
    assert calls == [3, 3, 1, 1]
    assert np.array_equal(np.load(out), whole)


@pytest.mark.parametrize("other", ["checkpoint", "prompt", "on_invalid", "dtype"])
def test_rows_of_another_task_are_never_taken_over(
    other: str, encoder: TextEncoder, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first task stops half-way, another begins in its place and stops at once, then the first is asked for again."""
    monkeypatch.setattr(encode, "BLOCK", 2)
    out = tmp_path / "vectors.npy"
    changed: dict[str, Any] = {"prompt": ""} if other == "prompt" else {}
    with pytest.raises(KeyboardInterrupt):
        file_vectors(Watched(encoder, dies_at=2), texts, out)
    second: Any = Watched(encoder, dies_at=0)
    if other == "dtype":
        second.dtype = np.dtype("float16")
    lines = Lines(texts, "replace" if other == "on_invalid" else "error")
    begun: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        identity = "b" if other == "checkpoint" else "a"
        encode_file(second, lines, out, identity, **changed, started=lambda _, done: begun.append(done))
    assert begun == [0]
    again = Watched(encoder)
    assert np.abs(file_vectors(again, texts, out) - encoder.encode(LINES)).max() < 1e-5
    assert again.texts == 7


def test_a_finished_run_is_done_anew_and_replaced_whole(
    encoder: TextEncoder, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BLOCK", 2)
    out = tmp_path / "vectors.npy"
    before = file_vectors(encoder, texts, out)
    texts.write_text("tea\n" * 7, encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        file_vectors(Watched(encoder, dies_at=1), texts, out)
    assert np.array_equal(np.load(out), before), "the old file stands until the new one is whole"
    assert np.abs(file_vectors(encoder, texts, out) - encoder.encode(["tea"])).max() < 1e-5
