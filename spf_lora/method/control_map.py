"""Where in the picture the target text answers: 1 there, 0 where nothing should move.

SPF-Portrait's semantic-aware fine control map (arXiv 2504.00396) is a difference of the two paths'
predictions less the attention of the base phrases. The normalisation of both terms, the threshold
and the cap on the area are ours (docs/method.md). Nothing here carries gradient, or the adapter
could widen the map to escape the losses.

It needs torch alone: the ComfyUI nodes carry a copy of this file.
"""

from collections.abc import Mapping

import torch
from torch.nn.functional import avg_pool2d, interpolate

AREA_CAP = 0.6  # share of a picture that may answer when it is drawn locally


@torch.no_grad()
def answer(response: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return how much more than elsewhere the paths differ at each place.

    Args:
        response: predicted noise with the adapter on the full prompt, (batch, channels, h, w).
        reference: predicted noise of the frozen model on the base prompt, same shape.

    Returns:
        (batch, 1, h, w): |eps_response - eps_reference|, smoothed over 3x3, divided by its own
        mean, so a sample's mean is 1 whatever its scale; all 0 where the paths agree exactly.
    """
    return relative(apart(response, reference))


def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return how far two predictions (batch, channels, h, w) are apart, 3x3, (batch, 1, h, w)."""
    return smooth((one - other).abs().mean(dim=1, keepdim=True))


def smooth(places: torch.Tensor) -> torch.Tensor:
    """Return the mean of each place's 3x3 neighbours, (batch, 1, h, w)."""
    return avg_pool2d(places, 3, stride=1, padding=1, count_include_pad=False)


def relative(raw: torch.Tensor) -> torch.Tensor:
    """Return (batch, 1, h, w) divided by each sample's mean; all 0 stays 0."""
    return raw / raw.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)


@torch.no_grad()
def phrase_answer(
    attention: Mapping[str, torch.Tensor], phrases: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Return sum_p D(target, p) A(p) (arXiv 2504.00396), divided by its own mean.

    Args:
        attention: layer -> head-mean attention of the reference, (batch, pixels, tokens).
        phrases: (batch, tokens), the distance D of the phrase that a token belongs to; 0 on tokens
            of no phrase.
        size: of the result.

    Returns:
        (batch, 1, h, w), mean over layers; all 0 where no phrase has a distance.
    """
    h, w = size
    total = torch.zeros(len(phrases), 1, h, w, device=phrases.device)
    for probabilities in attention.values():
        pixels = probabilities.shape[1]
        rows = max(1, round((pixels * h / w) ** 0.5))
        flat = probabilities.float() @ phrases[..., None].to(probabilities.device)
        layer = flat.reshape(-1, 1, rows, pixels // rows)  # (batch, 1, rows, columns)
        total += interpolate(layer, size=size, mode="bilinear", align_corners=False)
    return relative(total)


def rescaled_distances(similarity: torch.Tensor) -> torch.Tensor:
    """Return D in [0, 1] from text cosines: the farthest phrase 1, the nearest 0.

    CLIP squeezes the cosines of texts into a narrow band, so they are spread over one prompt's
    phrases (ours).

    Args:
        similarity: cosines of the target text and each phrase, (phrases,).
    """
    if len(similarity) < 2:
        return torch.ones_like(similarity)
    low, high = similarity.min(), similarity.max()
    return (high - similarity) / (high - low).clamp(min=1e-6)


@torch.no_grad()
def control_map(answers: torch.Tensor, *, area_cap: float) -> torch.Tensor:
    """Turn answers into the map: 0 below each sample's own threshold, 1 well above it.

    A hat covers a third of a picture and glasses a tenth, so no multiple of the mean fits both.

    Args:
        answers: how much more than on average a place answers, (batch, 1, h, w).
        area_cap: largest share of the picture where the map is above 0, in (0, 1].

    Returns:
        (batch, 1, h, w) in [0, 1]; the map rises from the threshold to half of the way to the mean
        of what is above it.
    """
    flat = answers.flatten(1)
    floor = torch.maximum(threshold(flat), flat.quantile(1 - area_cap, dim=1, keepdim=True))
    above = flat > floor
    top = (flat * above).sum(dim=1, keepdim=True) / above.sum(dim=1, keepdim=True).clamp(min=1)
    rise = ((top - floor) / 2).clamp(min=1e-6)
    soft = ((flat - floor) / rise).clamp(0, 1)  # (batch, places)
    return (soft * (flat > 0)).reshape(answers.shape)


@torch.no_grad()
def region(
    along_base: torch.Tensor, along_response: torch.Tensor, *, area_cap: float = AREA_CAP
) -> torch.Tensor:
    """Return where a picture may be drawn anew, (batch, 1, h, w) in [0, 1].

    Args:
        along_base: how far the two models' predicted pictures are apart along the base's picture,
            summed over its steps, (batch, 1, h, w).
        along_response: the same along the adapter's picture.
        area_cap: see `control_map`, than which the result is a place wider on each side.
    """
    answers = relative(along_base) + relative(along_response)
    return (2 * smooth(control_map(answers, area_cap=area_cap))).clamp(max=1)


def threshold(flat: torch.Tensor) -> torch.Tensor:
    """Return the value that parts each row into two classes farthest apart, (batch, 1).

    It has the largest variance between the classes (Otsu, IEEE SMC 9 (1979), equation 18).

    Args:
        flat: (batch, places), two places or more.
    """
    values = flat.sort(dim=1).values
    count = values.shape[1]
    below = torch.arange(1, count, device=flat.device)  # places in the lower class
    sums = values.cumsum(dim=1)
    lower = sums[:, :-1] / below
    upper = (sums[:, -1:] - sums[:, :-1]) / (count - below)
    between = below * (count - below) * (upper - lower).square()
    best = between.argmax(dim=1, keepdim=True)
    return (values.gather(1, best) + values.gather(1, best + 1)) / 2
