"""What each step sees: which pictures, in which role, at which time, under which noise.

Everything follows from the seed and the step's number alone, so a resumed run draws the same.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from spf_lora.data.buckets import draw, schedule
from spf_lora.training.prepare import Prepared, Size

_GOLDEN, _SILVER, _BRONZE = 0.6180339887498949, 0.41421356237309515, 0.3027756377319946


@dataclass(frozen=True)
class Mix:
    """Shares of a batch's samples that are no training picture; the rest are.

    Attributes:
        twins: the base's own picture of a base prompt, under the full prompt: the place where
            nothing but the attribute may appear.
        base_prompts: the same under the base prompt, where the adapter must do nothing.
        empty_prompts: the same under no prompt, which classifier-free guidance subtracts.
    """

    twins: float = 0.0
    base_prompts: float = 0.0
    empty_prompts: float = 0.0

    @property
    def needs_twins(self) -> bool:
        """Whether any sample is one of the base's own pictures."""
        return self.twins + self.base_prompts + self.empty_prompts > 0


NOTHING_ELSE = Mix()


@dataclass(frozen=True)
class Batch:
    """One step's samples.

    Attributes:
        latents: clean, (batch, channels, h, w).
        noise: what was added, same shape.
        noisy: the sum at time t, same shape.
        t: time steps, (batch,).
        rows: which picture, (batch,).
        places: which picture for the map memory; a twin has a place of its own, (batch,).
        base_states: states of the base prompts, empty ones where the role says so.
        full_states: what the adapter is asked, (batch, 77, width).
        base_groups: token groups of the base prompts, (batch, 77, 77).
        full_groups: token groups of what the adapter is asked.
        real: (batch,) 1 for a training picture.
        asked: (batch,) 1 where the target is asked for.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    noisy: torch.Tensor
    t: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    base_states: torch.Tensor
    full_states: torch.Tensor
    base_groups: torch.Tensor
    full_groups: torch.Tensor
    real: torch.Tensor
    asked: torch.Tensor


def _sequence(first: int, size: int, step: float, seed: int) -> np.ndarray:
    """Return `size` terms of a Weyl sequence in [0, 1), which fills the unit evenly."""
    start = np.random.default_rng(seed).random()
    terms: np.ndarray = (start + step * np.arange(first, first + size)) % 1.0
    return terms


def of_batch(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the rows of a batch of (n, channels, h, w), cut to the size of its latents."""
    height, width = batch.latents.shape[-2:]
    return values[batch.rows][..., :height, :width]


@lru_cache
def _members(sizes: tuple[Size, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the rows of each size."""
    return tuple(
        tuple(row for row, of in enumerate(sizes) if of == size) for size in dict.fromkeys(sizes)
    )


@lru_cache
def _turns(counts: tuple[int, ...], steps: int) -> tuple[np.ndarray, ...]:
    return schedule(counts, steps)


def _rows(sizes: tuple[Size, ...], *, index: int, size: int, seed: int) -> list[int]:
    members = _members(sizes)
    if len(members) == 1:
        return draw(members[0], turn=index, batch_size=size, seed=seed)
    # A schedule begins as every longer one does, so its length may grow with the run.
    buckets, turns = _turns(tuple(map(len, members)), 1 << (index + 1).bit_length())
    return draw(members[buckets[index]], turn=int(turns[index]), batch_size=size, seed=seed)


def draw_batch(
    data: Prepared, scheduler: Any, *, index: int, size: int, seed: int, mix: Mix
) -> Batch:
    """Draw what step `index` sees: pictures of one size, each as often as any other."""
    n, first = len(data), index * size
    device = data.latents.device
    rows = _rows(data.sizes, index=index, size=size, seed=seed)
    height, width = data.sizes[rows[0]]
    chosen = torch.tensor(rows, device=device)
    role = torch.from_numpy(_sequence(first, size, _SILVER, seed + 1)).to(device)
    empty = role < mix.empty_prompts
    unasked = role < mix.empty_prompts + mix.base_prompts  # empty ones too
    own = role < mix.empty_prompts + mix.base_prompts + mix.twins
    twins = data if data.twins is None else data.twins
    which = torch.from_numpy(_sequence(first, size, _BRONZE, seed + 2)).to(device)
    twin = chosen + n * (which * (len(twins.latents) // n)).long()

    def picked(of_pictures: torch.Tensor, of_twins: torch.Tensor) -> torch.Tensor:
        shape = (size, *(1 for _ in of_pictures.shape[1:]))
        return torch.where(own.reshape(shape), of_twins[twin], of_pictures[chosen])

    latents = picked(data.latents, twins.latents)[..., :height, :width]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    steps = scheduler.config.num_train_timesteps
    t = torch.from_numpy(_sequence(first, size, _GOLDEN, seed) * steps).long().to(device)
    base_states = picked(data.base_states, twins.base_states)
    base_states = torch.where(empty[:, None, None], data.empty_state, base_states)
    full_states = picked(data.full_states, twins.full_states)
    base_groups = picked(data.base_groups, twins.base_groups)
    full_groups = picked(data.full_groups, twins.full_groups)
    return Batch(
        latents=latents,
        noise=noise,
        noisy=scheduler.add_noise(latents, noise, t),
        t=t,
        rows=chosen,
        places=torch.where(own, n + twin, chosen),
        base_states=base_states,
        full_states=torch.where(unasked[:, None, None], base_states, full_states),
        base_groups=base_groups,
        full_groups=torch.where(unasked[:, None, None], base_groups, full_groups),
        real=(~own).to(latents.dtype),
        asked=(~unasked).to(latents.dtype),
    )


def part_of(batch: Batch, where: slice) -> Batch:
    """Return some of a batch's samples."""
    return Batch(**{f.name: getattr(batch, f.name)[where] for f in fields(batch)})
