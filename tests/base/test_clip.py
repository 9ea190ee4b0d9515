"""The CLIP that training asks: the base's own, one in transformers layout, or a clear refusal."""

import pytest
import torch
from tiny_base import make_tiny_clip

from spf_lora.base.clip import load_clip
from spf_lora.errors import BaseModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


def test_a_base_without_a_clip_of_its_own_needs_one_named(tiny):
    with pytest.raises(BaseModelError, match="a response loss needs a CLIP") as caught:
        load_clip(tiny)
    assert "data.clip=" in caught.value.hint


def test_an_absent_clip_is_named_with_the_command_that_fetches_it(tiny, tmp_path):
    with pytest.raises(BaseModelError, match="there is no CLIP to load at") as caught:
        load_clip(tiny, "somebody/nothing")
    assert caught.value.hint == "fetch it with: hf download somebody/nothing"
    with pytest.raises(BaseModelError) as caught:
        load_clip(tiny, str(tmp_path))
    assert "config.json" in caught.value.hint


def test_a_clip_in_transformers_layout_is_one_space_with_gradient(tiny, folder):
    clip = load_clip(tiny, str(folder))
    texts = clip.embed_text(["a hat", "a person with a beard"])
    pixels = torch.rand(2, 3, 48, 48, requires_grad=True)
    pictures = clip.embed_image(pixels)
    assert texts.shape == pictures.shape == (2, 8)
    for unit in (texts, pictures):
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(2))
    pictures[:, 0].sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in clip.model.parameters())


def test_padding_does_not_change_a_text(tiny, folder):
    clip = load_clip(tiny, str(folder))
    alone = clip.embed_text(["a hat"])
    beside = clip.embed_text(["a hat", "a person with a beard and a hat"])
    torch.testing.assert_close(alone[0], beside[0], atol=1e-5, rtol=1e-5)


def test_the_embedded_base_brings_its_own(embedded):
    clip = load_clip(embedded)
    assert (
        clip.embed_text(["a beard"]).shape[1]
        == clip.embed_image(torch.zeros(1, 3, 64, 64)).shape[1]
    )
