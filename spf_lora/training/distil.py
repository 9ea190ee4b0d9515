"""Stage 2, distil: the file is taught what local drawing shows (ours).

It is the dual path of SPF-Portrait (arXiv 2504.00396) along the sampler's own trajectory. The
reference path is the frozen base with the base prompt, the response path the adapter with the full
prompt, and the control map is where the two differ. The teacher is the adapter of stage 1, drawn
locally; the student is the file.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from spf_lora.data.buckets import draw
from spf_lora.draw.trajectories import Lessons, Trajectories
from spf_lora.training.batch import BRONZE, COPPER, GOLDEN, SILVER, even_spread
from spf_lora.training.objectives import Outcome

HOLD_WEIGHT = 6.0  # of a sample that does not ask, beside one that does
FRESH = 0.5  # share of those that do not ask on noise and under prompts that no step has seen
BETWEEN = 0.25  # share of the samples that ask from between the two pictures of a pair
_DECIDED, _FADE = 500, 300  # time steps: between the pictures above, on the local one below 200


@dataclass(frozen=True)
class Lesson:
    """One step's samples.

    Attributes:
        noisy: latents, (batch, channels, h, w).
        t: time steps, (batch,).
        states: text states of what is asked there, (batch, 77, width), or token ids, (batch, 77).
        wanted: what should be predicted, same shape as `noisy`; 0 where the frozen model says it.
        asks: (batch,) 1 where the target is asked for; elsewhere the frozen model is held to.
    """

    noisy: torch.Tensor
    t: torch.Tensor
    states: torch.Tensor
    wanted: torch.Tensor
    asks: torch.Tensor


@dataclass(frozen=True)
class Shares:
    """Shares of a batch that do not ask for the target; the rest do.

    Attributes:
        base_prompts: samples under a base prompt.
        empty_prompts: samples under no prompt, whose prediction guidance subtracts.
    """

    base_prompts: float
    empty_prompts: float


@dataclass(frozen=True)
class Curriculum:
    """Draws a step's samples; everything follows from the seed and the step's number.

    Attributes:
        trajectories: what is taught.
        kept: which pairs of them.
        full_states: text states of the pairs' full prompts, (pairs, 77, width); or their token
            ids, (pairs, 77), where the text encoder is trained too.
        base_states: of their base prompts.
        other_states: of other base prompts, more than there are pairs.
        empty_state: of no prompt.
        shares: of what a batch holds.
        alphas: the scheduler's cumulated alphas, (time steps,).
        seed: decides the order.
        device: where samples go.
    """

    trajectories: Trajectories
    kept: Sequence[int]
    full_states: torch.Tensor
    base_states: torch.Tensor
    other_states: torch.Tensor
    empty_state: torch.Tensor
    shares: Shares
    alphas: torch.Tensor
    seed: int
    device: torch.device

    def batch(self, index: int, size: int) -> Lesson:
        """Return the samples of step `index`."""
        known, first = self.trajectories, index * size
        pairs = draw(tuple(self.kept), turn=index, batch_size=size, seed=self.seed)
        moments = torch.from_numpy(even_spread(first, size, self.seed) * len(known.times)).long()
        read = known.lessons(pairs, moments.tolist())
        t = known.times[moments]
        role, place = (self._spread(index, size, which) for which in (1, 2))
        empty = role < self.shares.empty_prompts
        base = ~empty & (role < self.shares.empty_prompts + self.shares.base_prompts)
        # 0 on the base's picture, 1 on the local one; at small times a picture is what it is
        share = torch.maximum((place / BETWEEN).clamp(max=1), ((_DECIDED - t) / _FADE).clamp(0, 1))
        noisy, wanted = between(read, share, self.alphas[t].float(), known.guidance)
        asks, full = ~(empty | base), self.full_states[pairs]
        fresh, fresh_t, others = self._fresh(index, pairs)
        new = ~asks & (self._spread(index, size, 3) < FRESH)
        own = _where(new, others, self.base_states[pairs])
        states = _where(base, own, _where(empty, self.empty_state.expand_as(full), full))
        track = _where(base, read.base_noisy, _where(empty, read.noisy, noisy))
        return Lesson(
            noisy=_where(new, fresh, track).to(self.device),
            t=torch.where(new, fresh_t, t).to(self.device),
            states=states.to(self.device),
            wanted=_where(asks, wanted, torch.zeros_like(wanted)).to(self.device),
            asks=asks.float().to(self.device),
        )

    def _spread(self, index: int, size: int, which: int) -> torch.Tensor:
        """Return numbers that fill [0, 1) evenly over steps, others for each `which`."""
        step = (GOLDEN, SILVER, BRONZE, COPPER)[which]
        return torch.from_numpy(even_spread(index * size, size, self.seed + which, step)).float()

    def _fresh(
        self, index: int, pairs: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return latents, time steps and states of base prompts that no step before has seen.

        The latents are a pair's pictures with new noise, half of them the base's own. The frozen
        model says what to predict there, so what is held still need not be drawn before.
        """
        size = len(pairs)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        own, local = self.trajectories.pictures(pairs)
        picture = _where(torch.rand(size, generator=generator) < 0.5, own, local)
        noise = torch.randn(picture.shape, generator=generator)
        prompts = torch.randint(len(self.other_states), (size,), generator=generator)
        spread = even_spread(index * size, size, self.seed + 9)
        t = torch.from_numpy(spread * len(self.alphas)).long()
        a = self.alphas[t].float()[:, None, None, None]
        return a.sqrt() * picture + (1 - a).sqrt() * noise, t, self.other_states[prompts]


