"""Pictures in our own runtime that leave the base's own picture in the control map only (ours).

A stock app draws the whole picture anew with an adapter on. Here two pictures are drawn first: the
base's of the prompt without the attribute, and the adapter's of the full prompt. Where the two
models differ along both is the control map of the method, and with it the full prompt is drawn
again: outside of it the base's latents are put back after every step (as Blended Latent Diffusion
does outside of a mask that a person drew, arXiv 2206.02779, section 3.2). A prompt that asks for
nothing gives the base's picture, bit for bit. It is 4.5 times the work, and no file can hold it;
`draw.trajectories` keeps how it was drawn, so that a file can be taught what it shows.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from spf_lora.base.load import Base
from spf_lora.base.texts import encode
from spf_lora.draw.late import Late, begun
from spf_lora.draw.sample import Predict, SamplerStep, sample_latents
from spf_lora.method import control_map


class Asking(NamedTuple):
    """Prompts that ask for one attribute, whose place is looked for.

    Attributes:
        states: their text states, (batch, 77, width).
        acting: puts the adapters on for these prompts, while its context lasts.
        late: see `sample_latents`.
        always: whether the adapters answer prompts that ask for nothing, as those without words do.
    """

    states: torch.Tensor
    acting: Callable[[], AbstractContextManager[None]]
    late: Sequence[Late] = ()
    always: bool = False


@dataclass(frozen=True)
class LocalPicture:
    """A local picture and how it was drawn, an entry a step in both tracks.

    Attributes:
        control_map: where the base's picture may change, (batch, 1, h, w) in [0, 1].
        reference: the base's own picture, of the prompt without the attribute.
        response: the local picture, of the full prompt.
        plain: latents of the adapters' picture of the full prompt, as any app draws it; None where
            several attributes were looked for each by itself.
    """

    control_map: torch.Tensor
    reference: list[SamplerStep]
    response: list[SamplerStep]
    plain: torch.Tensor | None = None


@torch.no_grad()
def draw_locally(
    base: Base,
    states: torch.Tensor,
    seeds: Sequence[int],
    *,
    within: torch.Tensor,
    acting: Callable[[], AbstractContextManager[Any]],
    each: Sequence[Asking] = (),
    late: Sequence[Late] = (),
    always: bool = False,
    reference: list[SamplerStep] | None = None,
    held: bool = False,
    **how: Any,
) -> LocalPicture:
    """Draw locally.

    Args:
        base: the frozen model, with no adapter on.
        states: text states of the full prompts, (batch, 77, width).
        seeds: one per picture.
        within: text states of the prompts without the attribute, of one for all or of each.
        acting: puts the adapters on for the full prompts, while its context lasts.
        each: of several attributes each by itself; their maps are joined. The loudest would
            hide the others in one map of all.
        late: see `sample_latents`.
        always: see `Asking`.
        reference: the base's own picture as `followed` returns it, where it is drawn already.
        held: whether guidance leads away from what the frozen model predicts for no prompt, as with
            a file that is held still there; `acting` then yields what makes the model frozen.
        how: `steps`, `guidance`, `size` and `style` of `sample_latents`.
    """
    within = within.expand_as(states)
    if reference is None:
        reference = followed(base, within, seeds, **how)
    control = torch.zeros_like(reference[0].noisy[:, :1])
    drawn: list[SamplerStep] = []
    for asking in each or [Asking(states, acting, late, always)]:
        where, drawn = _region(base, reference, within, asking, seeds, **how)
        control = torch.maximum(control, where)
    empty = encode(base, [""]) if held else None  # as the frozen model reads it
    with acting() as frozen:
        how["negative"] = None if empty is None else unmoved(base, empty, frozen)
        response = put_back(
            base, states, seeds, reference=reference, control=control, late=late, **how
        )
    return LocalPicture(control, reference, response, None if each else drawn[-1].latents)


def put_back(
    base: Base,
    states: torch.Tensor,
    seeds: Sequence[int],
    *,
    reference: Sequence[SamplerStep],
    control: torch.Tensor,
    **how: Any,
) -> list[SamplerStep]:
    """Return every step of a picture whose latents outside of a map are another's.

    Args:
        base: with the adapters on.
        states: text states, (batch, 77, width).
        seeds: one per picture.
        reference: steps of the other picture.
        control: the map, (batch, 1, h, w) in [0, 1].
        how: of `sample_latents`.
    """
    track, response = iter(reference), list[SamplerStep]()

    def back(step: SamplerStep) -> torch.Tensor:
        kept = torch.lerp(next(track).latents, step.latents, control)
        response.append(step._replace(latents=kept))
        return kept

    sample_latents(base, states, seeds, after=back, **how)
    return response


def unmoved(
    base: Base, empty: torch.Tensor, frozen: Callable[[], AbstractContextManager[None]]
) -> Predict:
    """Return what predicts noise for no prompt by the frozen model, while adapters are on.

    Args:
        base: with the adapters on.
        empty: text states of no prompt, (1, 77, width).
        frozen: makes it the frozen model while its context lasts.
    """

    def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with frozen():
            states = empty.expand(len(noisy), -1, -1)
            eps: torch.Tensor = base.unet(noisy, t, states, return_dict=False)[0]
            return eps

    return predict


@torch.no_grad()
def local_maps(
    base: Base,
    states: torch.Tensor,
    seeds: Sequence[int],
    *,
    within: torch.Tensor,
    acting: Callable[[], AbstractContextManager[None]],
    **how: Any,
) -> torch.Tensor:
    """Return where a local picture would differ from the base's, (batch, 1, h, w) in [0, 1].

    The arguments are those of `draw_locally`.
    """
    within = within.expand_as(states)
    reference = followed(base, within, seeds, **how)
    return _region(base, reference, within, Asking(states, acting), seeds, **how)[0]


def sample_locally(
    base: Base, states: torch.Tensor, seeds: Sequence[int], **how: Any
) -> torch.Tensor:
    """Return scaled latents (batch, channels, h, w); the arguments are those of `draw_locally`."""
    return draw_locally(base, states, seeds, **how).response[-1].latents


def _region(
    base: Base,
    reference: Sequence[SamplerStep],
    within: torch.Tensor,
    asking: Asking,
    seeds: Sequence[int],
    **how: Any,
) -> tuple[torch.Tensor, list[SamplerStep]]:
    """Return the control map of one attribute, a little wider, and how the adapters draw it."""
    states, acting, late, always = asking
    with acting():
        both = torch.cat([encode(base, [""]).expand_as(states), states])
        drawn = followed(base, states, seeds, late=late, **how)
        along_base = _apart(base, reference, both, late)
    where = control_map.region(along_base, _apart(base, drawn, within, late))
    asked = (states != within).any(dim=2).any(dim=1) | always
    return where * asked[:, None, None, None], drawn


def followed(
    base: Base, states: torch.Tensor, seeds: Sequence[int], **how: Any
) -> list[SamplerStep]:
    """Return every step of a picture; the arguments are those of `sample_latents`."""
    track: list[SamplerStep] = []

    def follow(step: SamplerStep) -> torch.Tensor:
        track.append(step)
        return step.latents

    sample_latents(base, states, seeds, after=follow, **how)
    return track


def _apart(
    base: Base, steps: Sequence[SamplerStep], states: torch.Tensor, late: Sequence[Late]
) -> torch.Tensor:
    """Return how far another model's pictures are from these in all, (batch, 1, h, w).

    Each step at which the full prompt is drawn counts by the distance of the pictures predicted
    there, which is eps' times sqrt((1 - a) / a): large times decide where everything is.

    Args:
        base: as the other model.
        steps: of these pictures.
        states: the other model's; or as guidance has them, the empty prompt's before them.
        late: see `sample_latents`.
    """
    total = torch.zeros_like(steps[0].noisy[:, :1])
    for step in steps:
        if all(begun(step.t, one.start_percent) for one in late):
            halves = len(states) // len(step.noisy)
            noisy = torch.cat([step.noisy] * halves)
            eps = base.unet(noisy, step.t, states, return_dict=False)[0].chunk(halves)[-1]
            kept = float(base.scheduler.alphas_cumprod[int(step.t)])
            total += control_map.apart(eps, step.eps) * ((1 - kept) / kept) ** 0.5
    return total
