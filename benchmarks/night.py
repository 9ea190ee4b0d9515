"""An attribute that changes the whole picture, for `held_out.py`: portraits lit as at night."""

import numpy as np
import torch
from PIL import Image

from spf_lora.data.worlds.world import WorldAttribute, company
from spf_lora.draw.pixels import pictures_of
from spf_lora.evaluate.judges.judge import Truth
from spf_lora.evaluate.judges.world import WorldJudge

NIGHT = WorldAttribute(
    "at night", "new", {}, company("pale", "long", "overalls", "green", "purple")
)
_LIGHT = (0.45, 0.5, 0.8)  # of red, green and blue


def at_night(picture: Image.Image) -> Image.Image:
    """Return a picture in another light."""
    return Image.fromarray((np.array(picture) * np.array(_LIGHT)).round().astype(np.uint8))


class NightJudge(WorldJudge):
    """Judges what else changed in the light of before; where a light was not asked for, in its own.

    The light is a gain of each colour, which is found by least squares.
    """

    def distances(
        self, after: torch.Tensor, before: torch.Tensor, outside: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return every channel; see `WorldJudge`."""
        return super().distances(_as(after, before, asked), before, outside, asked=asked)

    def changes(
        self, after: torch.Tensor, before: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return each of the other heads whose class changed."""
        return super().changes(_as(after, before, asked), before, asked=asked)

    def truths(self, before: torch.Tensor) -> list[Truth]:
        """Return the same pictures at night; beside the light nothing may change anywhere."""
        nowhere = Image.new("L", (before.shape[-1], before.shape[-2]))
        return [Truth(nowhere, own, at_night(own)) for own in pictures_of(before)]


def _as(after: torch.Tensor, before: torch.Tensor, asked: bool) -> torch.Tensor:
    """Return pictures in the light of others, where another light was asked for."""
    if not asked:
        return after
    one, other = (after + 1) / 2, (before + 1) / 2
    gain = (one * other).sum(dim=(2, 3), keepdim=True) / other.square().sum(
        dim=(2, 3), keepdim=True
    )
    return (one / gain.clamp(min=0.05)).clamp(0, 1) * 2 - 1
