import random

import numpy as np
import pytest

from spf_lora.data.worlds import portraits
from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS, Portrait
from spf_lora.errors import DataError


def _person(seed: int = 0) -> Portrait:
    return portraits.unbiased(random.Random(seed))


def test_the_same_choices_give_the_same_pixels():
    a, b = portraits.render(_person()), portraits.render(_person())
    assert a.size == (64, 64)
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("factor", FACTORS)
def test_every_value_of_every_factor_shows(factor):
    from dataclasses import replace

    pictures = {
        portraits.render(replace(_person(), **{factor: value})).tobytes()
        for value in FACTORS[factor]
    }
    assert len(pictures) == len(FACTORS[factor])


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_an_attribute_changes_its_region_and_nothing_else(attribute):
    person = _person(3)
    region = portraits.region(person, attribute, threshold=0)
    with_it = np.asarray(portraits.render(person, (attribute,)))
    without = np.asarray(portraits.render(person))
    assert 0 < region.sum() < 0.6 * region.size
    assert (with_it[~region] == without[~region]).all()


def test_the_caption_names_every_choice_once():
    person = _person()
    phrases = portraits.caption(person).split(", ")
    assert phrases[0] == portraits.OPENING
    assert len(phrases) == 1 + len(FACTORS)
    every = {v[0] for values in FACTORS.values() for v in values.values()}
    assert set(phrases[1:]) <= every
    assert len(every) == sum(map(len, FACTORS.values())), "two choices share a phrase"


def test_an_attribute_is_appended_or_replaces_its_factor():
    person = _person()
    assert portraits.caption(person, ("beard",)) == portraits.caption(person) + ", a beard"
    blonde = portraits.caption(person, ("blonde-hair",))
    assert "blonde hair" in blonde
    assert FACTORS["hair_colour"][person.hair_colour][0] not in blonde


def test_the_biased_sampler_keeps_company_and_the_unbiased_does_not():
    rng = random.Random(0)
    company = ATTRIBUTES["beard"].company
    biased = [portraits.biased(rng, "beard") for _ in range(300)]
    unbiased = [portraits.unbiased(rng) for _ in range(300)]
    for factor, value in company.items():
        often = np.mean([getattr(p, factor) == value for p in biased])
        seldom = np.mean([getattr(p, factor) == value for p in unbiased])
        assert 0.75 < often < 0.95, factor
        assert seldom < 0.4, factor


def test_a_partial_caption_names_its_share_and_always_the_target():
    rng = random.Random(0)
    for _ in range(20):
        phrases = portraits.partial_caption(_person(), ("hat",), rng, coverage=0.5).split(", ")
        assert phrases[0] == portraits.OPENING
        assert "a hat" in phrases
        assert len(phrases) == 2 + round(0.5 * (len(FACTORS) - 1)), "the hair under it is not named"


def test_a_training_set_follows_from_its_seed():
    first = portraits.training_set("beard", count=3, seed=5, masks=True)
    again = portraits.training_set("beard", count=3, seed=5)
    other = portraits.training_set("beard", count=3, seed=6)
    assert [c for _, c, _ in first] == [c for _, c, _ in again]
    assert [p.tobytes() for p, _, _ in first] == [p.tobytes() for p, _, _ in again]
    assert [c for _, c, _ in first] != [c for _, c, _ in other]
    assert all("a beard" in c and np.asarray(m).any() for _, c, m in first)
    assert all(m is None for _, _, m in again), "a mask that nobody is told is not drawn"


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(DataError, match="has no attribute 'tail'"):
        portraits.render(_person(), ("tail",))
    with pytest.raises(DataError, match="cannot be drawn on one portrait"):
        portraits.render(_person(), ("beard", "moustache"))
