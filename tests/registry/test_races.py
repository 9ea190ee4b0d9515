"""What a change depends on is looked up under the lock: nothing moves between look and change."""

import threading
from contextlib import contextmanager

import pytest

from spf_lora import locks
from spf_lora.atomic import write_text
from spf_lora.errors import OutputError, SpfError
from spf_lora.registry import edit, stack_edit
from spf_lora.registry.locks import LOCK
from spf_lora.registry.stack import adapters_of, find_stack


def outcome_of_a_race(folder, change, meanwhile):
    """Start a change while the lock is held, do something else meanwhile, let it go on."""
    told, waiting, held = [], threading.Event(), locks._held

    @contextmanager
    def noticed(*words):
        waiting.set()
        with held(*words) as lock:
            yield lock

    def run():
        try:
            told.append(change())
        except SpfError as error:
            told.append(error)

    thread = threading.Thread(target=run)
    with pytest.MonkeyPatch.context() as patched, locks.locked(folder / LOCK):
        patched.setattr(locks, "_held", noticed)
        thread.start()
        assert waiting.wait(20), "it changed a folder without its lock"
        meanwhile()
        assert not told
    thread.join(20)
    return told[0]


def gone(path):
    return lambda: path.replace(path.with_name("gone"))


RACES = {
    "create a stack with": (
        lambda shelf: stack_edit.create("new", [("beard", 1.0)], shelf),
        "beard.safetensors",
        "no adapter is called beard",
    ),
    "add to a stack": (
        lambda shelf: stack_edit.add("portrait", "hat", 1.0, shelf),
        "hat.safetensors",
        "no adapter is called hat",
    ),
    "add to a stack that goes": (
        lambda shelf: stack_edit.add("portrait", "hat", 1.0, shelf),
        "portrait.stack.toml",
        "the stack portrait was removed meanwhile",
    ),
    "drop from a stack that goes": (
        lambda shelf: stack_edit.drop("portrait", "beard", shelf),
        "portrait.stack.toml",
        "the stack portrait was removed meanwhile",
    ),
    "remove a stack that goes": (
        lambda shelf: stack_edit.remove("portrait", shelf),
        "portrait.stack.toml",
        "the stack portrait was removed meanwhile",
    ),
    "remove an adapter that goes": (
        lambda shelf: edit.remove("hat", shelf),
        "hat.safetensors",
        "adapter hat was removed meanwhile",
    ),
    "rename an adapter that goes": (
        lambda shelf: edit.rename("hat", "cap", shelf),
        "hat.safetensors",
        "adapter hat was removed meanwhile",
    ),
}


@pytest.mark.parametrize("race", RACES)
def test_what_went_between_look_and_change_is_told_and_nothing_is_written(shelf, portrait, race):
    change, name, told = RACES[race]
    before = {path.name for path in shelf.iterdir()} - {name}
    error = outcome_of_a_race(shelf, lambda: change(shelf), gone(shelf / name))
    assert told in str(error)
    assert {path.name for path in shelf.iterdir()} == {*before, "gone", LOCK}


def test_an_adapter_that_a_stack_came_to_need_is_not_removed(shelf, portrait):
    def create():
        # as another process would, which holds the lock now
        text = (shelf / "portrait.stack.toml").read_text()
        write_text(shelf / "another.stack.toml", text)
        (shelf / "portrait.stack.toml").unlink()

    error = outcome_of_a_race(shelf, lambda: edit.remove("beard", shelf), create)
    assert "beard is part of the stack another" in str(error)
    assert [known.name for known, _ in adapters_of(find_stack("another", shelf), shelf)] == [
        "beard",
        "glasses",
    ]


def test_a_stack_and_an_adapter_in_two_folders_wait_for_each_other(shelf, portrait, ids):
    """The adapter lies in ./adapters, the new stack goes to --registry: both locks are held."""
    near = shelf.parent / "adapters"
    near.mkdir()
    (shelf / "hat.safetensors").replace(near / "hat.safetensors")
    error = outcome_of_a_race(
        near,
        lambda: stack_edit.create("new", [("hat", 1.0)], shelf),
        gone(near / "hat.safetensors"),
    )
    assert "no adapter is called hat" in str(error)


def test_a_name_that_was_taken_between_look_and_change_is_not_overwritten(shelf, portrait):
    def take():
        (shelf / "cap.safetensors").write_bytes(b"another")

    source = shelf / "hat.safetensors"
    for change in (
        lambda: edit.add(source, "cap", shelf),
        lambda: edit.rename("hat", "cap", shelf),
        lambda: stack_edit.create("cap", [("hat", 1.0)], shelf),
    ):
        error = outcome_of_a_race(shelf, change, take)
        assert "the name cap is taken" in str(error)
        assert (shelf / "cap.safetensors").read_bytes() == b"another"
        (shelf / "cap.safetensors").unlink()


def test_a_file_that_came_to_be_without_the_lock_is_not_overwritten(shelf, portrait, monkeypatch):
    """As a training or a merge writes it, which knows of no registry."""
    monkeypatch.setattr(edit, "refuse_taken", lambda *_: None)
    (shelf / "cap.safetensors").write_bytes(b"another")
    with pytest.raises(OutputError, match="written by another process meanwhile"):
        edit.add(shelf / "hat.safetensors", "cap", shelf)
    assert (shelf / "cap.safetensors").read_bytes() == b"another"
    assert not [path for path in shelf.iterdir() if path.suffix == ".add"]
