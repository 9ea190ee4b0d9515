"""The objective's terms: pure functions, gradients only through the response."""

import math
from collections.abc import Mapping

import torch
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity


def _keep(control_map: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return 1 - control_map for a layer of `pixels` pixels, (batch, pixels, 1)."""
    h, w = control_map.shape[-2:]
    scale = math.isqrt(h * w // pixels)
    small = adaptive_avg_pool2d(control_map, (h // scale, w // scale))
    return (1 - small).flatten(1)[..., None]


def denoise(
    eps: torch.Tensor, noise: torch.Tensor, where: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of the predicted noise (Ho et al., arXiv 2006.11239, eq. 14).

    Args:
        eps: prediction, (batch, channels, h, w).
        noise: what was added, same shape.
        where: (batch, 1, h, w) in [0, 1], what of the picture is learned; all of it if None.

    Returns:
        Scalar.
    """
    error = (eps - noise).square()
    return (error if where is None else error * where).mean()


def fine_grained(
    response: Mapping[str, torch.Tensor],
    reference: Mapping[str, torch.Tensor],
    control_map: torch.Tensor,
) -> torch.Tensor:
    """Squared difference of queries outside the map (arXiv 2504.00396, fine-grained loss).

    Divided by the reference's variance per layer and sample, so that all layers speak one scale
    and no sample's loss depends on its neighbours (ours).

    Args:
        response: layer -> queries with gradient, (batch, pixels, channels).
        reference: layer -> queries of the frozen model, same shapes.
        control_map: (batch, 1, h, w) in [0, 1].

    Returns:
        Scalar, mean over layers.
    """
    terms = []
    for layer, wanted in reference.items():
        keep = _keep(control_map, wanted.shape[1])
        wanted = wanted.float()  # (batch, pixels, channels)
        error = ((response[layer].float() - wanted).square() * keep).mean(dim=(1, 2))
        terms.append((error / wanted.var(dim=(1, 2)).clamp(min=1e-12)).mean())
    return torch.stack(terms).mean()


def text_consistent(
    response: Mapping[str, torch.Tensor],
    reference: Mapping[str, torch.Tensor],
    response_groups: torch.Tensor,
    reference_groups: torch.Tensor,
    control_map: torch.Tensor,
) -> torch.Tensor:
    """Squared difference of the base tokens' attention outside the map (arXiv 2504.00396).

    Args:
        response: layer -> attention with gradient, (batch, pixels, 77).
        reference: layer -> attention of the frozen model, same shapes.
        response_groups: (batch, 77, groups) 0/1, which token of the full prompt is which group;
            a group is one token of the base prompt, or all padding.
        reference_groups: the same for the base prompt.
        control_map: (batch, 1, h, w) in [0, 1].

    Returns:
        Scalar: sum over groups, mean over pixels and layers.
    """
    terms = []
    for layer, attention in reference.items():
        keep = _keep(control_map, attention.shape[1])
        moved = response[layer].float() @ response_groups - attention.float() @ reference_groups
        terms.append((moved.square() * keep).sum(dim=-1).mean())
    return torch.stack(terms).mean()


def response(
    predicted: torch.Tensor, trained: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Paper's enhanced loss: the predicted picture says the target as the real one does.

    1 - cos(image(x0_hat) - text(target), image(x_train) - text(target)), arXiv 2504.00396.

    Args:
        predicted: CLIP embeddings of the one-step predictions, with gradient, (batch, dim).
        trained: CLIP embeddings of the training pictures, (batch, dim).
        target: CLIP embedding of the target text, (dim,).
        weight: (batch,) share of each sample.

    Returns:
        Scalar, the weighted mean over the batch; 0 where all weights are 0.
    """
    cosine = cosine_similarity(predicted - target, trained - target, dim=-1)  # (batch,)
    return ((1 - cosine) * weight).mean()
