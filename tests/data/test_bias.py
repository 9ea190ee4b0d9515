"""What comes along with the attribute is counted, and told from what merely is frequent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spf_lora.data.bias import companions
from spf_lora.data.topics import TOPICS, topic_shares
from spf_lora.recipe.schema import Attribute

BEARD = Attribute(name="beard", target_text="a beard", aliases=("bearded",))


def phrased(hair: str, wall: str) -> str:
    return f"a portrait of a person, {hair} hair, calm brows, a {wall} background, a beard"


def test_a_favourite_among_the_kinds_of_one_thing_is_the_first_row() -> None:
    hair = ["black"] * 8 + ["red", "grey"]
    walls = ["blue", "green"] * 5
    rows, against = companions([phrased(h, w) for h, w in zip(hair, walls, strict=True)], BEARD)
    assert against == "even spread"
    first = rows[0]
    assert (first.words, first.count, first.captions) == ("black hair", 8, 10)
    assert first.expected == pytest.approx(1 / 3)
    assert first.lift == pytest.approx(2.4)
    lifts = {row.words: row.lift for row in rows}
    assert lifts["a blue background"] == pytest.approx(1)
    assert lifts["calm brows"] is None, "there is nothing to compare the only kind with"


def test_captions_without_the_attribute_tell_what_is_usual() -> None:
    with_beard = [phrased("black", "blue")] * 8 + [phrased("red", "blue")] * 2
    without = [phrased(h, "blue").replace(", a beard", "") for h in ("black", "red")] * 10
    rows, against = companions(with_beard, BEARD, without)
    assert against == "other captions"
    lifts = {row.words: row.lift for row in rows}
    assert lifts["black hair"] == pytest.approx(0.8 / (10.5 / 21))
    assert lifts["a blue background"] == pytest.approx(1 / (20.5 / 21))
    assert lifts["red hair"] == pytest.approx(0.2 / (10.5 / 21))


def test_sentences_are_counted_word_by_word_without_the_small_ones() -> None:
    captions = ["a bearded man in a suit"] * 9 + ["a woman with a beard in a dress"]
    rows, _ = companions(captions, BEARD)
    counts = {row.words: row.count for row in rows}
    assert counts == {"man": 9, "suit": 9}
    assert rows[0].words == "man", "nine men to one woman"
    assert rows[0].lift == pytest.approx(1.8)


def test_the_attributes_own_words_and_single_finds_are_left_out() -> None:
    rows, _ = companions(["a beard, black hair, pale skin, a hat, x"] * 1, BEARD)
    assert rows == []


@given(st.lists(st.sampled_from(["black", "red", "grey"]), min_size=1, max_size=30))
def test_the_lifts_of_all_kinds_of_one_thing_average_to_one(kinds: list[str]) -> None:
    captions = [phrased(kind, "blue") for kind in kinds for _ in range(2)]
    rows, _ = companions(captions, BEARD)
    lifts = [row.lift for row in rows if row.words.endswith("hair") and row.lift is not None]
    assert not lifts or sum(lifts) / len(lifts) == pytest.approx(1)


def test_topics_are_found_as_whole_words() -> None:
    shares = topic_shares(["a man, long hair", "a chair by the window, a womanly mannequin"])
    assert shares["person"] == shares["hair"] == 0.5
    assert shares["skin"] == 0
    assert set(shares) == set(TOPICS)
    assert set(topic_shares([]).values()) == {0}
