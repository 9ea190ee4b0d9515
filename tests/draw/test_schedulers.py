"""Every sampler draws, and a seed gives one picture whatever it is drawn beside."""

import pytest
import torch

from spf_lora.base.texts import encode
from spf_lora.draw.act import draw
from spf_lora.draw.sample import Style, sample_latents
from spf_lora.draw.schedulers import DDIM, SAMPLERS, check_sampler, scheduler_of
from spf_lora.errors import PromptError


def latents(base, seeds, style=None, **how):
    states = encode(base, ["a man"] * len(seeds))
    given = {} if style is None else {"style": style}
    return sample_latents(base, states, seeds, steps=3, guidance=2.0, **given, **how)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_is_one_picture_whatever_stands_beside_it(tiny, name):
    both = latents(tiny, [3, 4], Style(name))
    # the batch's size changes the order in which numbers are added up
    torch.testing.assert_close(latents(tiny, [4], Style(name))[0], both[1], atol=1e-4, rtol=1e-4)
    assert torch.isfinite(both).all()
    assert not torch.equal(both[0], both[1])


def test_every_sampler_draws_another_picture(tiny):
    drawn = [latents(tiny, [3], Style(name)) for name in SAMPLERS]
    assert len({one.numpy().tobytes() for one in drawn}) == len(SAMPLERS)


def test_ddim_is_the_bases_own_and_the_default(tiny):
    assert scheduler_of(tiny.scheduler, DDIM) is tiny.scheduler
    assert torch.equal(latents(tiny, [3]), latents(tiny, [3], Style(DDIM, "")))


def test_what_is_led_away_from_changes_the_picture(tiny):
    assert not torch.equal(latents(tiny, [3]), latents(tiny, [3], Style(negative="a hat")))


def test_a_picture_is_as_large_as_asked(tiny):
    factor = tiny.resolution // tiny.unet.config.sample_size
    (picture,) = draw(tiny, ["a man"], [1], steps=1, size=(8, 16))
    assert picture.size == (16 * factor, 8 * factor)


def test_an_unknown_sampler_is_refused_with_the_nearest():
    with pytest.raises(PromptError, match="no sampler 'eular'; did you mean euler"):
        check_sampler("eular")
