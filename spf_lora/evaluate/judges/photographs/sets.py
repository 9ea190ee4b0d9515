"""Distances between two sets of pictures, from features of a vision model: FID and KID.

The features are DINOv2's, which agree better with people than Inception's (arXiv 2306.04675); the
original Inception weights exist only as a pickle, which we never open. The numbers therefore rank
methods but don't compare with published Inception figures.
"""

from pathlib import Path

import torch

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.preprocess import read_preparation, read_pretrained

_BATCH = 16


def frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the Frechet distance of two sets as if they were Gaussian (arXiv 1706.08500).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). With C = A^T A, A the centred features over
    sqrt(n - 1), the last trace is the sum of the singular values of A1 A2^T: no matrix root, and
    exact for fewer pictures than features. Biased upwards for few pictures.

    Args:
        first: features (pictures, dim).
        second: features (other pictures, dim).
    """
    _check_sets(first, second)
    one, other = first.double(), second.double()
    apart = (one.mean(0) - other.mean(0)).square().sum()
    one, other = _root(one), _root(other)
    shared = torch.linalg.svdvals(one @ other.T).sum()
    return float(apart + one.square().sum() + other.square().sum() - 2 * shared)


def _root(features: torch.Tensor) -> torch.Tensor:
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    # A and the R of its QR have the same A^T A; R is never taller than it is wide.
    tall: torch.Tensor = torch.linalg.qr(centred, mode="r").R
    return tall


def kernel_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the unbiased squared MMD with the kernel (x.y / dim + 1)^3 (KID, arXiv 1801.01401).

    Args:
        first: features (pictures, dim).
        second: features (other pictures, dim).

    Returns:
        About 0 for two samples of one distribution, and below 0 as often as above.
    """
    _check_sets(first, second)
    one, other = first.double(), second.double()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: torch.Tensor) -> torch.Tensor:
        gram = kernel(x, x)
        return (gram.sum() - gram.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(within(one) + within(other) - 2 * kernel(one, other).mean())


def _check_sets(first: torch.Tensor, second: torch.Tensor) -> None:
    if min(len(first), len(second)) < 2:
        raise ScorerError(
            "a distance between sets needs two pictures or more on each side",
            hint="draw more prompts or seeds",
        )


class Features:
    """Features of whole pictures: the class token of DINOv2 (arXiv 2304.07193).

    Args:
        folder: holds it as transformers writes it.
        device: where to compute.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import Dinov2Model

        self.prepare = read_preparation(folder)
        self.model = read_pretrained(Dinov2Model, folder, "DINOv2").to(device)

    @torch.no_grad()
    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim) for pixels (batch, 3, height, width) in [-1, 1]."""
        batches = torch.split(pixels, _BATCH)
        features = [self.model(pixel_values=self.prepare(b)).pooler_output for b in batches]
        return torch.cat(features)
