"""A vocabulary found in captions: what excludes each other is a group."""

import random

import pytest

from spf_lora.data.captions import base_prompt, full_prompt, has_target
from spf_lora.data.completion import complete, load_vocabulary, varied
from spf_lora.data.found_vocabulary import found_groups, found_template
from spf_lora.recipe.schema import Attribute

BEARD = Attribute(name="beard", target_text="a beard", aliases=("beard", "bearded"))
PHRASES = [
    "a portrait of a man, black hair, long hair, a blue shirt, a beard",
    "a portrait of a man, red hair, long hair, a white shirt, a beard",
    "a portrait of a man, black hair, short hair, a blue shirt, a beard",
    "a portrait of a man, red hair, short hair, a white shirt, a beard",
]
TAGS = [
    "1boy, black_hair, long_hair, beard, outdoors, ^_^",
    "1boy, red_hair, long_hair, beard, indoors",
    "1girl, black_hair, short_hair, beard, outdoors",
    "1girl, red_hair, short_hair, beard, indoors",
]
SENTENCES = [
    "A man with black hair and a beard stands in front of a grey wall.",
    "A man with red hair and a beard is sitting in front of a white wall.",
    "A bearded man with black hair stands in front of a white wall.",
    "A bearded man with red hair is standing in front of a grey wall.",
]
WRITTEN = {"phrases": PHRASES, "tags": TAGS, "sentences": SENTENCES}


def without(captions):
    return [base_prompt(caption, BEARD) for caption in captions]


@pytest.mark.parametrize("kind", WRITTEN)
def test_kinds_of_one_thing_are_a_group_and_the_target_is_in_none(kind):
    groups = found_groups(without(WRITTEN[kind]))
    assert {"black hair", "red hair"} in map(set, groups)
    assert not any(has_target(phrase, BEARD) for group in groups for phrase in group)


def test_what_one_caption_holds_together_is_in_two_groups():
    groups = found_groups(without(PHRASES))
    assert [set(group) for group in groups] == [
        {"a blue shirt", "a white shirt"},
        {"black hair", "red hair"},
        {"long hair", "short hair"},
    ]


def test_a_phrase_is_shown_behind_what_captions_begin_with():
    groups = found_groups(without(PHRASES))
    assert found_template(without(PHRASES), groups) == "a portrait of a man, {}"
    assert found_template([], ()) == "a picture, {}"


@pytest.mark.parametrize("captions", [[], [""], ["a man, a hat"] * 9, ["A man is here."] * 9])
def test_captions_that_are_all_alike_have_no_group(captions):
    assert load_vocabulary("auto", captions).groups == ()


@pytest.mark.parametrize("kind", WRITTEN)
def test_captions_of_each_kind_lose_the_target_are_completed_and_varied(kind):
    vocabulary = load_vocabulary("auto", without(WRITTEN[kind]))
    hair = next(i for i, group in enumerate(vocabulary.groups) if "red hair" in group)
    seen = ["red hair" if i == hair else None for i in range(len(vocabulary.groups))]
    for caption in WRITTEN[kind]:
        base = base_prompt(caption, BEARD)
        assert not has_target(base, BEARD)
        assert has_target(full_prompt(base, BEARD), BEARD)
        assert "black hair" in base or "red hair" in base, "what stays is spoken of as before"
        bare = base.replace("black hair", "a hat").replace("red hair", "a hat")
        assert "red hair" in complete(bare, BEARD, vocabulary, seen)
        rng = random.Random(0)
        prompts = [varied(base, BEARD, vocabulary, rng) for _ in range(40)]
        assert not any("black hair" in one and "red hair" in one for one in prompts)
        assert {"black hair", "red hair"} == {
            phrase for one in prompts for phrase in ("black hair", "red hair") if phrase in one
        }


def test_a_tag_as_booru_sites_have_it_is_written_with_spaces():
    assert base_prompt("1boy, long_beard, black_hair, saber_(fate), ^_^", BEARD) == (
        "1boy, black hair, saber (fate), ^_^"
    )
