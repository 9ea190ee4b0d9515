"""Stage 2, distil: the file is taught what local drawing shows (ours).

It is the dual path of SPF-Portrait (arXiv 2504.00396) along the sampler's own trajectory. The
reference path is the frozen base with the base prompt, the response path the adapter with the full
prompt, and the control map is where the two differ. The teacher is the adapter of stage 1, drawn
locally; the student is the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spf_lora.data.buckets import draw
from spf_lora.draw.trajectories import Lessons, Trajectories
from spf_lora.training.batch import BRONZE, SILVER, even_spread
from spf_lora.training.objectives import Outcome

HOLD_WEIGHT = 2.0  # of a sample that does not ask, beside one that does
BETWEEN = 0.25  # share of the samples that ask from between the two pictures of a pair
_DECIDED, _FADE = 500, 300  # time steps: between the pictures above, on the local one below 200


@dataclass(frozen=True)
class Lesson:
    """One step's samples.

    Attributes:
        noisy: latents on a trajectory, (batch, channels, h, w).
        t: time steps, (batch,).
        states: text states of what is asked there, (batch, 77, width), or token ids, (batch, 77).
        wanted: what should be predicted, same shape as `noisy`.
        asks: (batch,) 1 where the target is asked for.
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
        base_prompts: samples of the base's own picture under its base prompt.
        empty_prompts: samples of the local picture under no prompt, which guidance subtracts.
    """

    base_prompts: float
    empty_prompts: float


@dataclass(frozen=True)
class Curriculum:
    """Draws a step's samples; everything follows from the seed and the step's number.

    Attributes:
        trajectories: what is taught.
        kept: which pairs of them.
        base_states: text states of the pairs' base prompts, (pairs, 77, width); or their token
            ids, (pairs, 77), where the text encoder is trained too.
        full_states: of their full prompts, same shape.
        empty_state: of no prompt, (77, width) or (77,).
        shares: of what a batch holds.
        alphas: the scheduler's cumulated alphas, (time steps,).
        seed: decides the order.
        device: where samples go.
    """

    trajectories: Trajectories
    kept: Sequence[int]
    base_states: torch.Tensor
    full_states: torch.Tensor
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
        role, place = (
            torch.from_numpy(even_spread(first, size, self.seed + 1 + i, step)).float()
            for i, step in enumerate((SILVER, BRONZE))
        )
        empty = role < self.shares.empty_prompts
        base = ~empty & (role < self.shares.empty_prompts + self.shares.base_prompts)
        # 0 on the base's picture, 1 on the local one; at small times a picture is what it is
        share = torch.maximum((place / BETWEEN).clamp(max=1), ((_DECIDED - t) / _FADE).clamp(0, 1))
        noisy, wanted = between(read, share, self.alphas[t].float(), known.guidance)

        def chosen(asking: torch.Tensor, own: torch.Tensor, none: torch.Tensor) -> torch.Tensor:
            shape = (size, *(1 for _ in asking.shape[1:]))
            rows = torch.where(base.reshape(shape), own, asking)
            return torch.where(empty.reshape(shape), none, rows).to(self.device)

        full, without = (states[pairs] for states in (self.full_states, self.base_states))
        return Lesson(
            noisy=chosen(noisy, read.base_noisy, read.noisy),
            t=t.to(self.device),
            states=chosen(full, without, self.empty_state.expand_as(full)),
            wanted=chosen(wanted, read.base_eps, read.empty),
            asks=(~(empty | base)).float().to(self.device),
        )


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
    """Squared error of the predicted noise along the trajectories.

    mean of w(t) |eps(x_t, prompt) - wanted|^2, where w is `time_weights` and twice as much for a
    sample that does not ask. See `between` for what is wanted of one that does.

    Args:
        unet: carries the adapter.
        weights: of the time steps, (steps,).
    """

    def __init__(self, unet: Any, weights: torch.Tensor) -> None:
        self.unet, self.weights = unet, weights

    def __call__(self, batch: Lesson) -> Outcome:
        """Return the loss, and its mean over samples that ask and that do not."""
        eps = self.unet(batch.noisy, batch.t, batch.states, return_dict=False)[0]
        error = (eps - batch.wanted).square().mean(dim=(1, 2, 3))
        error = error * self.weights.to(error.device)[batch.t]
        hold = 1 - batch.asks
        return Outcome(
            (error * (batch.asks + HOLD_WEIGHT * hold)).mean(),
            {"local": (error * batch.asks).mean().item(), "hold": (error * hold).mean().item()},
        )
