"""Draw pictures: DDIM with classifier-free guidance, one noise per seed, whatever the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image

from spf_lora.base.load import Base
from spf_lora.base.texts import encode
from spf_lora.draw.late import Late, begun
from spf_lora.draw.pixels import pictures_of
from spf_lora.draw.schedulers import DDIM, SAMPLERS, scheduler_of
from spf_lora.errors import PromptError

# latents as the U-Net reads them and a time step -> predicted noise
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

STEPS, GUIDANCE, BATCH = 25, 3.0, 32


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn.

    Attributes:
        steps: of the sampler.
        guidance: scale of classifier-free guidance (arXiv 2207.12598, eq. 6, w + 1).
        batch_size: pictures drawn at once.
        sampler: a name of `SAMPLERS`.
    """

    steps: int = STEPS
    guidance: float = GUIDANCE
    batch_size: int = BATCH
    sampler: str = DDIM


SAMPLING = Sampling()


@dataclass(frozen=True)
class Style:
    """What is seldom changed.

    Attributes:
        sampler: a name of `SAMPLERS`.
        negative: the prompt that guidance leads away from.
    """

    sampler: str = DDIM
    negative: str = ""


PLAIN = Style()


class SamplerStep(NamedTuple):
    """One step of a sampler.

    Attributes:
        t: the time step.
        noisy: what the U-Net reads, (batch, channels, h, w).
        eps: predicted noise with the text, without guidance, same shape.
        empty: predicted noise under the negative prompt, same shape.
        latents: after it.
    """

    t: torch.Tensor
    noisy: torch.Tensor
    eps: torch.Tensor
    empty: torch.Tensor
    latents: torch.Tensor

    def guided(self, guidance: float) -> torch.Tensor:
        """Return the prediction that the step is made with (arXiv 2207.12598, eq. 6, w + 1)."""
        return self.empty + guidance * (self.eps - self.empty)


def start_noise(
    base: Base, seeds: Sequence[int], size: tuple[int, int] | None = None
) -> torch.Tensor:
    """Return (batch, channels, h, w) noise; a seed gives the same noise on every machine."""
    return _noise(base, _generators(seeds), size)


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _noise(
    base: Base, generators: Sequence[torch.Generator], size: tuple[int, int] | None
) -> torch.Tensor:
    shape = (base.unet.config.in_channels, *(size or 2 * (base.unet.config.sample_size,)))
    rows = [torch.randn(shape, generator=generator) for generator in generators]
    return torch.stack(rows).to(base.device)


@torch.no_grad()
def sample_latents(
    base: Base,
    states: torch.Tensor,
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float,
    size: tuple[int, int] | None = None,
    style: Style = PLAIN,
    late: Sequence[Late] = (),
    after: Callable[[SamplerStep], torch.Tensor] | None = None,
    negative: Predict | None = None,
) -> torch.Tensor:
    """Return scaled latents (batch, channels, h, w) for text states (batch, 77, width).

    Without a size (h, w) they are the base's own square. With `late` the states come
    later: first what ends first. `after` each step tells the latents to go on with. `negative`
    predicts what guidance leads away from; by default the model does, for the style's prompt.

    Raises:
        PromptError: the base has not as many time steps.
    """
    known = base.scheduler.config.num_train_timesteps
    if steps >= known:  # its first time step is 1, not 0
        raise PromptError(
            f"{base.name} has {known} time steps, so it draws in less, not in {steps}",
            hint="25 are enough: --steps 25",
        )
    scheduler = scheduler_of(base.scheduler, style.sampler)
    scheduler.set_timesteps(steps)
    generators = _generators(seeds)
    latents: torch.Tensor = _noise(base, generators, size) * scheduler.init_noise_sigma
    noise = {"generator": generators} if SAMPLERS[style.sampler].noisy else {}
    empty = encode(base, [style.negative]).expand_as(states)
    first = sorted(late, key=lambda one: one.start_percent)
    earlier = [(one.start_percent, encode(base, one.prompts)) for one in first]
    for t in scheduler.timesteps:
        states_now = next((rows for start, rows in earlier if not begun(t, start)), states)
        noisy = scheduler.scale_model_input(latents, t)
        if negative is None:
            both = torch.cat([empty, states_now])  # (2 * batch, 77, width)
            eps = base.unet(torch.cat([noisy, noisy]), t, both, return_dict=False)[0]
            without, with_text = eps.chunk(2)
        else:
            without = negative(noisy, t)
            with_text = base.unet(noisy, t, states_now, return_dict=False)[0]
        guided = without + guidance * (with_text - without)
        latents = scheduler.step(guided, t, latents, return_dict=False, **noise)[0]
        if after:
            latents = after(SamplerStep(t, noisy, with_text, without, latents))
    return latents


@torch.no_grad()
def decode(base: Base, latents: torch.Tensor) -> list[Image.Image]:
    """Return the pictures of scaled latents."""
    return pictures_of(base.vae.decode(latents / base.vae.config.scaling_factor).sample)
