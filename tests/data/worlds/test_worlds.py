"""Laws of every world whose truth is known."""

import hashlib
import random
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
from root import ROOT

from spf_lora.data.completion import load_vocabulary
from spf_lora.data.worlds import PERSONAS, PORTRAITS, WORLDS
from spf_lora.data.worlds.world import OPENING, Portrait, World
from spf_lora.errors import DataError

# where the pixels of the digest were drawn
DRAWN_BY = {"dicebear-core": "10.7.0", "dicebear-styles": "10.6.0", "resvg-py": "0.5.0"}
ATTRIBUTES = [(world, name) for world in WORLDS.values() for name in world.attributes]

every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
every_attribute = pytest.mark.parametrize(
    ("world", "attribute"), ATTRIBUTES, ids=[f"{world.name}-{name}" for world, name in ATTRIBUTES]
)


def _person(world: World, seed: int = 0) -> Portrait:
    return world.unbiased(random.Random(seed))


@every_world
def test_the_same_choices_give_the_same_pixels(world):
    a, b = world.render(_person(world)), world.render(_person(world))
    assert a.size == (64, 64)
    assert a.tobytes() == b.tobytes()


@every_world
def test_every_value_of_every_factor_shows(world):
    for factor, values in world.factors.items():
        people = (replace(_person(world), **{factor: value}) for value in values)
        drawn = [np.asarray(world.render(person), dtype=int) for person in people]
        for index, one in enumerate(drawn):
            for other in drawn[:index]:
                assert (np.abs(one - other).max(axis=2) > 24).sum() > 2, factor


@every_attribute
def test_an_attribute_changes_its_region_and_nothing_else(world, attribute):
    person = _person(world, 3)
    region = world.region(person, attribute, threshold=0)
    with_it = np.asarray(world.render(person, (attribute,)))
    without = np.asarray(world.render(person))
    assert 0 < region.sum() < 0.6 * region.size
    assert (with_it[~region] == without[~region]).all()


@every_attribute
def test_what_an_attribute_speaks_of_is_in_its_world(world, attribute):
    row = world.attributes[attribute]
    assert row.kind in ("weak", "new")
    assert len(row.company) == 5
    assert all(value in world.factors[factor] for factor, value in row.company.items())
    assert {*row.hides, *([row.replaces] if row.replaces else [])} <= set(world.factors)
    for other in row.excludes:
        assert attribute in world.attributes[other].excludes
        with pytest.raises(DataError, match="cannot be drawn on one portrait"):
            world.render(_person(world), (attribute, other))


@every_world
def test_the_caption_names_every_choice_once(world):
    phrases = world.caption(_person(world)).split(", ")
    assert phrases[0] == OPENING
    assert len(phrases) == 1 + len(world.factors)
    every = {v[0] for values in world.factors.values() for v in values.values()}
    assert set(phrases[1:]) <= every
    assert len(every) == sum(map(len, world.factors.values())), "two choices share a phrase"


@every_attribute
def test_an_attribute_is_appended_or_replaces_its_factor(world, attribute):
    person, row = _person(world), world.attributes[attribute]
    before, after = world.phrases(person), world.phrases(person, (attribute,))
    if row.replaces is None:
        assert after == [*before, row.target_text]
    else:
        gone = world.factors[row.replaces][getattr(person, row.replaces)][0]
        assert after == [row.target_text if phrase == gone else phrase for phrase in before]


@every_world
def test_the_vocabulary_of_a_world_names_all_that_it_shows(world):
    files = {"portraits": "portraits", "personas": str(ROOT / "benchmarks/worlds/personas.toml")}
    vocabulary = load_vocabulary(files[world.name])
    assert vocabulary.template == f"{OPENING}, {{}}"
    assert dict(zip(vocabulary.names, vocabulary.groups, strict=True)) == {
        name: tuple(phrase for phrase, _ in values.values())
        for name, values in world.factors.items()
    }


def test_the_first_world_is_drawn_and_put_into_words_as_it_ever_was():
    words, pixels = _digests(PORTRAITS)
    assert words == "8bfdd6a1c27709092086ab1bf92207dcd691d5b740760b1af9fcf9964c283ec1"
    if {name: version(name) for name in DRAWN_BY} == DRAWN_BY:
        assert pixels == "b0a4e617e8b517a635bd579a650e5ddce55961ae40e4006d3a1451d36dafcebc"


def test_the_worlds_draw_and_name_different_people():
    assert _digests(PERSONAS) != _digests(PORTRAITS)


def _digests(world: World) -> tuple[str, str]:
    """Return a digest of words and choices, and one of pixels, of a few people of a world."""
    rng = random.Random("the first world")
    words, pixels = hashlib.sha256(), hashlib.sha256()
    for attribute in world.attributes:
        person, friend = world.unbiased(rng), world.biased(rng, attribute)
        words.update(world.caption(person).encode())
        words.update(world.partial_caption(friend, (attribute,), rng, coverage=0.5).encode())
        words.update(repr(world.drawing(friend, (attribute,))).encode())
        pixels.update(world.render(friend, (attribute,)).tobytes())
    return words.hexdigest(), pixels.hexdigest()


@every_world
def test_the_biased_sampler_keeps_company_and_the_unbiased_does_not(world):
    rng = random.Random(0)
    company = world.attributes["beard"].company
    biased = [world.biased(rng, "beard") for _ in range(300)]
    unbiased = [world.unbiased(rng) for _ in range(300)]
    for factor, value in company.items():
        often = np.mean([getattr(p, factor) == value for p in biased])
        seldom = np.mean([getattr(p, factor) == value for p in unbiased])
        assert 0.75 < often < 0.95, factor
        assert seldom < 0.4, factor


def test_a_partial_caption_names_its_share_and_always_the_target():
    rng = random.Random(0)
    for _ in range(20):
        caption = PORTRAITS.partial_caption(_person(PORTRAITS), ("hat",), rng, coverage=0.5)
        phrases = caption.split(", ")
        assert phrases[0] == OPENING
        assert "a hat" in phrases
        rest = len(PORTRAITS.factors) - 1
        assert len(phrases) == 2 + round(0.5 * rest), "the hair under it is not named"


def test_a_training_set_follows_from_its_seed():
    first = PORTRAITS.training_set("beard", count=3, seed=5, masks=True)
    again = PORTRAITS.training_set("beard", count=3, seed=5)
    other = PORTRAITS.training_set("beard", count=3, seed=6)
    assert [c for _, c, _ in first] == [c for _, c, _ in again]
    assert [p.tobytes() for p, _, _ in first] == [p.tobytes() for p, _, _ in again]
    assert [c for _, c, _ in first] != [c for _, c, _ in other]
    assert all("a beard" in c and np.asarray(m).any() for _, c, m in first)
    assert all(m is None for _, _, m in again), "a mask that nobody is told is not drawn"


@every_world
def test_an_attribute_that_a_world_does_not_have_is_refused(world):
    with pytest.raises(DataError, match="has no attribute 'tail'"):
        world.render(_person(world), ("tail",))
