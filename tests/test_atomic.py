"""A file is written whole or not at all, and never over another one unasked."""

import errno
import os
from pathlib import Path

import pytest

from spf_lora import atomic
from spf_lora.errors import OutputError


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    atomic.write_bytes(target, b"\x00\xff" * 1000)
    assert target.read_bytes() == b"\x00\xff" * 1000


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic.write_text(target, "ein Bärtchen\n")
    assert target.read_bytes() == "ein Bärtchen\n".encode()


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "a.bin", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_an_existing_file_is_refused_and_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists and would be overwritten") as caught:
        atomic.write_bytes(target, b"new")
    assert "--force" in caught.value.hint
    assert target.read_bytes() == b"old"


def test_an_existing_file_is_replaced_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    atomic.write_bytes(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"


def test_a_missing_folder_is_refused_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist") as caught:
        atomic.write_bytes(tmp_path / "missing" / "a.bin", b"new")
    assert "mkdir -p" in caught.value.hint
    assert not (tmp_path / "missing").exists()


def test_a_folder_as_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder, not a file"):
        atomic.write_bytes(tmp_path, b"new", overwrite=True)


def test_a_file_as_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OutputError, match="is a file, so nothing can be written inside"):
        atomic.write_bytes(tmp_path / "a" / "b", b"new")


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched rather than chmod: the superuser, as whom containers run, may write everywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is read-only for you"):
        atomic.write_bytes(tmp_path / "a.bin", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="could not be written: No space left") as caught:
        atomic.write_bytes(target, b"new", overwrite=True)
    assert "free some disk space" in caught.value.hint
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_ctrl_c_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(tmp_path / "a.bin", b"new")
    assert list(tmp_path.iterdir()) == []


def test_the_file_gets_the_mode_the_umask_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        atomic.write_bytes(tmp_path / "a.bin", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


def test_a_folder_is_made_once_and_never_over_a_file(tmp_path: Path) -> None:
    atomic.make_folder(tmp_path / "a" / "b")
    atomic.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "f").write_text("mine")
    for path in (tmp_path / "f", tmp_path / "f" / "g"):
        with pytest.raises(OutputError):
            atomic.make_folder(path)
    with pytest.raises(OutputError, match="could not be written"):
        atomic.make_folder(tmp_path / "no" / "where", parents=False)
    assert (tmp_path / "f").read_text() == "mine"


def test_a_name_too_long_to_be_written_beside_is_refused_first(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / ("ä" * 120), b"")
    with pytest.raises(OutputError, match="is longer than 241 bytes") as caught:
        atomic.check_writable(tmp_path / ("ä" * 121))
    assert caught.value.hint == "choose a shorter file name"


def test_a_folder_that_cannot_be_made_is_refused_and_none_is_made(tmp_path: Path) -> None:
    atomic.check_folder(tmp_path / "a" / "b")
    atomic.check_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file, not a folder"):
        atomic.check_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        atomic.check_folder(tmp_path / "file" / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
