"""Stacks: what is put together stays what it was, or is refused."""

import errno
import os

import pytest

from spf_lora.errors import AdapterFileError, OutputError, RegistryError, StackError
from spf_lora.registry import edit, names, stack_edit
from spf_lora.registry.stack import adapters_of, find_stack, read_stack, stack_names, state_of


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_what_was_created_is_what_is_read(shelf, portrait, ids):
    found = find_stack("portrait", shelf)
    assert found == portrait
    assert found.base_id == "base:1"
    assert [(one.name, one.content_id, one.strength) for one in found.members] == [
        ("beard", ids["beard"], 1.0),
        ("glasses", ids["glasses"], -0.5),
    ]
    assert [name for name, _ in stack_names(shelf)] == ["portrait"]
    assert [entry.name for entry in names.entries(shelf)] == ["beard", "glasses", "hat"]


def test_the_adapters_come_in_order_with_their_strengths(shelf, portrait):
    found = adapters_of(portrait, shelf)
    assert [(known.path, strength) for known, strength in found] == [
        (shelf / "beard.safetensors", 1.0),
        (shelf / "glasses.safetensors", -0.5),
    ]


def test_add_puts_on_top_and_drop_takes_out(shelf, portrait):
    stack_edit.add("portrait", "hat", 0.8, shelf)
    left = stack_edit.drop("portrait", "beard", shelf)
    assert [(one.name, one.strength) for one in left.members] == [("glasses", -0.5), ("hat", 0.8)]
    assert find_stack("portrait", shelf) == left


def test_a_stack_means_the_adapter_it_was_made_with_wherever_that_lies(shelf, portrait, put):
    near, far = shelf / "beard.safetensors", shelf.parent / "adapters" / "beard.safetensors"
    far.parent.mkdir()
    near.replace(far)
    put("beard", 7)
    (known, _), _ = adapters_of(find_stack("portrait", shelf), shelf)
    assert known.path.resolve() == far


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (lambda shelf, put: (shelf / "beard.safetensors").unlink(), "missing", "no adapter has"),
        (lambda shelf, put: put("beard", 9), "changed", "it has changed since"),
        (
            lambda shelf, put: (shelf / "beard.safetensors").write_bytes(b"x"),
            "changed",
            "it has changed since",
        ),
    ],
)
def test_a_stack_whose_adapter_is_not_what_it_was_is_refused(
    shelf, portrait, put, change, state, reason
):
    change(shelf, put)
    assert state_of(portrait.members[0], shelf)[0] == state
    with pytest.raises(StackError, match=rf"needs beard with the content id .*{reason}"):
        adapters_of(portrait, shelf)
    assert stack_edit.drop("portrait", "beard", shelf).members == portrait.members[1:]


def test_the_same_adapter_written_anew_is_still_the_same(shelf, portrait, put):
    put("beard", 0, card=False)
    assert state_of(portrait.members[0], shelf)[0] == "ok"


def test_an_adapter_of_another_base_is_refused(shelf, portrait, put):
    put("hat", 2, base_id="base:2")
    with pytest.raises(AdapterFileError, match="hat was trained on the base base:2"):
        stack_edit.add("portrait", "hat", 1.0, shelf)
    with pytest.raises(AdapterFileError, match="hat was trained on the base base:2"):
        stack_edit.create("other", [("beard", 1.0), ("hat", 1.0)], shelf)
    path = portrait.path
    path.write_text(path.read_text().replace("base:1", "base:3"))
    with pytest.raises(AdapterFileError, match="beard was trained on the base base:1"):
        adapters_of(find_stack("portrait", shelf), shelf)


@pytest.mark.parametrize("strength", [4.01, -5.0, float("nan"), float("inf")])
def test_a_strength_out_of_range_is_refused(shelf, portrait, strength):
    with pytest.raises(StackError, match=r"is not in \[-4, 4\]"):
        stack_edit.add("portrait", "hat", strength, shelf)
    with pytest.raises(StackError, match=r"is not in \[-4, 4\]"):
        stack_edit.create("other", [("hat", strength)], shelf)
    assert find_stack("portrait", shelf) == portrait


