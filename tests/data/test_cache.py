"""The cache gives what was computed, notices damage, and never stands in the way."""

import multiprocessing
import time
from pathlib import Path

import pytest
import torch

from spf_lora import atomic
from spf_lora.data.cache import TensorCache, cache_folder, cache_size, clear_cache, content_key
from spf_lora.errors import OutputError

KEY = content_key("vae", b"pixels")


def never() -> torch.Tensor:
    raise AssertionError("was computed again")


def entry(folder: Path) -> Path:
    return folder / KEY[:2] / f"{KEY}.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_was_made_is_found_again_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    made = torch.randn(4, 8, 8).to(dtype)
    assert torch.equal(TensorCache(tmp_path).get(KEY, lambda: made), made)
    again = TensorCache(tmp_path)
    found = again.get(KEY, never)
    assert found.dtype == dtype
    assert torch.equal(found, made)
    assert (again.found, again.made, again.damaged) == (1, 0, [])


def test_another_content_is_another_entry() -> None:
    keys = {content_key("a", "b"), content_key("ab"), content_key("a", "b", ""), content_key("b")}
    assert len(keys) == 4
    assert content_key("a", b"b") == content_key("a", "b")


def _flip(data: bytearray) -> bytearray:
    data[-3] ^= 1
    return data


@pytest.mark.parametrize(
    "damage",
    [_flip, lambda data: data[:-9], lambda data: b"", lambda data: b"\x80\x04pickled"],
    ids=["one bit", "cut short", "empty", "another file"],
)
def test_a_damaged_entry_is_noticed_and_made_again(tmp_path: Path, damage) -> None:
    made = torch.arange(12.0)
    TensorCache(tmp_path).get(KEY, lambda: made)
    entry(tmp_path).write_bytes(damage(bytearray(entry(tmp_path).read_bytes())))
    cache = TensorCache(tmp_path)
    assert torch.equal(cache.get(KEY, lambda: made), made)
    assert cache.damaged == [entry(tmp_path)]
    assert torch.equal(TensorCache(tmp_path).get(KEY, never), made)


def test_an_entry_of_another_key_cannot_take_its_place(tmp_path: Path) -> None:
    other = content_key("other")
    TensorCache(tmp_path).get(other, lambda: torch.ones(3))
    entry(tmp_path).parent.mkdir(exist_ok=True)
    (tmp_path / other[:2] / f"{other}.safetensors").rename(entry(tmp_path))
    cache = TensorCache(tmp_path)
    assert torch.equal(cache.get(KEY, lambda: torch.zeros(3)), torch.zeros(3))
    assert cache.damaged


def test_a_disk_that_cannot_be_written_is_told_once_and_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OutputError(f"{path} could not be written: No space left on device", hint="free some")

    monkeypatch.setattr("spf_lora.data.cache.write_bytes", full)
    cache = TensorCache(tmp_path)
    for number in range(3):
        made = torch.full((2,), float(number))
        assert torch.equal(cache.get(content_key(str(number)), lambda made=made: made), made)
    assert cache.trouble is not None
    assert "No space left on device" in cache.trouble


def test_a_file_in_the_place_of_the_folder_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine")
    cache = TensorCache(tmp_path / "cache")
    assert torch.equal(cache.get(KEY, lambda: torch.ones(2)), torch.ones(2))
    assert cache.trouble is not None
    assert (tmp_path / "cache").read_text() == "mine"


def test_a_kill_while_writing_leaves_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt("the moment")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt, match="the moment"):
            TensorCache(tmp_path).get(KEY, lambda: torch.ones(2))
    assert not entry(tmp_path).exists()
    assert torch.equal(TensorCache(tmp_path).get(KEY, lambda: torch.ones(2)), torch.ones(2))


def _fill(folder: Path, start: float) -> None:
    time.sleep(max(0.0, start - time.time()))
    for number in range(60):
        made = TensorCache(folder).get(
            content_key(str(number)), lambda number=number: torch.full((500,), float(number))
        )
        assert float(made[0]) == float(made[-1]) == number


def test_two_processes_fill_one_cache_without_harm(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = time.time() + 0.2
    workers = [context.Process(target=_fill, args=(tmp_path, start)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    after = TensorCache(tmp_path)
    for number in range(60):
        after.get(content_key(str(number)), never)
    assert (after.found, after.damaged) == (60, [])
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_variable_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPF_LORA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SPF_LORA_CACHE")
    assert "spf-lora" in cache_folder().parts


def test_clearing_takes_the_entries_and_nothing_else(tmp_path: Path) -> None:
    TensorCache(tmp_path).get(KEY, lambda: torch.ones(2))
    (tmp_path / "mine.txt").write_text("x")
    (tmp_path / "photos").mkdir()
    count, size = cache_size(tmp_path)
    assert count == 1
    assert size > 8
    clear_cache(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "photos"]


def test_an_entry_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(atomic.os, "fsync", waited.append)
    TensorCache(tmp_path).get(KEY, lambda: torch.ones(2))
    assert not waited
    atomic.write_bytes(tmp_path / "kept", b"x")
    assert len(waited) == 1
