"""Pollution of a few pictures at hand, as a first look: the full measure is `evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from PIL import Image

from spf_lora.draw.pixels import pixels_of
from spf_lora.errors import MeasureError
from spf_lora.evaluate.faults import ceilings_of, faults
from spf_lora.evaluate.judges.judge import Judge
from spf_lora.evaluate.numbers import CHANGED, with_pollution
from spf_lora.evaluate.result import CHANNELS, Draw


@dataclass(frozen=True)
class Look:
    """What a judge says of each picture.

    Attributes:
        pollution: of each; 1 is as far as another picture of the row.
        words: what moved in each, the worst first.
    """

    pollution: tuple[float, ...]
    words: tuple[tuple[str, ...], ...]

    @property
    def mean(self) -> float:
        """Mean pollution of the pictures."""
        return mean(self.pollution)


@torch.no_grad()
def look(
    judge: Judge, target_text: str, before: Sequence[Image.Image], after: Sequence[Image.Image]
) -> Look:
    """Measure pictures against the base's own of the same seeds.

    Another seed, whose distance counts as 1, is the next picture of the base's, as in `evaluate`.

    Args:
        judge: who looks.
        target_text: the phrase that asks for the attribute.
        before: the base's pictures of the prompt without it.
        after: with it, in the same order.

    Raises:
        MeasureError: fewer than two, so that there is no other seed to compare with.
    """
    if len(before) < 2:
        raise MeasureError("one picture has no other seed beside it", hint="draw two or more")
    own, new = (torch.stack([pixels_of(one) for one in row]) for row in (before, after))
    inside = torch.stack([pixels_of(truth.region) for truth in judge.truths(own)])
    outside = (inside[:, :1] < 0).float()
    numbers = {"shown": (judge.belief(new) > 0.5).float()}
    changes = judge.changes(new, own, asked=True)
    numbers |= {CHANGED + name: row for name, row in changes.items()}
    for prefix, pictures in (("", new), ("ceiling:", own.roll(-1, 0))):
        distances = judge.distances(pictures, own, outside, asked=True)
        numbers |= {prefix + channel: row for channel, row in distances.items()}
    draws = [
        Draw(
            0,
            index,
            1.0,
            {},
            {n: float(row[index]) for n, row in numbers.items() if _told(n, row[index])},
        )
        for index in range(len(own))
    ]
    draws = with_pollution(draws, [name for name in CHANNELS if name in numbers])
    ceilings = ceilings_of(draws)
    return Look(
        tuple(draw.numbers["P"] for draw in draws),
        tuple(faults(draw, target_text, ceilings) for draw in draws),
    )


def _told(name: str, value: torch.Tensor) -> bool:
    """Tell whether a number is kept: what did not change has none."""
    return bool(value) or not name.startswith(CHANGED)
