"""A first look at a few pictures says what the full measure would say of them."""

import random

import pytest
import torch

from spf_lora.data.worlds.portraits import render, unbiased
from spf_lora.errors import MeasureError
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.on_screen import look


@pytest.fixture(scope="module")
def people():
    rng = random.Random("on screen")
    return [unbiased(rng) for _ in range(3)]


@pytest.fixture(scope="module")
def judge():
    torch.set_num_threads(1)
    return world_judge("beard")


def test_the_renderers_own_edit_hardly_pollutes_and_another_person_is_another_seed(people, judge):
    before = [render(person, ()) for person in people]
    right = look(judge, "a beard", before, [render(person, ("beard",)) for person in people])
    assert right.mean < 0.3
    assert not any("missing" in " ".join(words) for words in right.words)
    others = look(judge, "a beard", before, [*before[1:], before[0]])
    assert others.mean == pytest.approx(1, abs=0.05)  # it is measured in just that
    assert all(words for words in others.words)


def test_what_did_not_change_has_no_pollution_but_misses_the_attribute(people, judge):
    before = [render(person, ()) for person in people]
    seen = look(judge, "a beard", before, before)
    assert seen.pollution == pytest.approx([0, 0, 0], abs=1e-6)
    assert seen.words == (("the beard is missing",),) * 3


def test_one_picture_alone_cannot_be_measured(people, judge):
    one = [render(people[0], ())]
    with pytest.raises(MeasureError, match="no other seed"):
        look(judge, "a beard", one, one)
