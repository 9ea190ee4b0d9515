"""From pictures to the numbers of a draw: what moved, whether the attribute came."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from spf_lora.draw.pixels import pixels_of
from spf_lora.evaluate.gallery import read_picture
from spf_lora.evaluate.judges.judge import Judge, flips
from spf_lora.evaluate.result import Draw

BATCH = 64
CHANGED, LEAKED = "changed:", "leak-changed:"  # what is read differently; what is not has no number
Numbers = dict[str, torch.Tensor]  # measure -> (batch,)


@dataclass(frozen=True, eq=False)
class Pixels:
    """A batch of the protocol's pictures, each (batch, 3, h, w) in [-1, 1]; see `protocol`."""

    i0: torch.Tensor
    ic: torch.Tensor
    i1: torch.Tensor
    ib: torch.Tensor
    iz: torch.Tensor
    outside: torch.Tensor  # (batch, 1, h, w), 1 where the attribute must not act
    truth: torch.Tensor | None


@torch.no_grad()
def numbers_of(judge: Judge, pixels: Pixels) -> Numbers:
    """Return every number of a batch of draws."""
    everywhere = torch.ones_like(pixels.outside)
    score, before = judge.belief(pixels.i1), judge.belief(pixels.i0)
    numbers: Numbers = {
        "score": score,
        "score:I0": before,
        "shown": (score > 0.5).float(),
        "unasked": (judge.belief(pixels.ib) > 0.5).float(),
        "flips": flips(judge, pixels.i1, pixels.i0, asked=True),
        "leak:flips": flips(judge, pixels.ib, pixels.i0, asked=False),
    }
    for prefix, after, asked in ((CHANGED, pixels.i1, True), (LEAKED, pixels.ib, False)):
        changes = judge.changes(after, pixels.i0, asked=asked)
        numbers |= {prefix + name: row for name, row in changes.items()}
    pairs = (
        ("", pixels.i1, pixels.outside, True),
        ("ceiling:", pixels.iz, pixels.outside, True),
        ("leak:", pixels.ib, everywhere, False),
        ("leak-ceiling:", pixels.iz, everywhere, False),
    )
    for prefix, after, outside, asked in pairs:
        distances = judge.distances(after, pixels.i0, outside, asked=asked)
        numbers |= {prefix + channel: row for channel, row in distances.items()}
    numbers["score:truth"] = torch.full_like(score, judge.positives)
    if pixels.truth is not None:
        numbers["score:truth"] = judge.belief(pixels.truth)
        numbers["truth:pixels"] = _apart(pixels.i1, pixels.truth)
        numbers["truth:pixels:I0"] = _apart(pixels.i0, pixels.truth)
        numbers["truth:agreement"] = 1 - flips(judge, pixels.i1, pixels.truth, asked=True)
    return numbers


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one - other).abs().mean((1, 2, 3)) / 2


def with_numbers(draws: Sequence[Draw], judge: Judge, folder: Path) -> list[Draw]:
    """Read the draws' pictures and return the draws with their numbers, without "P"."""
    done: list[Draw] = []
    for i in range(0, len(draws), BATCH):
        some = draws[i : i + BATCH]
        numbers = numbers_of(judge, load_pixels(some, folder))
        table = {name: row.double().cpu().numpy() for name, row in numbers.items()}
        done += [
            replace(
                draw,
                numbers={
                    n: _kept(row[j])
                    for n, row in table.items()
                    if np.isfinite(row[j]) and (row[j] or not n.startswith((CHANGED, LEAKED)))
                },
            )
            for j, draw in enumerate(some)
        ]
    return done


def _kept(value: float) -> float:
    return float(f"{value:.7g}")


def load_pixels(draws: Sequence[Draw], folder: Path) -> Pixels:
    """Read a batch of draws' pictures; the truth counts only where all of them have it."""

    def rows(name: str) -> torch.Tensor:
        return torch.stack([pixels_of(read_picture(folder, d.pictures[name])) for d in draws])

    region = rows("region")[:, :1]  # (batch, 1, h, w), 1 inside, -1 outside
    has_truth = all("truth" in draw.pictures for draw in draws)
    return Pixels(
        rows("I0"),
        rows("Ic"),
        rows("I1"),
        rows("Ib"),
        rows("Iz"),
        (region < 0).float(),
        rows("truth") if has_truth else None,
    )


def with_pollution(draws: Sequence[Draw], channels: Sequence[str]) -> list[Draw]:
    """Return the draws with "P": the mean of their channels, each by the run's mean ceiling."""
    ceilings: Mapping[str, float] = {
        channel: float(np.mean([d.numbers[f"ceiling:{channel}"] for d in draws]))
        for channel in channels
    }
    return [
        replace(draw, numbers=dict(draw.numbers) | {"P": _kept(_pollution(draw, ceilings))})
        for draw in draws
    ]


def _pollution(draw: Draw, ceilings: Mapping[str, float]) -> float:
    parts = [
        draw.numbers[channel] / ceiling if ceiling > 1e-12 else 0.0
        for channel, ceiling in ceilings.items()
        if channel in draw.numbers
    ]
    return float(np.mean(parts))
