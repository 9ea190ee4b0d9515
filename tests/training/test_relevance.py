from types import SimpleNamespace

import pytest
import torch

from spf_lora.training.relevance import COVERS, covers, relevances
from spf_lora.training.witness import combined


class SeesCorner:
    """A CLIP to which a picture says the target as far as its upper left quarter is bright."""

    scale = 1.0

    def embed_text(self, texts):
        return torch.tensor([[1.0, 0.0]])

    def embed_image(self, pixels):
        half = pixels.shape[-1] // 2
        bright = pixels[:, :, :half, :half].mean(dim=(1, 2, 3))
        return torch.stack([bright, 1 - bright], dim=1)


class Enlarges:
    """An autoencoder whose pictures are its latents, eight times as large."""

    config = SimpleNamespace(scaling_factor=1.0)

    def decode(self, latents):
        wide = latents.repeat_interleave(8, 2).repeat_interleave(8, 3)
        return SimpleNamespace(sample=wide[:, :3])


BASE = SimpleNamespace(vae=Enlarges())


def _data(latents, sizes):
    return SimpleNamespace(latents=latents, sizes=sizes)


def _bright_corner(side=12):
    latents = torch.zeros(1, 4, side, side)
    latents[:, :, :4, :4] = 1.0
    return latents


def test_a_place_counts_for_what_seeing_it_adds():
    found = relevances(BASE, SeesCorner(), _data(_bright_corner(), ((12, 12),)), "it", seed=0)
    assert found.shape == (1, 1, 12, 12)
    assert found.mean().item() == pytest.approx(1)
    assert found[0, 0, :4, :4].mean() > 4
    assert found[0, 0, 7:, 7:].mean() < 0.7


def test_a_picture_that_no_cover_changes_says_nothing():
    found = relevances(BASE, SeesCorner(), _data(torch.ones(1, 4, 8, 8), ((8, 8),)), "it", seed=0)
    assert found.abs().max() == 0


def test_a_smaller_picture_is_covered_within_itself():
    latents = torch.zeros(2, 4, 12, 12)
    latents[1, :, :3, :3] = 1.0  # 6 x 12, the rest is not of the picture
    found = relevances(BASE, SeesCorner(), _data(latents, ((12, 12), (6, 12))), "it", seed=0)
    assert found[1, :, 6:].abs().max() == 0
    assert found[1, 0, :6].mean().item() == pytest.approx(1)


def test_covers_leave_half_open_and_follow_the_seed():
    some = covers((12, 8), seed=1)
    assert some.shape == (COVERS, 1, 12, 8)
    assert some.min() >= 0
    assert some.max() <= 1
    assert some.mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(some, covers((12, 8), seed=1))
    assert not torch.equal(some, covers((12, 8), seed=2))


def test_no_witness_speaks_louder_for_sharper_peaks():
    flat, sharp = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    flat[..., :2, :] = 1.2
    sharp[..., 0, 0] = 100.0
    size = [(4, 4)]
    both = combined([flat, sharp], size)
    assert both.mean().item() == pytest.approx(1)
    swapped = combined([sharp * 7, flat / 3], size)  # nor for its scale
    torch.testing.assert_close(swapped, both)
    rise = [w.max() - w.min() for w in (combined([flat], size), combined([sharp], size))]
    assert both[0, 0, 1, 0] - both[0, 0, 3, 0] > 0.1 * rise[0]


def test_a_witness_that_says_nothing_is_not_heard():
    says = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    silent = torch.zeros(2, 1, 4, 4)
    sizes = [(4, 4)] * 2
    torch.testing.assert_close(combined([says, silent], sizes), combined([says], sizes))


def test_a_smaller_picture_is_weighed_within_itself():
    torch.manual_seed(0)
    one, other = torch.rand(1, 1, 2, 4), torch.rand(1, 1, 2, 4)
    alone = combined([one, other], [(2, 4)])
    padded = [torch.nn.functional.pad(w, (0, 0, 0, 2)) for w in (one, other)]
    found = combined(padded, [(2, 4)])
    torch.testing.assert_close(found[..., :2, :], alone)
    assert found[..., 2:, :].abs().max() == 0
