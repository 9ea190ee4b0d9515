from types import SimpleNamespace

import torch

from spf_lora.training.witness import surprises


class Scheduler:
    """Half picture, half noise at every time."""

    def add_noise(self, latents, noise, t):
        return (latents + noise) / 2**0.5


def expects_nothing(noisy, t, states, return_dict):
    """A base to which every picture is empty: its error is the picture itself."""
    return (noisy * 2**0.5,)


def _data(latents, sizes):
    twins = SimpleNamespace(
        latents=torch.ones_like(latents), base_states=torch.zeros(len(latents), 77, 4)
    )
    return SimpleNamespace(
        latents=latents, sizes=sizes, base_states=torch.zeros(len(latents), 77, 4), twins=twins
    )


def test_the_base_is_surprised_where_a_picture_is_not_like_its_own():
    latents = torch.ones(3, 4, 8, 8)
    latents[0, :, 2:5, 2:5] = 4.0
    found = surprises(expects_nothing, _data(latents, ((8, 8),) * 3), Scheduler(), seed=0)
    assert found.shape == (3, 1, 8, 8)
    torch.testing.assert_close(found.mean(dim=(1, 2, 3)), torch.ones(3))
    assert found[0, 0, 3, 3] > 4 * found[0, 0, 7, 7]
    torch.testing.assert_close(found[1], torch.ones(1, 8, 8))


def test_a_picture_of_another_size_is_compared_with_its_own_size_only():
    latents = torch.ones(2, 4, 8, 8)
    latents[1, :, 4:] = 0  # beyond a picture of 4 rows
    found = surprises(expects_nothing, _data(latents, ((8, 8), (4, 8))), Scheduler(), seed=0)
    torch.testing.assert_close(found[1, :, :4], torch.ones(1, 4, 8))
    assert found[1, :, 4:].abs().max() == 0


def test_the_seed_decides():
    torch.manual_seed(0)
    weights = torch.randn(4, 4, 3, 3)

    def uneven(noisy, t, states, return_dict):
        return (torch.nn.functional.conv2d(noisy, weights, padding=1),)

    data = _data(torch.randn(2, 4, 8, 8), ((8, 8),) * 2)
    one, again, other = (surprises(uneven, data, Scheduler(), seed=s) for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