def test_an_empty_stack_is_refused(shelf, portrait):
    with pytest.raises(StackError, match="would be empty"):
        stack_edit.create("none-yet", [], shelf)
    stack_edit.drop("portrait", "beard", shelf)
    with pytest.raises(StackError, match="would be empty"):
        stack_edit.drop("portrait", "glasses", shelf)
    assert len(find_stack("portrait", shelf).members) == 1


def test_an_adapter_is_in_a_stack_once_under_whatever_name(shelf, portrait, put):
    with pytest.raises(StackError, match="beard is already in the stack"):
        stack_edit.add("portrait", "beard", 1.0, shelf)
    put("stubble", 0)
    with pytest.raises(StackError, match="stubble is already in the stack portrait, as beard"):
        stack_edit.add("portrait", "stubble", 1.0, shelf)


def test_what_is_not_in_a_stack_is_not_dropped(shelf, portrait):
    with pytest.raises(StackError, match="hat is not in the stack portrait"):
        stack_edit.drop("portrait", "hat", shelf)


def test_an_adapter_stands_on_those_it_was_trained_onto(shelf, portrait, put, ids):
    put("hat", 2, onto=[ids["glasses"]])
    with pytest.raises(
        StackError, match=f"not below it in the stack: content id {ids['glasses'][:12]}"
    ):
        stack_edit.create("other", [("hat", 1.0), ("glasses", 1.0)], shelf)
    stack_edit.add("portrait", "hat", 1.0, shelf)
    with pytest.raises(StackError, match="hat was trained on top of glasses"):
        stack_edit.drop("portrait", "glasses", shelf)
    assert len(stack_edit.drop("portrait", "glasses", shelf, orphans=True).members) == 2
    assert stack_edit.create("other", [("hat", 1.0)], shelf, orphans=True).members


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/etc/passwd", "X", "", "con", "embedded", "a" * 65]
)
def test_a_stack_has_a_name_not_a_path(shelf, portrait, name):
    for change in (
        lambda: stack_edit.create(name, [("beard", 1.0)], shelf),
        lambda: stack_edit.add(name, "hat", 1.0, shelf),
        lambda: stack_edit.drop(name, "beard", shelf),
        lambda: stack_edit.remove(name, shelf),
        lambda: find_stack(name, shelf),
    ):
        with pytest.raises(RegistryError, match=r"is no name|reserved word"):
            change()


def test_adapters_and_stacks_share_their_names(shelf, portrait):
    for taken in ("portrait", "beard"):
        with pytest.raises(RegistryError, match=f"the name {taken} is taken"):
            stack_edit.create(taken, [("hat", 1.0)], shelf)
    with pytest.raises(RegistryError, match="the name portrait is taken"):
        edit.rename("hat", "portrait", shelf)
    with pytest.raises(RegistryError, match="the name portrait is taken"):
        edit.add(shelf / "hat.safetensors", "portrait", shelf)


def test_unknown_stacks_and_adapters_are_refused_with_a_near_name(shelf, portrait):
    with pytest.raises(RegistryError, match="no stack is called potrait; did you mean portrait"):
        find_stack("potrait", shelf)
    with pytest.raises(RegistryError, match="no adapter is called nobody"):
        stack_edit.add("portrait", "nobody", 1.0, shelf)


def test_an_adapter_that_a_stack_needs_is_not_removed_or_renamed_unforced(shelf, portrait):
    for change in (
        lambda **how: edit.remove("beard", shelf, **how),
        lambda **how: edit.rename("glasses", "specs", shelf, **how),
    ):
        with pytest.raises(RegistryError, match="is part of the stack portrait"):
            change()
        change(force=True)
    edit.remove("hat", shelf)
    assert [entry.name for entry in names.entries(shelf)] == ["specs"]


