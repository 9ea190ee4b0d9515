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

# steps of Weyl sequences
GOLDEN, SILVER, BRONZE = 0.6180339887498949, 0.41421356237309515, 0.3027756377319946


@dataclass(frozen=True)
class Batch:
    """One step's samples.

    Attributes:
        noise: what was added to the clean latents, (batch, channels, h, w).
        noisy: the sum at time t, same shape.
        t: time steps, (batch,).
        rows: which picture, (batch,).
        base_states: states of the base prompts, (batch, 77, width), or token ids; see `Prepared`.
        full_states: what the adapter is asked, same shape.
        base_groups: token groups of the base prompts, (batch, 77, 77).
        full_groups: token groups of what the adapter is asked.
        real: (batch,) 1 for a training picture, 0 for one of the base's own.
    """

    noise: torch.Tensor
    noisy: torch.Tensor
    t: torch.Tensor
    rows: torch.Tensor
    base_states: torch.Tensor
    full_states: torch.Tensor
    base_groups: torch.Tensor
    full_groups: torch.Tensor
    real: torch.Tensor


def even_spread(first: int, size: int, seed: int, step: float = GOLDEN) -> np.ndarray:
    """Return `size` terms of a Weyl sequence in [0, 1), which fills the unit evenly."""
    start = np.random.default_rng(seed).random()
    terms: np.ndarray = (start + step * np.arange(first, first + size)) % 1.0
    return terms


def of_batch(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the rows of a batch of (n, channels, h, w), cut to the size of its latents."""
    height, width = batch.noisy.shape[-2:]
    return values[batch.rows][..., :height, :width]


@lru_cache
def _members(sizes: tuple[Size, ...], repeats: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the rows of each size, each as often as it counts."""
    rows = [row for row in range(len(sizes)) for _ in range(repeats[row] if repeats else 1)]
    return tuple(tuple(r for r in rows if sizes[r] == size) for size in dict.fromkeys(sizes))


@lru_cache
def _turns(counts: tuple[int, ...], steps: int) -> tuple[np.ndarray, ...]:
    return schedule(counts, steps)


def _rows(data: Prepared, *, index: int, size: int, seed: int) -> list[int]:
    members = _members(data.sizes, data.repeats)
    if len(members) == 1:
        return draw(members[0], turn=index, batch_size=size, seed=seed)
    # A schedule begins as every longer one does, so its length may grow with the run.
    buckets, turns = _turns(tuple(map(len, members)), 1 << (index + 1).bit_length())
    return draw(members[buckets[index]], turn=int(turns[index]), batch_size=size, seed=seed)


def draw_batch(
    data: Prepared, scheduler: Any, *, index: int, size: int, seed: int, own_share: float = 0.0
) -> Batch:
    """Draw what step `index` sees: pictures of one size, each as often as it counts.

    A share `own_share` of the samples are the base's own pictures under their base prompts.
    """
    first = index * size
    device = data.latents.device
    rows = _rows(data, index=index, size=size, seed=seed)
    height, width = data.sizes[rows[0]]
    chosen = torch.tensor(rows, device=device)
    own = torch.from_numpy(even_spread(first, size, seed + 1, SILVER) < own_share).to(device)

    def picked(of_pictures: torch.Tensor, of_own: torch.Tensor | None) -> torch.Tensor:
        if of_own is None:
            return of_pictures[chosen]
        shape = (size, *(1 for _ in of_pictures.shape[1:]))
        return torch.where(own.reshape(shape), of_own[chosen], of_pictures[chosen])

    latents = picked(data.latents, data.own)[..., :height, :width]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    steps = scheduler.config.num_train_timesteps
    t = torch.from_numpy(even_spread(first, size, seed) * steps).long().to(device)
    own_states = None if data.own is None else data.base_states
    return Batch(
        noise=noise,
        noisy=scheduler.add_noise(latents, noise, t),
        t=t,
        rows=chosen,
        base_states=data.base_states[chosen],
        full_states=picked(data.full_states, own_states),
        base_groups=data.base_groups[chosen],
        full_groups=data.full_groups[chosen],
        real=(~own).to(latents.dtype),
    )


def part_of(batch: Any, where: slice) -> Any:
    """Return some of a batch's samples, whatever stage it belongs to."""
    return type(batch)(**{f.name: getattr(batch, f.name)[where] for f in fields(batch)})
