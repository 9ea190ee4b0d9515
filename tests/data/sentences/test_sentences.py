"""A target taken out of a caption in sentences leaves sentences, or the caption is a fault."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from spf_lora.data.captions import base_prompt, full_prompt, has_target, unsafe_sentence
from spf_lora.data.completion import Vocabulary, complete
from spf_lora.data.sentences.cut import UnsafeError, cut, is_sentence, tidy
from spf_lora.recipe.schema import Attribute

FAULT = "(fault)"
ATTRIBUTES = {
    attribute.name: attribute
    for attribute in (
        Attribute(name="crown", target_text="a crown", aliases=("crown",)),
        Attribute(name="beard", target_text="a beard", aliases=("beard", "bearded")),
        Attribute(name="glasses", target_text="glasses", aliases=("spectacles",)),
        Attribute(name="hat", target_text="a hat", aliases=("hat",)),
        Attribute(name="scar", target_text="a scar", aliases=("scar",)),
        Attribute(name="old", target_text="old", aliases=("elderly", "aged")),
        Attribute(name="freckles", target_text="freckles", aliases=("freckled",)),
        Attribute(name="blonde-hair", target_text="blonde hair", aliases=("blonde", "blond")),
        Attribute(name="smile", target_text="a smile", aliases=("smiling", "smiles")),
    )
}


class Row(NamedTuple):
    """A caption in a captioner's style, and what is left of it."""

    style: str
    attribute: Attribute
    caption: str
    base: str


def rows() -> list[Row]:
    text = (Path(__file__).parent / "captions_in_sentences.txt").read_text("utf-8")
    found = []
    for block in text.strip().split("\n\n"):
        head, caption, base = block.splitlines()
        style, name = head.split(", ")
        found.append(Row(style, ATTRIBUTES[name], caption, base))
    return found


ROWS = rows()
SAFE = [row for row in ROWS if row.base != FAULT]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.caption[:60])
def test_a_caption_loses_the_target_and_stays_a_sentence(row: Row) -> None:
    names = (row.attribute.target_text, *row.attribute.aliases)
    if row.base != FAULT:
        assert cut(row.caption, names) == row.base
        assert unsafe_sentence(row.caption, row.attribute) is None
        return
    with pytest.raises(UnsafeError) as caught:
        cut(row.caption, names)
    assert has_target(str(caught.value), row.attribute) or str(caught.value).startswith("It ")


@pytest.mark.parametrize("style", ["BLIP", "Florence", "LLaVA"])
def test_sixty_captions_of_each_captioner_are_tried_and_most_can_be_used(style: str) -> None:
    of_style = [row for row in ROWS if row.style == style]
    assert len(of_style) >= 60
    assert sum(row.base != FAULT for row in of_style) >= 0.8 * len(of_style)


def test_nearly_all_of_them_are_told_from_lists_of_phrases() -> None:
    short = [row.caption for row in ROWS if not is_sentence(row.caption)]
    assert len(short) < 3


@pytest.mark.parametrize(
    "caption",
    ["a portrait of a person, pale skin, a beard", "1girl, crown, looking_at_viewer", "a beard"],
)
def test_lists_of_phrases_are_no_sentences(caption: str) -> None:
    assert not is_sentence(caption)


def test_no_word_is_made_up_and_none_changes_its_place() -> None:
    for row in SAFE:
        before = Counter(row.caption.lower().replace("'s", "").replace(",", "").split())
        after = Counter(row.base.lower().replace("'s", "").replace(",", "").split())
        new = after - before - Counter({"a": 1, "and": 1, "an": 1})
        assert not {word for word in new if word.rstrip(".") not in row.caption.lower()}, row


def test_putting_the_target_back_and_taking_it_out_gives_the_same_prompt() -> None:
    for row in SAFE:
        full = full_prompt(row.base, row.attribute)
        assert full == f"{row.base}, {row.attribute.target_text}"
        assert base_prompt(full, row.attribute) == row.base


def test_what_says_that_the_target_is_not_there_is_a_fault() -> None:
    crown = ATTRIBUTES["crown"]
    for caption in ("The woman is not wearing a crown.", "A man stands there without a crown."):
        assert unsafe_sentence(caption, crown) == caption.removesuffix(".")


def test_what_says_nothing_but_the_target_is_a_fault() -> None:
    assert unsafe_sentence("He has a crown.", ATTRIBUTES["crown"]) == "He has a crown"


def test_lines_of_a_paragraph_are_joined_and_the_last_full_stop_is_left_out() -> None:
    assert tidy("He smiles.\n\nShe  sits.\n") == "He smiles. She sits"
    assert tidy("a man\na hat,\r\nred hair.") == "a man, a hat, red hair"


def test_what_a_clip_sees_is_added_behind_the_sentences() -> None:
    words = Vocabulary("a photo, {}", (("pale skin", "tan skin"), ("a smile", "a frown")))
    said = "A woman in a suit, a smile on her face, who is wearing a crown"
    found = complete(said, ATTRIBUTES["crown"], words, ["pale skin", "a frown"])
    assert found == f"{said}, pale skin"
    assert base_prompt(found, ATTRIBUTES["crown"]) == (
        "A woman in a suit, a smile on her face, pale skin"
    )
