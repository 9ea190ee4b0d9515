"""Is it the same person? A face embedding (AdaFace, arXiv 2204.00964) on aligned faces.

The network's size is read from the file: `body.N.res_layer` blocks as in AdaFace and CVLface.
Eyes and mouth, found by the face parser, are laid on ArcFace's template (arXiv 1801.07698).
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from spf_lora.evaluate.judges.photographs.preprocess import not_loaded

SIDE = 112
# Where ArcFace's training faces have their left eye, right eye and mouth, in 112 x 112 pixels.
TEMPLATE = (complex(38.29, 51.70), complex(73.53, 51.50), complex(56.14, 92.28))
_MOST_SAMPLES = 8


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = (
            nn.MaxPool2d(1, stride)
            if channels == width
            else nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.res_layer(hidden) + self.shortcut_layer(hidden)
        return result


class FaceNet(nn.Module):
    """The improved residual network of face recognition, (batch, 3, 112, 112) -> (batch, dim).

    Args:
        first: channels after the first convolution.
        widths: channels of every block; a new width, and the first block, halve the picture.
        dim: length of the embedding.
    """

    def __init__(self, first: int, widths: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        blocks, before, side = [], first, SIDE
        for number, width in enumerate(widths):
            stride = 2 if number == 0 or width != before else 1
            blocks.append(_Block(before, width, stride))
            before, side = width, math.ceil(side / stride)
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(before * side * side, dim),
            nn.BatchNorm1d(dim, affine=False),
        )

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings of aligned faces, RGB in [-1, 1]."""
        hidden = self.output_layer(self.body(self.input_layer(faces)))
        return functional.normalize(hidden, dim=-1)


def load_face_net(folder: Path, device: torch.device) -> FaceNet:
    """Read a face embedding; whatever stands before `input_layer` in its keys is left out.

    Raises:
        ScorerError: the file holds no network of this kind.
    """
    what = "a face embedding"
    try:
        stored = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise not_loaded(folder, what, str(error)) from error
    anchor = next((key for key in stored if key.endswith("input_layer.0.weight")), None)
    if anchor is None:
        raise not_loaded(folder, what, "it has no input_layer, as AdaFace's networks have")
    prefix = anchor.removesuffix("input_layer.0.weight")
    weights = {k.removeprefix(prefix): v.float() for k, v in stored.items() if k.startswith(prefix)}
    try:
        net = _net_for(weights)
        net.load_state_dict(weights)
    except (RuntimeError, KeyError) as error:
        reason = f"its blocks are of another kind ({str(error).splitlines()[-1].strip()})"
        raise not_loaded(folder, what, reason) from error
    return net.requires_grad_(False).eval().to(device)


def _net_for(weights: Mapping[str, torch.Tensor]) -> FaceNet:
    widths: list[int] = []
    while (key := f"body.{len(widths)}.res_layer.1.weight") in weights:
        widths.append(len(weights[key]))
    first = len(weights["input_layer.0.weight"])
    return FaceNet(first, tuple(widths), len(weights["output_layer.3.weight"]))


def align(pixels: torch.Tensor, points: tuple[complex, complex, complex]) -> torch.Tensor:
    """Return one face on the template, (3, 112, 112).

    The similarity z -> a z + b nearest to `points` -> `TEMPLATE` by least squares, in complex
    numbers: a = sum conj(p - mean p)(t - mean t) / sum |p - mean p|^2.

    Args:
        pixels: one picture (3, height, width).
        points: left eye, right eye (as seen) and mouth, x + iy in pixels.
    """
    middle, wanted = sum(points) / 3, sum(TEMPLATE) / 3
    moved = [point - middle for point in points]
    spread = sum(abs(point) ** 2 for point in moved)
    turn = sum(m.conjugate() * (t - wanted) for m, t in zip(moved, TEMPLATE, strict=True)) / spread
    # Several samples for each pixel where the face shrinks, so that nothing flickers.
    samples = min(_MOST_SAMPLES, max(1, math.ceil(1 / abs(turn))))
    steps = (torch.arange(SIDE * samples, dtype=torch.float64) + 0.5) / samples - 0.5
    across, down = torch.meshgrid(steps, steps, indexing="xy")
    source = (torch.complex(across, down) - wanted) / turn + middle
    height, width = pixels.shape[-2:]
    grid = torch.stack(
        [(2 * source.real + 1) / width - 1, (2 * source.imag + 1) / height - 1], dim=-1
    )[None].to(pixels)
    fine = functional.grid_sample(pixels[None], grid, padding_mode="border", align_corners=False)
    return functional.avg_pool2d(fine, samples)[0]
