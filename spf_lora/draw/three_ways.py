"""One prompt drawn three ways from one noise: by the base, as any app draws it, and locally."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from spf_lora.base.load import Base
from spf_lora.draw.act import Acting, asked_locally, draw_latents, text_states
from spf_lora.draw.local import draw_locally, followed
from spf_lora.draw.prompts import Prompt
from spf_lora.draw.sample import PLAIN, SamplerStep, decode

Kept = MutableMapping[tuple[Any, ...], list[SamplerStep]]  # the base's own pictures, step by step


@dataclass(frozen=True)
class ThreeWays:
    """Pictures of one prompt, one for each seed in every list.

    Attributes:
        base: the base's own, of the prompt without the attribute.
        plain: with the adapters, as any app draws it.
        local: with the adapters in the control map alone; none where it is not asked for.
        maps: control maps of `local`, grey, as large as the pictures.
    """

    base: list[Image.Image]
    plain: list[Image.Image]
    local: list[Image.Image]
    maps: list[Image.Image]


@torch.no_grad()
def draw_three_ways(
    base: Base,
    prompt: Prompt,
    seeds: Sequence[int],
    acting: Acting,
    *,
    steps: int,
    guidance: float,
    kept: Kept,
) -> ThreeWays:
    """Draw a prompt three ways; the base's pictures are taken from `kept`, and put there.

    Args:
        base: the model, with no adapter on.
        prompt: with `within`, the text of the base's pictures.
        seeds: one for each row.
        acting: the adapters; whether they are drawn locally too is its `local`.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
        kept: what was drawn before of this base.
    """
    prompts, within = [prompt] * len(seeds), prompt.within or prompt.text
    how: dict[str, Any] = {"steps": steps, "guidance": guidance, "style": PLAIN, "size": None}
    key = (within, tuple(seeds), steps, guidance)
    if key not in kept:
        kept[key] = followed(base, text_states(base, [within] * len(seeds)), seeds, **how)
    reference = kept[key]
    own = decode(base, reference[-1].latents)
    if not acting.adapters:
        return ThreeWays(own, own, [], [])
    if not acting.local:
        return ThreeWays(
            own, decode(base, draw_latents(base, prompts, seeds, acting, **how)), [], []
        )
    drawn = draw_locally(
        base, seeds=seeds, **asked_locally(base, prompts, acting), reference=reference, **how
    )
    plain = drawn.plain
    if plain is None:
        as_any_app = Acting(acting.adapters, acting.strengths, acting.starts)
        plain = draw_latents(base, prompts, seeds, as_any_app, **how)
    maps = [_grey(one, own[0].size) for one in drawn.control_map]
    local = decode(base, drawn.response[-1].latents)
    return ThreeWays(own, decode(base, plain), local, maps)


@contextmanager
def watched(base: Base, tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` before each evaluation of the U-Net while the context lasts; it may raise."""
    hook = base.unet.register_forward_pre_hook(lambda *_: tick())
    try:
        yield
    finally:
        hook.remove()


def _grey(control: torch.Tensor, size: tuple[int, int]) -> Image.Image:
    """Return one control map (1, h, w) in [0, 1] as a grey picture."""
    pixels = (control[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
