"""Where the frozen base is surprised by a training picture (ours).

A picture shows something that its base prompt does not name. Where the base predicts the noise
worse than it does in its own pictures, it sees what it would not have drawn: a witness of the
attribute's place that needs no trained adapter.
"""

from collections.abc import Sequence
from typing import Any

import torch

from spf_lora.method.control_map import relative, smooth
from spf_lora.training.prepare import Prepared, Size

DRAWS, FIRST_T, LAST_T = 8, 600, 975  # large times, where a prompt decides what is drawn
_BATCH = 8


def combined(witnesses: Sequence[torch.Tensor], sizes: Sequence[Size]) -> torch.Tensor:
    """Return what several witnesses say together, (n, 1, h, w); the mean over a picture is 1.

    Each is divided by its standard deviation over a picture, so that none speaks louder for having
    sharper peaks; one that says nothing of a picture is not heard there.

    Args:
        witnesses: each (n, 1, h, w), 0 or more.
        sizes: height and width of each picture; beyond them is nothing.
    """
    found = torch.zeros_like(witnesses[0])
    for row, (height, width) in enumerate(sizes):
        own = (witness[row : row + 1, :, :height, :width] for witness in witnesses)
        heard = [said / said.std().clamp(min=1e-6) for said in own]
        found[row : row + 1, :, :height, :width] = relative(torch.stack(heard).sum(dim=0))
    return found


@torch.no_grad()
def surprises(unet: Any, data: Prepared, scheduler: Any, *, seed: int) -> torch.Tensor:
    """Return each picture's surprise, (n, 1, h, w); the mean over a picture is 1.

    The error of the predicted noise on the base prompt, relative to the picture's mean, over the
    mean of the same on the base's own pictures at that place; averaged over time steps and noises.

    Args:
        unet: the frozen model; an adapter on it must not have learned anything yet.
        data: with twins.
        scheduler: adds noise.
        seed: of the noises.
    """
    assert data.twins is not None
    found = torch.zeros_like(data.latents[:, :1])
    for size in dict.fromkeys(data.sizes):
        rows = torch.tensor([row for row, of in enumerate(data.sizes) if of == size])
        total = torch.zeros(len(rows), 1, *size, device=found.device)
        generator = torch.Generator().manual_seed(seed)
        for t in torch.linspace(FIRST_T, LAST_T, DRAWS).long().tolist():
            noise = torch.randn(len(rows), data.latents.shape[1], *size, generator=generator)
            shown, own = (
                _error(unet, scheduler, latents[rows][..., : size[0], : size[1]], states[rows],
                       noise.to(found.device), t)
                for latents, states in (
                    (data.latents, data.base_states),
                    (data.twins.latents, data.twins.base_states),
                )
            )  # fmt: skip
            total += relative(shown / own.mean(dim=0, keepdim=True).clamp(min=1e-12))
        found[rows, :, : size[0], : size[1]] = relative(total)
    return found


def _error(
    unet: Any, scheduler: Any, latents: torch.Tensor, states: torch.Tensor, noise: torch.Tensor,
    t: int,
) -> torch.Tensor:  # fmt: skip
    errors = []
    for i in range(0, len(latents), _BATCH):
        part = slice(i, i + _BATCH)
        times = torch.full((len(latents[part]),), t, device=latents.device)
        noisy = scheduler.add_noise(latents[part], noise[part], times)
        eps = unet(noisy, times, states[part], return_dict=False)[0]
        errors.append((eps - noise[part]).float().square().mean(dim=1, keepdim=True))
    return relative(smooth(torch.cat(errors)))
