"""LPIPS, a learned distance between pictures (arXiv 1801.03924), with torch alone.

The trunk is a plain classification network, read from safetensors in torchvision's or timm's
naming (`features.N.weight`). The learned weights of its channels, version 0.1, ship with the
package: 12 KB, Copyright (c) 2018 Zhang, Isola, Efros, Shechtman, Wang, 2-clause BSD licence, the
text of which is in the file's own metadata.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import functional

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.preprocess import not_loaded

HEADS = Path(__file__).parent / "lpips_heads.safetensors"
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_SMALLEST = 64  # below it the last layers have nothing left to look at


@dataclass(frozen=True)
class _Trunk:
    """Stages of (index, stride, padding) convolutions; a pool of (kernel, stride) between them."""

    stages: tuple[tuple[tuple[int, int, int], ...], ...]
    pool: tuple[int, int]
    pooled: tuple[int, ...]  # stages that begin with the pool


def _three(*indices: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((index, 1, 1) for index in indices)


TRUNKS = {
    "vgg": _Trunk(
        (_three(0, 2), _three(5, 7), _three(10, 12, 14), _three(17, 19, 21), _three(24, 26, 28)),
        pool=(2, 2),
        pooled=(1, 2, 3, 4),
    ),
    "alex": _Trunk(
        (((0, 4, 2),), ((3, 1, 2),), _three(6), _three(8), _three(10)),
        pool=(3, 2),
        pooled=(1, 2),
    ),
}


class Lpips:
    """LPIPS on one trunk.

    Args:
        folder: holds the trunk's `model.safetensors`.
        device: where to compute.

    Raises:
        ScorerError: the file is no VGG-16 and no AlexNet.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        try:
            self.weights = {
                key.removeprefix("features."): value.float().to(device)
                for key, value in load_file(folder / "model.safetensors").items()
                if key.startswith("features.")
            }
        except (OSError, SafetensorError) as error:
            raise not_loaded(folder, "the trunk of LPIPS", str(error)) from error
        self.heads = {k: v.to(device) for k, v in load_file(HEADS).items()}
        self.trunk = self._recognise(folder)

    def _recognise(self, folder: Path) -> str:
        for name, trunk in TRUNKS.items():
            wanted = [stage[-1][0] for stage in trunk.stages]
            widths = [self.heads[f"{name}.{i}"].numel() for i in range(len(wanted))]
            heads = [self.weights.get(f"{index}.weight") for index in wanted]
            if all(w is not None and len(w) == n for w, n in zip(heads, widths, strict=True)):
                return name
        raise not_loaded(folder, "the trunk of LPIPS", "it is neither VGG-16 nor AlexNet")

    def _features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        shift = torch.tensor(_SHIFT, device=pixels.device)[:, None, None]
        scale = torch.tensor(_SCALE, device=pixels.device)[:, None, None]
        trunk = TRUNKS[self.trunk]
        hidden, taps = (pixels - shift) / scale, []
        for number, stage in enumerate(trunk.stages):
            if number in trunk.pooled:
                hidden = functional.max_pool2d(hidden, *trunk.pool)
            for index, stride, padding in stage:
                weight, bias = self.weights[f"{index}.weight"], self.weights[f"{index}.bias"]
                hidden = functional.conv2d(hidden, weight, bias, stride, padding).relu()
            taps.append(hidden / (hidden.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return taps

    @torch.no_grad()
    def distance(
        self, first: torch.Tensor, second: torch.Tensor, where: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the distance of each pair, (batch,).

        d = sum_l mean_xy w_l . (f_l(first) - f_l(second))^2, f_l of unit length along the channels.

        Args:
            first: pixels (batch, 3, height, width) in [-1, 1].
            second: the same shape.
            where: (batch, 1, height, width), how much each pixel counts; None counts all alike.

        Raises:
            ScorerError: the pictures are too small for the trunk.
        """
        if min(first.shape[-2:]) < _SMALLEST:
            raise ScorerError(
                f"LPIPS needs pictures of {_SMALLEST} pixels or more, not {first.shape[-1]}",
                hint="use the pixel distance for small pictures",
            )
        total = first.new_zeros(len(first))
        features = zip(self._features(first), self._features(second), strict=True)
        for number, (one, other) in enumerate(features):
            head = self.heads[f"{self.trunk}.{number}"][:, None, None]
            apart = ((one - other).square() * head).sum(1, keepdim=True)  # (batch, 1, h, w)
            if where is None:
                total += apart.mean((1, 2, 3))
            else:
                size = where.shape[-2:]
                apart = functional.interpolate(apart, size, mode="bilinear", align_corners=False)
                total += (apart * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
        return total
