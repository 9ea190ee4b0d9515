"""Where in the picture the target text answers: 1 there, 0 where nothing should move.

This is the difference term of SPF-Portrait's semantic-aware fine control map (arXiv 2504.00396);
the normalisation and the cap on its area are ours (docs/method.md).
"""

import torch
from torch.nn.functional import avg_pool2d


@torch.no_grad()
def difference_map(
    response: torch.Tensor, reference: torch.Tensor, *, area_cap: float
) -> torch.Tensor:
    """Return |eps_response - eps_reference|, smoothed, scaled per sample, capped in area.

    Without gradient, or the adapter could widen the map to escape the losses.

    Args:
        response: predicted noise with the adapter on the full prompt, (batch, channels, h, w).
        reference: predicted noise of the frozen model on the base prompt, same shape.
        area_cap: largest share of the picture where the map is above 0, in (0, 1].

    Returns:
        (batch, 1, h, w) in [0, 1]: 1 on half of the capped area, falling to 0 over the other
        half; all 0 where the paths agree exactly.
    """
    distance = (response - reference).abs().mean(dim=1, keepdim=True)  # (batch, 1, h, w)
    smooth = avg_pool2d(distance, 3, stride=1, padding=1, count_include_pad=False)
    flat = smooth.flatten(1)
    low = flat.quantile(1 - area_cap, dim=1)[:, None, None, None]
    high = flat.quantile(1 - area_cap / 2, dim=1)[:, None, None, None]
    return ((smooth - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
