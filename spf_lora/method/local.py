"""Pictures in our own runtime that leave the base's own picture in the control map only (ours).

A stock app draws the whole picture anew with an adapter on. Here the base draws its picture of the
prompt without the attribute first; where the adapter answers to the full prompt along the way is
the control map of the method, and outside of it the base's latents are put back after every step
(as Blended Latent Diffusion does inside a mask that a person drew, arXiv 2206.02779, sec. 3.2). A
prompt that asks for nothing gives the base's picture, bit for bit. It cannot be exported.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch.nn.functional import max_pool2d

from spf_lora.base.load import Base
from spf_lora.base.sample import Late, Step, begun, sample_latents
from spf_lora.base.texts import encode
from spf_lora.method.control_map import answer, control_map

AREA_CAP = 0.6  # share of the picture that may answer


@torch.no_grad()
def sample_locally(
    base: Base, states: torch.Tensor, seeds: Sequence[int], *, steps: int, guidance: float,
    within: torch.Tensor, acting: Callable[[], AbstractContextManager[None]],
    late: Sequence[Late] = (),
) -> torch.Tensor:  # fmt: skip
    """Return scaled latents (batch, channels, h, w), as `sample_latents` does.

    Args:
        base: the frozen model, with no adapter on.
        states: text states of the full prompts, (batch, 77, width).
        seeds: one per picture.
        steps: DDIM steps.
        guidance: scale of classifier-free guidance.
        within: text states of the prompts without the attribute, of one for all or of each.
        acting: puts the adapters on while its context lasts.
        late: see `sample_latents`.
    """
    within = within.expand_as(states)
    track: list[Step] = []

    def follow(step: Step) -> torch.Tensor:
        track.append(step)
        return step.latents

    sample_latents(base, within, seeds, steps=steps, guidance=guidance, after=follow)
    before = iter(track)
    with acting():
        region = _region(base, track, states, late)
        region = region * (states != within).any(dim=2).any(dim=1)[:, None, None, None]

        def put_back(step: Step) -> torch.Tensor:
            return torch.lerp(next(before).latents, step.latents, region)

        return sample_latents(
            base, states, seeds, steps=steps, guidance=guidance, late=late, after=put_back
        )


def _region(
    base: Base, track: Sequence[Step], states: torch.Tensor, late: Sequence[Late]
) -> torch.Tensor:
    """Return the control map of the base's own pictures, (batch, 1, h, w), a place wider."""
    both = torch.cat([encode(base, [""]).expand_as(states), states])
    total = torch.zeros_like(track[0].noisy[:, :1])
    for step in track:
        if all(begun(step.t, one.start_percent) for one in late):
            twice = torch.cat([step.noisy, step.noisy])
            response = base.unet(twice, step.t, both, return_dict=False)[0].chunk(2)[1]
            total += answer(response, step.eps)
    region = control_map(total, area_cap=AREA_CAP)
    return max_pool2d(region, 3, stride=1, padding=1)
