"""How sure a CLIP must be follows from the base's own pictures, and a bad CLIP is not believed."""

import math

import pytest
import torch

from spf_lora.data.cache import TensorCache
from spf_lora.data.completion import Vocabulary
from spf_lora.training.calibrate import (
    LEAST_PRECISION,
    PICTURES,
    Likeliest,
    calibrate,
    certainty,
    least_certain,
)
from spf_lora.training.sight import Asked

WORDS = Vocabulary("a photo, {}", (("tan skin", "pale skin"), ("a hat", "a bun")))


def falling(count):
    """Probabilities from 1 down to 0.6."""
    return torch.linspace(1, 0.6, count)


def test_the_limit_is_the_least_probability_from_which_on_19_of_20_are_right():
    right = torch.arange(40) < 30
    limit = least_certain(falling(40), right)
    assert limit == falling(40)[30]  # 30 of 31 are right, 30 of 32 are not enough
    assert least_certain(falling(40) / 2, right) == 0.5, "no less than all else together"


def test_where_all_are_right_no_more_is_asked_than_half():
    assert least_certain(falling(40), torch.ones(40, dtype=torch.bool)) == 0.5


def test_a_limit_takes_some_cases():
    few = torch.ones(7, dtype=torch.bool)
    assert least_certain(falling(7), few) == math.inf
    assert least_certain(falling(7)[:0], few[:0]) == math.inf


def test_the_order_of_cases_decides_nothing():
    generator = torch.Generator().manual_seed(0)
    probability, right = torch.rand(60, generator=generator), torch.rand(60) < 0.97
    mixed = torch.randperm(60, generator=generator)
    assert least_certain(probability, right) == least_certain(probability[mixed], right[mixed])


def test_precision_is_that_of_pictures_which_set_no_limit():
    said = torch.zeros(1, 40, dtype=torch.long)
    odd = torch.arange(40) % 2
    seen = [Likeliest(torch.ones(40), odd)]  # right on the even pictures alone
    found = certainty(seen, said)
    assert found.least == (math.inf,)
    assert found.precision == 0, "the even pictures' limit is judged on the odd ones"


def test_each_group_has_its_own_limit_and_one_that_is_a_guess_is_left_out():
    said = torch.zeros(2, 40, dtype=torch.long)
    guess = Likeliest(falling(40), torch.arange(40) % 4 // 2)
    found = certainty([Likeliest(falling(40), said[0]), guess], said)
    assert found.least == (0.5, math.inf)
    assert (found.precision, found.share) == (1.0, 0.5)


class Knows:
    """A CLIP that sees in random pictures whatever it is told to; 0 and 1 are a group's phrases."""

    scale = 100.0

    def __init__(self, answers):
        self.answers = answers

    def digest(self):
        return "knows"

    def embed_text(self, texts):
        phrases = [phrase for group in WORDS.groups for phrase in group]
        return torch.eye(4)[[phrases.index(text.removeprefix("a photo, ")) for text in texts]]

    def embed_image(self, pixels):
        rows, self.answers = self.answers[: len(pixels)], self.answers[len(pixels) :]
        return rows


@pytest.mark.usefixtures("few_draws")
def test_a_base_whose_pictures_do_not_show_what_prompts_say_gives_no_certainty(tiny, tmp_path):
    random = torch.eye(4)[torch.randint(4, (PICTURES,), generator=torch.Generator().manual_seed(0))]
    asked = Asked(Knows(random), TensorCache(tmp_path))
    found = calibrate(asked, tiny, WORDS, guidance=3.0)
    assert found.precision < LEAST_PRECISION
    assert "is right" in str(found)
