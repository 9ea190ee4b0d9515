"""Checks of the metric itself, on the run's own pictures; the report shows them."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from spf_lora.draw.pixels import pixels_of
from spf_lora.evaluate.gallery import read_picture
from spf_lora.evaluate.judges.judge import Judge
from spf_lora.evaluate.numbers import Pixels, load_pixels
from spf_lora.evaluate.result import CHANNELS, Draw, SelfTest
from spf_lora.evaluate.statistics import bootstrap_weights, channels, harmonic, sums_of

MOST = 64  # draws that are looked at
_SHUFFLES, _SHUFFLE_DRAWS = 200, 200
Means = Mapping[str, float]


def selftests(draws: Sequence[Draw], judge: Judge, folder: Path) -> Iterator[SelfTest]:
    """Yield every check of docs/evaluation.md that this run has the pictures for."""
    control = [draw for draw in draws if draw.strength == 0]
    some = control[:: max(1, -(-len(control) // MOST))]
    pixels = load_pixels(some, folder)
    ceiling = _ceilings(control)

    same = _moved(judge, pixels, pixels.i0, ceiling)
    yield SelfTest("same picture", "the base model against itself has P = 0", same, same == 0)
    copy = float(harmonic(np.array([0.0]), np.array([same]))[0])
    yield SelfTest("doing nothing", "a copy of the base's picture has H = 0", copy, copy == 0)
    second = torch.stack([pixels_of(read_picture(folder, d.pictures["Iy"])) for d in some])
    other = _moved(judge, pixels, second, ceiling)
    yield SelfTest(
        "another seed", "another sample has P about 1 (0.7 to 1.3)", other, 0.7 <= other <= 1.3
    )
    yield _growing(judge, pixels, ceiling)
    yield from _true_edit(judge, pixels, some, folder, ceiling)
    strengths = sorted({draw.strength for draw in draws})
    prompts = len({draw.case for draw in draws})
    if len(strengths) > 1 and prompts > 3:
        main = 1.0 if 1.0 in strengths else strengths[-1]
        yield _shuffled([d for d in draws if d.strength in (0, main)], prompts, (0, main))


def _ceilings(draws: Sequence[Draw]) -> Means:
    names = [c for c in CHANNELS if all(f"ceiling:{c}" in d.numbers for d in draws)]
    return {c: float(np.mean([d.numbers[f"ceiling:{c}"] for d in draws])) for c in names}


@torch.no_grad()
def _moved(judge: Judge, pixels: Pixels, after: torch.Tensor, ceiling: Means) -> float:
    """Return the pollution of `after` against I0."""
    rows = judge.distances(after, pixels.i0, pixels.outside, asked=True)
    parts = [
        float(rows[c].double().nanmean()) / value if value > 1e-12 else 0.0
        for c, value in ceiling.items()
    ]
    return round(float(np.mean(parts)), 6)


def _growing(judge: Judge, pixels: Pixels, ceiling: Means) -> SelfTest:
    """Blend the base's picture into another seed's: the more of it, the more pollution."""
    levels = [
        _moved(judge, pixels, torch.lerp(pixels.i0, pixels.iz, a), ceiling)
        for a in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    smallest = round(min(b - a for a, b in pairwise(levels)), 6)
    return SelfTest(
        "growing change",
        "P rises with every step from a picture to another seed's (smallest rise)",
        smallest,
        smallest > 0,
    )


def _true_edit(
    judge: Judge, pixels: Pixels, draws: Sequence[Draw], folder: Path, ceiling: Means
) -> Iterator[SelfTest]:
    """Let the renderer add the attribute to its own portraits: no pollution, full response."""
    if pixels.truth is None or any("plain" not in draw.pictures for draw in draws):
        return
    plain = torch.stack([pixels_of(read_picture(folder, d.pictures["plain"])) for d in draws])
    polluted = _moved(judge, replace(pixels, i0=plain), pixels.truth, ceiling)
    yield SelfTest(
        "true edit, pollution",
        "the renderer's own edit has P about 0 (at most 0.1)",
        polluted,
        polluted <= 0.1,
    )
    with torch.no_grad():
        seen = float((judge.belief(pixels.truth) - judge.belief(plain)).mean())
    yield SelfTest(
        "true edit, response",
        "and is seen: the judge believes in the attribute, at least 0.9 more than without it",
        round(seen, 6),
        seen >= 0.9,
    )


def _shuffled(draws: Sequence[Draw], prompts: int, strengths: tuple[float, float]) -> SelfTest:
    """Swap adapter and control of random prompts: the excess must then be a chance finding.

    Its 95 % interval should miss zero in 5 % of the shuffles; with few prompts a percentile
    interval is somewhat too short, so 15 % are allowed.
    """
    rng = random.Random(0)
    weights = bootstrap_weights(prompts, draws=_SHUFFLE_DRAWS, seed=1)
    missed = 0
    sums = sums_of(draws, prompts=prompts, strengths=strengths)
    for _ in range(_SHUFFLES):
        swap = np.array([rng.random() < 0.5 for _ in range(prompts)])[:, None]
        values = {n: np.where(swap, v[:, ::-1], v) for n, v in sums.values.items()}
        moved = np.mean(list(channels(replace(sums, values=values), weights).values()), axis=0)
        low, high = np.percentile(moved[1:, 1] - moved[1:, 0], [2.5, 97.5])
        missed += bool(low > 0 or high < 0)
    share = missed / _SHUFFLES
    return SelfTest(
        "shuffled labels",
        "with adapter and control swapped at random the excess is about 0 "
        "(its interval misses 0 in at most 15 % of shuffles)",
        share,
        share <= 0.15,
    )