def _where(condition: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Choose row by row."""
    return torch.where(condition.reshape(-1, *(1 for _ in one.shape[1:])), one, other)


def between(
    read: Lessons, share: torch.Tensor, alphas: torch.Tensor, guidance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents between the two pictures of each pair, and what should be predicted there.

    A student that has not begun an attribute sees latents without it; on the local picture's own
    track alone it would never learn to begin (exposure bias). So x = (1 - r) x_base + r x_local.
    Everywhere the guided prediction should lead to the local picture x0:
    g = (x - sqrt(a) x0) / sqrt(1 - a), and wanted = eps_0 + (g - eps_0) / s.

    Args:
        read: steps of pairs, (rows, channels, h, w) each.
        share: r of each, (rows,) in [0, 1]; with 1 g is `read.guided`.
        alphas: cumulated alpha of each, (rows,).
        guidance: s.
    """
    r, a = (values[:, None, None, None] for values in (share, alphas))
    picture = (read.noisy - (1 - a).sqrt() * read.guided) / a.sqrt()
    noisy = torch.lerp(read.base_noisy, read.noisy, r)
    empty = torch.lerp(read.base_empty, read.empty, r)
    guided = (noisy - a.sqrt() * picture) / (1 - a).sqrt()
    return noisy, empty + (guided - empty) / guidance


class Distil:
    """Squared error of the predicted noise.

    mean of w(t) |eps(x_t, prompt) - wanted|^2, where w is `time_weights` and `HOLD_WEIGHT` times as
    much for a sample that does not ask. See `between` for what is wanted of one that does; of one
    that does not, what the frozen model predicts.

    Args:
        unet: carries the adapter.
        weights: of the time steps, (steps,).
        frozen: the model is the frozen one while its context lasts.
    """

    def __init__(
        self,
        unet: Any,
        weights: torch.Tensor,
        frozen: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.unet, self.weights, self.frozen = unet, weights, frozen

    def __call__(self, batch: Lesson) -> Outcome:
        """Return the loss, and its mean over samples that ask and that do not."""
        held, wanted = batch.asks == 0, batch.wanted.clone()
        if held.any():
            rows = batch.noisy[held], batch.t[held], batch.states[held]
            with torch.no_grad(), self.frozen():
                wanted[held] = self.unet(*rows, return_dict=False)[0]
        eps = self.unet(batch.noisy, batch.t, batch.states, return_dict=False)[0]
        error = (eps - wanted).square().mean(dim=(1, 2, 3))
        error = error * self.weights.to(error.device)[batch.t]
        hold = 1 - batch.asks
        return Outcome(
            (error * (batch.asks + HOLD_WEIGHT * hold)).mean(),
            {"local": (error * batch.asks).mean().item(), "hold": (error * hold).mean().item()},
        )
