"""Distances between two pictures where the attribute must not act: pure functions, all >= 0.

Each is a row of `CHANNELS`. None has a unit that a reader needs: a run divides it by the same
distance between two pictures of other seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

_EDGE_FLOOR = 0.05  # gradients, in [0, 1] a pixel, that count as half an edge


def pixel_distance(
    after: torch.Tensor, before: torch.Tensor, outside: torch.Tensor
) -> torch.Tensor:
    """Return the mean absolute difference of the colours outside the region, in [0, 1].

    Args:
        after: (batch, 3, h, w) in [-1, 1].
        before: the same shape.
        outside: (batch, 1, h, w), 1 where the attribute must not act.

    Returns:
        (batch,).
    """
    change = (after - before).abs().mean(1, keepdim=True) / 2  # (batch, 1, h, w)
    return (change * outside).sum((1, 2, 3)) / outside.sum((1, 2, 3)).clamp(min=1)


def structure_distance(
    after: torch.Tensor, before: torch.Tensor, outside: torch.Tensor
) -> torch.Tensor:
    """Return 1 - soft intersection over union of the edges outside the region, in [0, 1].

    Edges are gradients of the luminance g -> g / (g + 0.05), so that a recoloured line stays a
    line; shapes as in `pixel_distance`.
    """
    one, other = (_edges(p) * outside for p in (after, before))
    both = torch.minimum(one, other).sum((1, 2, 3))
    either = torch.maximum(one, other).sum((1, 2, 3))
    return 1 - (both + 1e-6) / (either + 1e-6)


def _edges(pixels: torch.Tensor) -> torch.Tensor:
    """Return edge strength in [0, 1], (batch, 1, h, w)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=pixels.device).view(1, 3, 1, 1)
    grey = ((pixels + 1) / 2 * weights).sum(1, keepdim=True)  # (batch, 1, h, w)
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    strength = (across.square() + down.square()).sqrt()
    return strength / (strength + _EDGE_FLOOR)


def colour_distance(
    after: torch.Tensor, before: torch.Tensor, outside: torch.Tensor
) -> torch.Tensor:
    """Return the Wasserstein-1 distance of the colours outside the region, in Lab units.

    Mean over L, a and b of the mean gap between the sorted values (two samples of equal size);
    it does not see where a colour is. Shapes as in `pixel_distance`.
    """
    rows = []
    for one, other, mask in zip(lab(after), lab(before), outside[:, 0] > 0.5, strict=True):
        if not mask.any():
            rows.append(one.new_zeros(()))
            continue
        first, second = (picture[:, mask].sort(1).values for picture in (one, other))
        rows.append((first - second).abs().mean())
    return torch.stack(rows)


def lab(pixels: torch.Tensor) -> torch.Tensor:
    """Return CIE 1976 L*a*b* (D65) of sRGB pixels (batch, 3, h, w) in [-1, 1]; L in [0, 100]."""
    s = ((pixels + 1) / 2).clamp(0, 1)
    linear = torch.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    # IEC 61966-2-1; rows divided by the white point 0.95047, 1, 1.08883
    matrix = torch.tensor(
        [
            [0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883],
        ],
        device=pixels.device,
    )
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz * 841 / 108 + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


Distance = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Channel:
    """One thing that must not change.

    Attributes:
        name: as in the report's `CHANNELS`.
        what: a sentence for readers.
        reference: where the measure comes from.
        distance: of two batches of pictures, or None where a judge's own network measures it.
    """

    name: str
    what: str
    reference: str
    distance: Distance | None


CHANNELS: dict[str, Channel] = {
    row.name: row
    for row in (
        Channel(
            "region",
            "pixels outside the attribute's region",
            "mean absolute error",
            pixel_distance,
        ),
        Channel(
            "identity",
            "who it is: an embedding of the picture, the region left as it was",
            "1 - cosine",
            None,
        ),
        Channel(
            "attributes",
            "everything else that can be named: the other heads of the classifier",
            "total variation distance of class probabilities",
            None,
        ),
        Channel(
            "layout",
            "where edges are, outside the region",
            "1 - soft intersection over union",
            structure_distance,
        ),
        Channel(
            "colour",
            "which colours there are, outside the region",
            "Wasserstein-1 in CIE Lab",
            colour_distance,
        ),
    )
}
