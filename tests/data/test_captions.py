"""Taking the target out of a caption and putting it in again changes nothing else."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spf_lora.data.captions import (
    base_phrases,
    base_prompt,
    full_prompt,
    has_target,
    join_phrases,
    split_phrases,
)
from spf_lora.data.worlds import portraits
from spf_lora.recipe.files import list_recipes
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.schema import Attribute

BEARD = Attribute(name="beard", target_text="a beard", aliases=("beard", "bearded"))
GLASSES = Attribute(name="glasses", target_text="glasses")
BLONDE = Attribute(
    name="blonde-hair", target_text="blonde hair", replaces=("brown hair", "black hair")
)
ANY_WORD = Attribute(name="curly-hair", target_text="curly hair", replaces=("* hair",))

WORDS = ["a", "the", "man", "with", "and", "in", "hat", "beard", "bearded", "long", "smiling"]
phrase = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(" ".join)
caption = st.lists(phrase, max_size=5).map(", ".join)
tags = st.lists(phrase.filter(lambda p: len(p.split()) < 6), max_size=5).map(", ".join)


def test_an_article_fits_the_word_that_is_left() -> None:
    old = Attribute(name="old", target_text="old", aliases=("elderly",))
    assert base_prompt("an old man with glasses, an apple", old) == "a man with glasses, an apple"
    assert base_prompt("an elderly uncle", old) == "an uncle"


def test_a_caption_is_split_at_commas_and_line_ends() -> None:
    assert split_phrases(" a man ,,a  hat\nred hair,\r\n") == ["a man", "a hat", "red hair"]
    assert split_phrases(" , ") == []


def test_an_accent_written_in_two_characters_is_the_same_accent() -> None:
    attribute = Attribute(name="x", target_text="ein Ba\u0308rtchen")
    assert has_target("Mann, ein Bärtchen", attribute)


@pytest.mark.parametrize(
    "text", ["a man, a beard", "a man with a Beard", "A BEARDED man", "a long beard", "beard"]
)
def test_the_target_is_found_as_whole_words_in_any_case(text: str) -> None:
    assert has_target(text, BEARD)


@pytest.mark.parametrize("text", ["", "a man", "beards", "beardless", "a beard-free man"])
def test_a_part_of_another_word_is_not_the_target(text: str) -> None:
    assert not has_target(text, BEARD)


def test_sunglasses_are_not_glasses() -> None:
    assert not has_target("a woman, sunglasses", GLASSES)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("pale skin, a beard", "pale skin"),
        ("a beard, pale skin", "pale skin"),
        ("a beard", ""),
        ("a man with a beard", "a man"),
        ("a man with a long grey beard", "a man"),
        ("a man with a beard and a hat", "a man with a hat"),
        ("a man with a hat and a beard", "a man with a hat"),
        ("a man with a beard smiling", "a man smiling"),
        ("a bearded man in a hat", "a man in a hat"),
        ("an older bearded man", "an older man"),
        ("a photo of bearded men", "a photo of men"),
        ("with a beard", ""),
        ("a man with a beard, beard, bearded", "a man"),
        ("a man with  glasses", "a man with glasses"),
    ],
)
def test_the_target_leaves_with_the_words_that_tied_it(text: str, base: str) -> None:
    assert base_prompt(text, BEARD) == base


def test_describing_words_do_not_reach_over_another_thing() -> None:
    text = "a woman wearing a hat and glasses"
    assert base_prompt(text, GLASSES) == "a woman wearing a hat"


def test_a_target_without_a_phrase_to_replace_goes_last() -> None:
    assert full_prompt("pale skin, a hat", BEARD) == "pale skin, a hat, a beard"
    assert full_prompt("", BEARD) == "a beard"


@pytest.mark.parametrize(
    ("base", "full"),
    [
        ("pale skin, brown hair, a hat", "pale skin, blonde hair, a hat"),
        ("a woman with brown hair, a hat", "a woman with blonde hair, a hat"),
        ("Brown Hair, a hat, black hair", "blonde hair, a hat"),
        ("red hair, a hat", "red hair, a hat, blonde hair"),
        ("light-brown hair", "light-brown hair, blonde hair"),
    ],
)
def test_a_replacing_target_takes_the_place_of_what_it_replaces(base: str, full: str) -> None:
    assert full_prompt(base, BLONDE) == full


def test_a_star_stands_for_one_word() -> None:
    assert full_prompt("a man with long straight hair", ANY_WORD) == "a man with long curly hair"


def test_a_prompt_with_the_target_is_not_given_it_twice() -> None:
    assert full_prompt("a bearded man", BEARD) == "a bearded man"


@given(caption)
def test_the_base_prompt_never_names_the_target(text: str) -> None:
    assert not has_target(base_prompt(text, BEARD), BEARD)


@given(caption)
def test_the_full_prompt_always_names_the_target(text: str) -> None:
    assert has_target(full_prompt(text, BEARD), BEARD)


@given(caption)
def test_taking_the_target_out_twice_is_taking_it_out_once(text: str) -> None:
    once = base_prompt(text, BEARD)
    assert base_prompt(once, BEARD) == once


@given(caption)
def test_adding_the_target_and_taking_it_out_gives_the_prompt_back(text: str) -> None:
    base = base_prompt(text, BEARD)
    assert base_prompt(full_prompt(base, BEARD), BEARD) == base


@given(tags)
def test_a_phrase_that_does_not_name_the_target_is_not_touched(text: str) -> None:
    kept = Counter(other for other in split_phrases(text) if not has_target(other, BEARD))
    assert kept <= Counter(split_phrases(base_prompt(text, BEARD)))


@pytest.mark.parametrize("name", sorted(portraits.ATTRIBUTES))
def test_the_portrait_worlds_captions_lose_the_target_and_nothing_else(name: str) -> None:
    attribute = load_recipe(list_recipes()[name]).attribute
    rng = random.Random(0)
    for _ in range(50):
        person = portraits.unbiased(rng)
        with_it, without = portraits.phrases(person, (name,)), portraits.phrases(person)
        assert full_prompt(join_phrases(without), attribute) == join_phrases(with_it)
        kept = [phrase for phrase in with_it if phrase != attribute.target_text]
        assert base_prompt(join_phrases(with_it), attribute) == join_phrases(kept)
        assert not has_target(join_phrases(without), attribute)


def test_base_phrases_are_the_prompts_phrases() -> None:
    assert base_phrases("a man, a hat", BEARD) == ["a man", "a hat"]


def test_an_attribute_with_its_own_phrases_finds_them_in_the_prompts_order() -> None:
    own = Attribute(name="x", target_text="x", phrases=("a hat", "a man", "a dog"))
    assert base_phrases("a man wearing a hat", own) == ["a man", "a hat"]
