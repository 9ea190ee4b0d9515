"""What a new adapter is trained on top of: found whole, or refused."""

import json

import pytest

from spf_lora.adapters.format.card import Card
from spf_lora.errors import AdapterFileError, RegistryError, StackError
from spf_lora.registry import stack_edit
from spf_lora.registry.onto import below, check_base, refuse_cycle
from spf_lora.registry.stack import onto_members


def names(under):
    return [(known.name, strength) for known, strength in under.members]


def test_a_stack_is_all_its_adapters_in_order(shelf, portrait, ids):
    under = below("portrait", shelf)
    assert names(under) == [("beard", 1.0), ("glasses", -0.5)]
    assert under.content_ids == (ids["beard"], ids["glasses"])


def test_an_adapter_works_as_name_or_file_with_a_strength(shelf, ids):
    assert names(below("beard", shelf)) == [("beard", 1.0)]
    assert names(below("beard:0.5", shelf)) == [("beard", 0.5)]
    assert names(below(str(shelf / "hat.safetensors"), shelf)) == [("hat", 1.0)]


def test_an_adapter_comes_with_those_it_was_trained_onto(shelf, put, ids):
    put("hat", 2, onto=[ids["glasses"]])
    under = below("hat:0.8", shelf)
    assert names(under) == [("glasses", 1.0), ("hat", 0.8)]
    card = Card("x", "x", "x", "", recipe={"onto": under.as_rows()}, parents=under.content_ids)
    assert [one.content_id for one in onto_members(card)] == list(card.parents)


@pytest.mark.parametrize(
    ("change", "reason"), [("unlink", "which is not there"), ("retrain", "which has changed since")]
)
def test_a_missing_parent_is_refused(shelf, put, ids, change, reason):
    put("hat", 2, onto=[ids["glasses"]])
    if change == "unlink":
        (shelf / "glasses.safetensors").unlink()
    else:
        put("glasses", 8)
    with pytest.raises(StackError, match=f"hat was trained on top of glasses, {reason}"):
        below("hat", shelf)


def test_nothing_of_that_name_is_refused(shelf, portrait):
    with pytest.raises(RegistryError, match="no adapter is called nobody"):
        below("nobody", shelf)
    with pytest.raises(AdapterFileError, match="does not exist"):
        below("./nobody.safetensors", shelf)
    with pytest.raises(StackError, match="has the strengths of its adapters"):
        below("portrait:0.5", shelf)
    with pytest.raises(AdapterFileError, match="no number from -4 to 4"):
        below("beard:5", shelf)


def test_a_name_that_means_a_stack_and_an_adapter_is_refused(shelf, portrait, put):
    put("portrait", 5)
    with pytest.raises(RegistryError, match="portrait is a stack and an adapter"):
        below("portrait", shelf)


def test_an_attribute_is_not_trained_onto_itself(shelf, portrait, put, ids):
    new = shelf / "new.safetensors"
    refuse_cycle(below("portrait", shelf), "hat", new)
    with pytest.raises(StackError, match="beard cannot be trained onto portrait"):
        refuse_cycle(below("portrait", shelf), "beard", new)
    with pytest.raises(StackError, match="is part of portrait, onto which it would be trained"):
        refuse_cycle(below("portrait", shelf), "hat", shelf / "beard.safetensors")


def test_a_parent_s_parent_is_not_replaced(shelf, put, ids):
    put("hat", 2, onto=[ids["glasses"]])
    stack_edit.create("top", [("hat", 1.0)], shelf, orphans=True)
    with pytest.raises(StackError, match="an adapter of top was trained onto"):
        refuse_cycle(below("top", shelf), "specs", shelf / "glasses.safetensors")


def test_adapters_of_another_base_are_refused(shelf, portrait):
    check_base(below("portrait", shelf), "base:1")
    with pytest.raises(AdapterFileError, match="beard in portrait was trained on the base base:1"):
        check_base(below("portrait", shelf), "base:2")


@pytest.mark.parametrize(
    "rows", ["glasses", [1], [{"name": "x"}], [{"name": "../x", "content_id": "ab" * 32}]]
)
def test_a_card_that_says_its_parents_wrongly_is_refused(rows):
    card = Card("x", "x", "x", "", recipe=json.loads(json.dumps({"onto": rows})))
    with pytest.raises(StackError, match="does not say what the adapter was trained onto"):
        onto_members(card)
