"""What is asked of those who look at the pictures. A judge never takes part in training."""

from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image


@dataclass(frozen=True)
class Truth:
    """What is known about the person in a picture of the base model.

    Attributes:
        region: white where the attribute may act.
        plain: the person drawn without the attribute, or None where nobody knows.
        right: the same person with it, or None.
    """

    region: Image.Image
    plain: Image.Image | None = None
    right: Image.Image | None = None


class Judge(Protocol):
    """What a run asks of those who look."""

    @property
    def name(self) -> str:
        """Name for the report."""

    @property
    def positives(self) -> float:
        """Belief in the attribute on real pictures that have it, where no truth is known."""

    def belief(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return how surely the attribute is there, (batch,) in [0, 1]."""

    def distances(
        self, after: torch.Tensor, before: torch.Tensor, outside: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return channel -> (batch,); `asked` tells whether the attribute may have come."""

    def changes(
        self, after: torch.Tensor, before: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return what else can be named -> (batch,) 1 where it is read differently.

        Names are for people: "background". A judge that names nothing returns none.
        """

    def truths(self, before: torch.Tensor) -> list[Truth]:
        """Return what is right for pictures of the base model (batch, 3, h, w)."""


def flips(judge: Judge, after: torch.Tensor, before: torch.Tensor, *, asked: bool) -> torch.Tensor:
    """Return the share of what can be named that is read differently, (batch,); NaN for nothing."""
    rows = list(judge.changes(after, before, asked=asked).values())
    return torch.stack(rows).mean(0) if rows else torch.full((len(after),), torch.nan)
