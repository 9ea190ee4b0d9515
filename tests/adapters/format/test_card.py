import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import (
    KEY,
    Card,
    file_metadata,
    from_metadata,
    to_json,
)
from spf_lora.adapters.format.privacy import leaks, without_leaks
from spf_lora.errors import AdapterFileError
from spf_lora.recipe.digest import canonical_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(max_examples=30)
@given(recipe=st.dictionaries(st.text(max_size=6), JSON, max_size=4), text=st.text(max_size=20))
def test_a_card_comes_back_as_it_was(recipe, text):
    card = Card("smile", text, text, "sd15:1", recipe=recipe, parents=("a", "b"), seed=3)
    assert from_metadata({KEY: to_json(card)}) == card


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4))
def test_equal_values_have_one_json_text_whatever_their_order(value):
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_a_file_without_a_card_has_none():
    assert from_metadata({"ss_v2": "False"}) is None


def altered(card, **fields):
    return {KEY: json.dumps({**json.loads(to_json(card)), **fields})}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"recipe": {"steps": 1}}, "does not match the recipe's own hash"),
        ({"format_version": 2}, "version 2, this is 1"),
        ({"parents": "ab"}, "its parents is of the wrong type"),
        ({"parents": [1]}, "parents are not all text"),
        ({"extra": 1}, "keys are not those of a card"),
        ({"versions": {"torch": 2}}, "its versions are not all text"),
        ({"metrics": {"response": "high"}}, "its metrics.response is no number"),
        ({"metrics": {"response": True}}, "its metrics.response is no number"),
        ({"metrics": {"dose": 1e9}}, r"its metrics.dose is 1e\+09, not in \[1e-06, 1000\]"),
        ({"metrics": {"start_percent": 1.0}}, r"start_percent is 1, not in \[0, 0.99\]"),
    ],
)
def test_an_altered_card_is_refused(card, fields, reason):
    with pytest.raises(AdapterFileError, match=reason):
        from_metadata(altered(card, **fields))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"steps":100', '"steps":1e999', "recipe.steps is not a finite number"),
        ('"steps":100', '"steps":NaN', "recipe.steps is not a finite number"),
        ('"response":0.25', '"dose":1e999', "metrics.dose is not a finite number"),
        ('"seed":7', f'"seed":{"7" * 40}', "seed is a number that fits no 64 bits"),
        ('"steps":100', f'"steps":{"[" * 99}{"]" * 99}', "nests too deep"),
        ('"steps":100', r'"steps":"\ud800"', "recipe.steps is no text in UTF-8"),
    ],
)
def test_a_card_is_refused_with_its_file_and_the_place(card, old, new, reason):
    text = to_json(card)
    assert old in text
    with pytest.raises(AdapterFileError, match=f"^a.safetensors: the spf_lora card .*{reason}"):
        from_metadata({KEY: text.replace(old, new)}, path=Path("a.safetensors"))


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "null", '{"a": 1}', "1" * 2_000_000])
def test_a_card_that_is_none_is_refused(text):
    with pytest.raises(AdapterFileError, match="card cannot be used"):
        from_metadata({KEY: text})


def test_the_full_metadata_has_every_entry_the_apps_look_for_and_is_all_text(card):
    found = file_metadata(
        card,
        rank=4,
        alpha=2.0,
        title="Beard",
        author="somebody",
        description="adds a beard",
        date="2026-01-01",
        license_name="apache-2.0",
        usage_hint="0.5 to 1",
        tag_frequency={"set": {"beard": 3}},
    )
    assert all(isinstance(text, str) for text in found.values())
    assert found["modelspec.sai_model_spec"] == "1.0.1"
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert found["modelspec.trigger_phrase"] == "a beard"
    assert found["modelspec.merged_from"] == "ab" * 32
    assert found["ss_base_model_version"] == "sd_v1"
    assert found["ss_output_name"] == "Beard"
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("4", "2")
    assert json.loads(found["ss_tag_frequency"]) == {"set": {"beard": 3}}
    assert from_metadata(found) == card


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_the_card_survives_every_layout(tmp_path, make_adapter, full_metadata, card, layout):
    path = tmp_path / ("a" if layout == "peft" else "a.safetensors")
    write_adapter(make_adapter(metadata=full_metadata), path, layout=layout)
    assert from_metadata(read_adapter(path).metadata) == card


def test_the_recipe_hash_follows_the_recipe_alone(card):
    other = dataclasses.replace(card, seed=8, metrics={})
    assert other.recipe_hash == card.recipe_hash
    assert dataclasses.replace(card, recipe={"steps": 2}).recipe_hash != card.recipe_hash


PATHS = ["/home/ada/x.png", "C:\\loras\\x.png", "~/x.png", "\\\\nas\\share\\x.png", "/mnt/d/x.png"]


@pytest.mark.parametrize("path", PATHS)
def test_a_local_path_is_found_and_cut_to_its_last_part(path):
    text = f"trained on {path}, twice"
    assert leaks(text) == [path]
    assert without_leaks(text) == "trained on x.png, twice"


@pytest.mark.parametrize(
    "text", ["a/b", "https://civitai.com/data/1", "1/2", "ratio 3:4", "unet.mid_block", "{'a': 1}"]
)
def test_what_is_no_local_path_is_left_alone(text):
    assert leaks(text) == []
    assert without_leaks(text) == text
