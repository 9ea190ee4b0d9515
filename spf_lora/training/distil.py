"""Stage 2, distil: the file is taught what local drawing shows (ours).

It is the dual path of SPF-Portrait (arXiv 2504.00396) along the sampler's own trajectory. The
reference path is the frozen base with the base prompt, the response path the adapter with the full
prompt, and the control map is where the two differ. The teacher is the adapter of stage 1, drawn
locally; the student is the file.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from spf_lora.data.buckets import draw
from spf_lora.draw.trajectories import Lessons, Trajectories
from spf_lora.training.batch import BRONZE, SILVER, even_spread
from spf_lora.training.objectives import Outcome

HOLD_WEIGHT = 10.0  # of a sample that does not ask, beside one that does
BETWEEN = 0.25  # share of the samples that ask from between the two pictures of a pair
_LEAST_AREA = 0.02
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
        weights: how much the error counts at each place, (batch, 1, h, w), see `alike`.
        away: (batch,) 1 where a slider is at strength -1, which takes the attribute away.
    """

    noisy: torch.Tensor
    t: torch.Tensor
    states: torch.Tensor
    wanted: torch.Tensor
    asks: torch.Tensor
    weights: torch.Tensor
    away: torch.Tensor


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
        full_states: text states of the pairs' full prompts, (pairs, 77, width); or their token
            ids, (pairs, 77), where the text encoder is trained too.
        base_states: of base prompts, more than there are pairs.
        empty_state: of no prompt.
        shares: of what a batch holds.
        alphas: the scheduler's cumulated alphas, (time steps,).
        seed: decides the order.
        device: where samples go.
        worded_states: of a slider, states of the prompts with the target, which are asked at
            strength -1; None where words bring the attribute.
    """

    trajectories: Trajectories
    full_states: torch.Tensor
    base_states: torch.Tensor
    empty_state: torch.Tensor
    shares: Shares
    alphas: torch.Tensor
    seed: int
    device: torch.device
    worded_states: torch.Tensor | None = None

    def batch(self, index: int, size: int) -> Lesson:
        """Return the samples of step `index`."""
        known, first = self.trajectories, index * size
        every = tuple(range(len(known.pairs)))
        pairs = draw(every, turn=index, batch_size=size, seed=self.seed)
        moments = torch.from_numpy(even_spread(first, size, self.seed) * len(known.times)).long()
        read = known.lessons(pairs, moments.tolist())
        t = known.times[moments]
        held, held_t, said = self._held(index, pairs)
        role, place = (
            torch.from_numpy(even_spread(first, size, self.seed + 1 + i, step)).float()
            for i, step in enumerate((SILVER, BRONZE))
        )
        empty = role < self.shares.empty_prompts
        base = ~empty & (role < self.shares.empty_prompts + self.shares.base_prompts)
        # 0 on the base's picture, 1 on the local one; at small times a picture is what it is
        share = torch.maximum((place / BETWEEN).clamp(max=1), ((_DECIDED - t) / _FADE).clamp(0, 1))
        alphas, full = self.alphas[t].float(), self.full_states[pairs]
        maps = torch.stack([known.maps[pair] for pair in pairs])
        noisy, wanted = between(read, share, alphas, known.guidance)
        asks, away = ~(empty | base), torch.zeros(size, dtype=torch.bool)
        if self.worded_states is not None:
            turn = even_spread(first, size, self.seed + 4) * 4  # of four: two forwards, two back
            away = torch.from_numpy(turn < 2)
            own, _ = known.pictures(pairs)
            picture = torch.lerp(led_to(read, alphas), own, maps)
            back = towards(read, 1 - share, alphas, known.guidance, picture)
            noisy, wanted = _where(away, back[0], noisy), _where(away, back[1], wanted)
            full = _where(torch.from_numpy(turn < 1), self.worded_states[pairs], full)
        states = _where(base, said, _where(empty, self.empty_state.expand_as(full), full))
        return Lesson(
            noisy=_where(asks, noisy, held).to(self.device),
            t=torch.where(asks, t, held_t).to(self.device),
            states=states.to(self.device),
            wanted=_where(asks, wanted, torch.zeros_like(wanted)).to(self.device),
            asks=asks.float().to(self.device),
            weights=_where(asks, alike(maps), torch.ones_like(maps)).to(self.device),
            away=away.float().to(self.device),
        )

    def _held(
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
        prompts = torch.randint(len(self.base_states), (size,), generator=generator)
        spread = even_spread(index * size, size, self.seed + 3)
        t = torch.from_numpy(spread * len(self.alphas)).long()
        a = self.alphas[t].float()[:, None, None, None]
        return a.sqrt() * picture + (1 - a).sqrt() * noise, t, self.base_states[prompts]


def _where(condition: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Choose row by row."""
    return torch.where(condition.reshape(-1, *(1 for _ in one.shape[1:])), one, other)