def test_an_adapter_that_only_shares_its_name_with_one_of_a_stack_may_go(shelf, portrait, put):
    put("beard", 9)
    edit.remove("beard", shelf)
    assert not (shelf / "beard.safetensors").exists()


def test_a_removed_stack_is_in_the_trash_and_its_adapters_stay(shelf, portrait):
    text = portrait.path.read_text()
    trashed = stack_edit.remove("portrait", shelf)
    assert trashed.read_text() == text
    assert list(stack_names(shelf)) == []
    edit.remove("beard", shelf)


def test_shipped_stacks_and_those_of_other_registries_stay(shelf, portrait):
    shipped = shelf.parent / "shipped"
    shelf.rename(shipped)
    with pytest.raises(RegistryError, match="portrait came with spf-lora"):
        stack_edit.drop("portrait", "beard")
    shelf.mkdir()
    with pytest.raises(RegistryError, match="has no portrait; it is in"):
        stack_edit.remove("portrait", shelf)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("format_version = 1", "format_version = 2", "it has version 2, this is 1"),
        ("strength = 1.0", "strength = 9", "strength is 9.0, but must be at most 4"),
        ("strength = 1.0", "strength = true", "must be a number"),
        ("strength = 1.0", "weight = 1.0", "weight is not a known key"),
        ('name = "beard"', 'name = "../beard"', "must be an adapter's name"),
        ('name = "glasses"', 'name = "beard"', "name 'beard' is there twice"),
        ('content_id = "', 'content_id = "x', "must be 64 hex digits"),
        ("[[adapters]]", "[[adaptors]]", "it has no adapters"),
        ('base_id = "base:1"', "", "base_id is missing"),
        ("[[adapters]]", "[[adapters]", "cannot be read"),
        ("strength = 1.0", f"strength = 0x{'f' * 5000}", "a number of thousands of digits"),
    ],
)
def test_a_damaged_stack_file_is_refused_with_the_reason(shelf, portrait, old, new, reason):
    portrait.path.write_text(portrait.path.read_text().replace(old, new))
    with pytest.raises(StackError, match=reason):
        read_stack("portrait", portrait.place)
    edit.remove("beard", shelf)


def test_a_read_only_registry_keeps_what_it_has(shelf, portrait, monkeypatch):
    before = content(shelf)
    monkeypatch.setattr(os, "access", lambda *_: False)
    for change in (
        lambda: stack_edit.create("other", [("hat", 1.0)], shelf),
        lambda: stack_edit.add("portrait", "hat", 1.0, shelf),
        lambda: stack_edit.drop("portrait", "beard", shelf),
        lambda: stack_edit.remove("portrait", shelf),
    ):
        with pytest.raises(OutputError, match="read-only"):
            change()
    assert content(shelf) == before


def test_a_full_disk_keeps_what_is_there(shelf, portrait, monkeypatch):
    before = content(shelf)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for change in (
        lambda: stack_edit.create("other", [("hat", 1.0)], shelf),
        lambda: stack_edit.add("portrait", "hat", 1.0, shelf),
    ):
        with pytest.raises(OutputError, match="No space left"):
            change()
    assert content(shelf) == before


def test_an_adapter_without_a_card_goes_into_any_stack(shelf, portrait, put):
    put("plain", 5, card=False)
    assert stack_edit.create("bare", [("plain", 1.0)], shelf).base_id == ""
    stack_edit.add("bare", "beard", 1.0, shelf)
    assert find_stack("bare", shelf).base_id == "base:1"


def test_a_base_id_that_no_file_can_hold_is_refused(shelf, put):
    put("odd", 5, base_id="a\nb")
    with pytest.raises(StackError, match="the base that odd names is"):
        stack_edit.create("other", [("odd", 1.0)], shelf)
