"""How sure a CLIP must be: found out on the base's own pictures, whose prompts are known (ours).

A CLIP may never be right about light and nearly always about hair, so each group of a vocabulary
gets its own limit. A picture that does not show what its prompt says counts against the CLIP: the
precision is a lower bound.
"""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch

from spf_lora.base.load import Base
from spf_lora.data.completion import NAMED, Vocabulary
from spf_lora.draw.trajectories import CHUNK
from spf_lora.training.prepare import Tell, own_pictures
from spf_lora.training.sight import Asked

PICTURES = 48
LEAST_PRECISION = 0.9  # of what is added to captions; below, nothing is added
_WANTED = 0.95  # precision of each group on the pictures that set its limit
_FEWEST = 8  # cases that a limit follows from
_LEAST = 0.5  # a phrase that is believed is likelier than all others of its group together


class Certainty(NamedTuple):
    """How sure a CLIP must be.

    Attributes:
        least: for each group the least probability of a phrase that is believed; inf: none is.
        precision: share that is right of what is believed, on pictures that set no limit.
        share: of what the prompts said, what was believed.
    """

    least: tuple[float, ...]
    precision: float
    share: float

    def __str__(self) -> str:
        """Say how far the CLIP can be believed."""
        return (
            f"of what CLIP is sure of in the base's own pictures ({self.share:.0%} of what their "
            f"prompts say), {self.precision:.0%} is right"
        )


class Likeliest(NamedTuple):
    """Of each picture a group's likeliest phrase, (pictures,), and its probability."""

    probability: torch.Tensor
    phrase: torch.Tensor


def likeliest(asked: Asked, pictures: torch.Tensor, vocabulary: Vocabulary) -> list[Likeliest]:
    """Return what a CLIP sees, group by group; see `Asked.certainties`."""
    return [Likeliest(*rows.max(dim=-1)) for rows in asked.certainties(pictures, vocabulary)]


def least_certain(probability: torch.Tensor, right: torch.Tensor) -> float:
    """Return the least probability from which on enough are right, or inf.

    Where enough of all cases are right, none asks for more than `_LEAST`.

    Args:
        probability: of each case, (cases,).
        right: whether it is, (cases,).
    """
    order = probability.argsort(descending=True, stable=True)
    counts = torch.arange(1, len(order) + 1)
    good = right[order].cumsum(0) >= _WANTED * counts
    good[: _FEWEST - 1] = False
    places = good.nonzero()
    if not len(places):
        return math.inf
    last = int(places[-1])
    return _LEAST if last == len(order) - 1 else max(_LEAST, probability[order[last]].item())


@torch.no_grad()
def calibrate(
    asked: Asked,
    base: Base,
    vocabulary: Vocabulary,
    *,
    guidance: float,
    below: str = "",
    tell: Tell = lambda what, done, total: None,
) -> Certainty:
    """Ask a CLIP about pictures that the base draws of prompts that a vocabulary makes.

    Args:
        asked: the CLIP, with the cache that keeps what it says.
        base: with the adapters of `below` on.
        vocabulary: makes the prompts, and is what the CLIP is asked.
        guidance: CFG scale that the pictures are drawn with.
        below: digest of the adapters that are on.
        tell: called with how many pictures are drawn.
    """
    said, prompts = _prompts(vocabulary)
    side = base.unet.config.sample_size
    sizes = [(side, side)] * PICTURES
    latents = own_pictures(
        base, prompts, sizes, asked.cache, below, tell, guidance=guidance, at_once=CHUNK
    )
    seen = likeliest(asked, asked.latents(base, latents.cpu().float()), vocabulary)
    return certainty(seen, said)


def _prompts(vocabulary: Vocabulary) -> tuple[torch.Tensor, list[str]]:
    """Return which phrase of each group a prompt names, or -1, (groups, pictures), and prompts."""
    rng = random.Random(0)
    said = [
        [rng.randrange(len(group)) if rng.random() < NAMED else -1 for group in vocabulary.groups]
        for _ in range(PICTURES)
    ]
    prompts = []
    for row in said:
        named = [group[i] for group, i in zip(vocabulary.groups, row, strict=True) if i >= 0]
        prompts.append(vocabulary.template.replace("{}", ", ".join(named)))
    return torch.tensor(said).T, prompts


def certainty(seen: Sequence[Likeliest], said: torch.Tensor) -> Certainty:
    """Return the limits, and the precision of each half's limits on the other half's pictures.

    Args:
        seen: by the CLIP, of each group.
        said: by the prompts, see `_prompts`, (groups, pictures).
    """
    limits: list[float] = []
    believed = good = named = 0
    for group, phrase in zip(seen, said, strict=True):
        rows = (phrase >= 0).nonzero().flatten()
        probability, right = group.probability.cpu()[rows], group.phrase.cpu()[rows] == phrase[rows]
        limits.append(least_certain(probability, right))
        odd = rows % 2 == 1
        for half in (odd, ~odd):
            sure = ~half & (probability >= least_certain(probability[half], right[half]))
            believed, good = believed + int(sure.sum()), good + int((sure & right).sum())
        named += len(rows)
    return Certainty(tuple(limits), good / max(1, believed), believed / max(1, named))
