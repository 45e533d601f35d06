"""Files are written whole or not at all, whoever else writes them."""

import os
import threading
from pathlib import Path

import pytest

from fusionjax.files import whole, write_json, write_whole


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "名.txt"
    write_whole(file, "a\r\nä\n")
    assert file.read_bytes() == "a\r\nä\n".encode()
    write_whole(file, b"\x00")
    assert file.read_bytes() == b"\x00" and list(file.parent.iterdir()) == [file]


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_whole(file, "old")

    def fails() -> None:
        with whole(file) as temporary:
            temporary.write_text("half", encoding="utf-8")
            assert file.read_text(encoding="utf-8") == "old"
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fails()
    assert file.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [file]


def test_what_is_no_json_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"价格": 1.5})
    assert file.read_text(encoding="utf-8") == '{\n  "价格": 1.5\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(file, {"loss": float("nan")})
    assert "1.5" in file.read_text(encoding="utf-8")


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    write_whole(file, "old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, "new")
    assert file.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [file]


def test_two_threads_may_write_one_file_at_once(tmp_path: Path) -> None:
    file, meet, ended = tmp_path / "a", threading.Barrier(2, timeout=60), []

    def write(text: str) -> None:
        with whole(file) as temporary:
            meet.wait()  # both are in the block
            temporary.write_text(text, encoding="utf-8")
            meet.wait()
        ended.append(text)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    # Which rename came last is not known; that neither failed, and that the file is one of them, is.
    assert sorted(ended) == ["one", "two"] and file.read_text(encoding="utf-8") in ended
    assert list(tmp_path.iterdir()) == [file]
