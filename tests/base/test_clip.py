"""The CLIP that training asks: the base's own, one in transformers layout, or a clear refusal."""

import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from layouts import cached
from tiny_base import make_tiny_clip

from spf_lora.base.clip import find_clip, load_clip
from spf_lora.base.hub import CLIP
from spf_lora.errors import BaseModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


def test_a_base_of_another_width_than_sd15s_needs_a_clip_named(tiny):
    with pytest.raises(BaseModelError, match="its text encoder is 24 wide") as caught:
        find_clip(tiny)
    assert "data.clip=" in caught.value.hint
    assert find_clip(tiny, "somebody/another") == "somebody/another"


@pytest.fixture
def sd15(tiny):
    """A base whose text encoder says that it is as wide as SD1.5's."""
    tiny.text_encoder.config.hidden_size = 768
    return tiny


def test_sd15s_own_clip_is_found_in_the_hubs_cache_offline(sd15, folder, hub_cache):
    cached(hub_cache, CLIP, folder, skip="model.safetensors")  # as a tokenizer alone is kept
    with pytest.raises(BaseModelError, match="nor whole in the hub's cache") as caught:
        find_clip(sd15)
    assert f"hf download {CLIP}" in caught.value.hint
    shutil.rmtree(hub_cache / "models--openai--clip-vit-large-patch14")
    cached(hub_cache, CLIP, folder)
    assert load_clip(sd15, find_clip(sd15)).embed_text(["a hat"]).shape == (1, 8)


def test_the_size_of_a_clip_is_told_before_it_is_fetched(sd15, folder, hub_cache, monkeypatch):
    events = []

    def fetch(repo, *, revision, allow_patterns):
        events.append(("fetched", repo))
        assert "model.safetensors" in allow_patterns
        return str(folder)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    found = find_clip(sd15, tell=lambda what, *_: events.append(("told", what)))
    assert found == str(folder)
    assert events == [("told", f"fetch {CLIP}, 1.7 GB"), ("fetched", CLIP)]


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
