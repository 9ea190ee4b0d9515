"""Parts of a face on photographs: where an attribute may act, and whether the rest stayed put."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.preprocess import (
    not_loaded,
    read_preparation,
    read_pretrained,
)
from spf_lora.strict import did_you_mean

_EYES = ("l_eye", "r_eye")
_MOUTH = ("mouth", "u_lip", "l_lip")


@dataclass(frozen=True)
class FaceParts:
    """Where one attribute may act.

    Attributes:
        there: parts of the picture without the attribute that it may cover.
        new: parts that the attribute itself brings, looked for in the picture with it.
        below: only what lies below the middle of this part.
    """

    there: tuple[str, ...]
    new: tuple[str, ...] = ()
    below: str | None = None


PARTS: dict[str, FaceParts] = {
    "beard": FaceParts(("skin", "neck", *_MOUTH), below="nose"),
    "moustache": FaceParts(("skin", "nose", *_MOUTH), below="nose"),
    "glasses": FaceParts((*_EYES, "l_brow", "r_brow", "eye_g"), new=("eye_g",)),
    "sunglasses": FaceParts((*_EYES, "l_brow", "r_brow", "eye_g"), new=("eye_g",)),
    "hat": FaceParts(("hair", "hat"), new=("hat",)),
    "blonde-hair": FaceParts(("hair", "l_brow", "r_brow")),
}


class Parser:
    """A SegFormer (arXiv 2105.15203) that names the part of every pixel.

    Args:
        folder: holds it as transformers writes it, with the names in `config.json`.
        device: where to compute.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import SegformerForSemanticSegmentation

        self.prepare = read_preparation(folder)
        model = read_pretrained(SegformerForSemanticSegmentation, folder, "a face parser")
        self.model = model.to(device)
        self.names = {str(name): int(i) for i, name in model.config.id2label.items()}
        missing = [name for name in (*_EYES, *_MOUTH, "skin") if name not in self.names]
        if missing:
            raise not_loaded(folder, "a face parser", f"none of its parts is called {missing[0]}")

    @torch.no_grad()
    def labels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the part of each pixel, (batch, height, width), for pixels in [-1, 1]."""
        logits = self.model(pixel_values=self.prepare(pixels)).logits
        size = pixels.shape[-2:]
        fine = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        return fine.argmax(1)

    def mask(self, labels: torch.Tensor, parts: Sequence[str]) -> torch.Tensor:
        """Return where the labels are one of the parts, as booleans of the labels' shape."""
        known = [self.names[part] for part in parts if part in self.names]
        return torch.isin(labels, torch.tensor(known, device=labels.device))

    def landmarks(self, labels: torch.Tensor) -> tuple[complex, complex, complex] | None:
        """Return left eye, right eye (as seen) and mouth of one picture, x + iy, if all are seen.

        Args:
            labels: the parts of one picture, (height, width).
        """
        points = [middle(self.mask(labels, part)) for part in (*[(e,) for e in _EYES], _MOUTH)]
        if None in points:
            return None
        one, other, mouth = (point for point in points if point is not None)
        left, right = sorted((one, other), key=lambda point: point.real)
        return left, right, mouth

    def region(self, attribute: str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Return where an attribute may act, (batch, 1, height, width), 1 inside and 0 outside.

        Args:
            attribute: a key of `PARTS`.
            before: labels without the attribute, (batch, height, width).
            after: labels with it.

        Raises:
            ScorerError: nobody has said where this attribute may act.
        """
        parts = parts_of(attribute)
        mask = self.mask(before, parts.there)
        if parts.below is not None:
            for index, label in enumerate(before):
                level = middle(self.mask(label, (parts.below,)))
                if level is not None:
                    mask[index, : int(level.imag)] = False
        mask = mask | self.mask(after, parts.new)
        return dilate(mask[:, None].float(), round(before.shape[-1] / 32))


def parts_of(attribute: str) -> FaceParts:
    """Return where an attribute may act.

    Raises:
        ScorerError: nobody has said so.
    """
    if attribute not in PARTS:
        raise ScorerError(
            f"no parts of a face are known for {attribute!r}{did_you_mean(attribute, PARTS)}",
            hint="give a folder of mask pictures instead: white where it may act",
        )
    return PARTS[attribute]


def middle(mask: torch.Tensor) -> complex | None:
    """Return the mean place of a (height, width) mask's pixels, x + iy, or None if it is empty."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    if len(rows) == 0:
        return None
    return complex(columns.double().mean().item(), rows.double().mean().item())


def dilate(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return a (batch, 1, height, width) mask grown by some pixels on every side."""
    return functional.max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)


def consistency(
    before: torch.Tensor, after: torch.Tensor, where: torch.Tensor | None
) -> torch.Tensor:
    """Return the mean IoU of the parts of two pictures, (batch,), in [0, 1], 1 = nothing moved.

    Args:
        before: labels (batch, height, width).
        after: the same shape.
        where: (batch, 1, height, width), 1 where to look; None looks everywhere. A picture with
            nowhere to look gets NaN.
    """
    scores = []
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        if where is not None:
            seen = where[index, 0] > 0.5
            one, other = one[seen], other[seen]
        present = torch.unique(torch.cat([one.flatten(), other.flatten()]))
        ious = [
            ((one == part) & (other == part)).sum() / ((one == part) | (other == part)).sum()
            for part in present
        ]
        scores.append(torch.stack(ious).mean() if ious else torch.tensor(math.nan).to(one.device))
    return torch.stack(scores)