def alike(maps: torch.Tensor) -> torch.Tensor:
    """Return weights by which the inside and the outside of control maps count alike.

    However small an attribute is, half of what is learned of a picture that has it is the
    attribute: m / A + (1 - m) / (1 - A), A the area of the map m. They are 2 on average.

    Args:
        maps: (rows, 1, h, w) in [0, 1].
    """
    area = maps.mean(dim=(1, 2, 3), keepdim=True).clamp(_LEAST_AREA, 1 - _LEAST_AREA)
    return maps / area + (1 - maps) / (1 - area)


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
    return towards(read, share, alphas, guidance, led_to(read, alphas))


def led_to(read: Lessons, alphas: torch.Tensor) -> torch.Tensor:
    """Return the pictures that the taught predictions lead to, x0 of `between`."""
    a = alphas[:, None, None, None]
    return (read.noisy - (1 - a).sqrt() * read.guided) / a.sqrt()


def towards(
    read: Lessons,
    share: torch.Tensor,
    alphas: torch.Tensor,
    guidance: float,
    picture: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents between two pictures, and the prediction that leads to `picture` from there.

    The arguments are those of `between`; a slider at strength -1 leads to the picture without the
    attribute where the two differ.
    """
    r, a = (values[:, None, None, None] for values in (share, alphas))
    noisy = torch.lerp(read.base_noisy, read.noisy, r)
    empty = torch.lerp(read.base_empty, read.empty, r)
    guided = (noisy - a.sqrt() * picture) / (1 - a).sqrt()
    return noisy, empty + (guided - empty) / guidance


class Distil:
    """Squared error of the predicted noise.

    mean of w(t) |eps(x_t, prompt) - wanted|^2, where w is `time_weights` and `HOLD_WEIGHT` times as
    much for a sample that does not ask. See `between` for what is wanted of one that does, and
    `alike` for where; of one that does not, what the frozen model predicts, everywhere.

    Args:
        unet: carries the adapter.
        weights: of the time steps, (steps,).
        frozen: the model is the frozen one while its context lasts.
        reversed_: the adapter is at strength -1 while its context lasts.
    """

    def __init__(
        self,
        unet: Any,
        weights: torch.Tensor,
        frozen: Callable[[], AbstractContextManager[None]],
        reversed_: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.unet, self.weights, self.frozen = unet, weights, frozen
        self.reversed = reversed_

    def __call__(self, batch: Lesson) -> Outcome:
        """Return the loss, and its mean over samples that ask and that do not."""
        held, wanted = batch.asks == 0, batch.wanted.clone()
        if held.any():
            rows = batch.noisy[held], batch.t[held], batch.states[held]
            with torch.no_grad(), self.frozen():
                wanted[held] = self.unet(*rows, return_dict=False)[0]
        eps = self._predicted(batch)
        error = ((eps - wanted).square() * batch.weights).mean(dim=(1, 2, 3))
        error = error * self.weights.to(error.device)[batch.t]
        hold = 1 - batch.asks
        return Outcome(
            (error * (batch.asks + HOLD_WEIGHT * hold)).mean(),
            {"local": (error * batch.asks).mean().item(), "hold": (error * hold).mean().item()},
        )

    def _predicted(self, batch: Lesson) -> torch.Tensor:
        """Return the student's prediction, at strength -1 for what takes the attribute away."""
        away, eps = batch.away > 0, torch.empty_like(batch.noisy)
        for rows, how in ((~away, nullcontext), (away, self.reversed)):
            if rows.any():
                some = batch.noisy[rows], batch.t[rows], batch.states[rows]
                with how():
                    eps[rows] = self.unet(*some, return_dict=False)[0]
        return eps
