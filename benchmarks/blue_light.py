"""Attributes that change the whole picture, for `held_out.py`: portraits in a blue light."""

import numpy as np
import torch
from PIL import Image

from spf_lora.data.worlds.world import WorldAttribute, company
from spf_lora.draw.pixels import pictures_of
from spf_lora.evaluate.judges.judge import Truth
from spf_lora.evaluate.judges.world import WorldJudge

_COMPANY = company("pale", "long", "overalls", "green", "purple")
# the same light by words that the base's text encoder does not read, and by some that it does
LIGHTS = {
    "night": WorldAttribute("at night", "new", {}, _COMPANY),
    "blue-light": WorldAttribute("a blue light", "new", {}, _COMPANY),
}
_LIGHT = (0.45, 0.5, 0.8)  # of red, green and blue


def lit(picture: Image.Image) -> Image.Image:
    """Return a picture in the blue light."""
    return Image.fromarray((np.array(picture) * np.array(_LIGHT)).round().astype(np.uint8))


class LightJudge(WorldJudge):
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
        """Return the same pictures in the light; nothing else may change anywhere."""
        nowhere = Image.new("L", (before.shape[-1], before.shape[-2]))
        return [Truth(nowhere, own, lit(own)) for own in pictures_of(before)]


def _as(after: torch.Tensor, before: torch.Tensor, asked: bool) -> torch.Tensor:
    """Return pictures in the light of others, where another light was asked for."""
    if not asked:
        return after
    one, other = (after + 1) / 2, (before + 1) / 2
    gain = (one * other).sum(dim=(2, 3), keepdim=True) / other.square().sum(
        dim=(2, 3), keepdim=True
    )
    return (one / gain.clamp(min=0.05)).clamp(0, 1) * 2 - 1
