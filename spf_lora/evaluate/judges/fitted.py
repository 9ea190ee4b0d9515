"""A judge for any attribute: it learns what that looks like from the user's own pictures.

Who sees the attribute is a classifier on features that were learned elsewhere. What else moved is
told by the distances that need no words, and on the embedded base by the probe's heads.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from spf_lora.draw.pixels import pictures_of
from spf_lora.errors import MeasureError
from spf_lora.evaluate.judges.channels import CHANNELS
from spf_lora.evaluate.judges.judge import Truth
from spf_lora.evaluate.judges.logistic import Classifier, fit, unseen_beliefs
from spf_lora.evaluate.judges.world import WorldJudge

Embed = Callable[[torch.Tensor], torch.Tensor]  # (batch, 3, h, w) in [-1, 1] -> (batch, features)

FEWEST = 10  # pictures of a kind
LEAST_ACCURACY = 0.9
_BATCH = 32


@dataclass(frozen=True)
class Fitted:
    """A classifier and how well it does on pictures that it has not seen.

    Attributes:
        classifier: fitted on all of them.
        accuracy: mean of the shares of both kinds that are told rightly, cross-validated.
        positives: mean belief in unseen pictures with the attribute.
        own_without: share of the user's own pictures without it that are told rightly, or None
            where there are none.
    """

    classifier: Classifier
    accuracy: float
    positives: float
    own_without: float | None


def fit_judge(
    embed: Embed, has_it: torch.Tensor, own_without: torch.Tensor, base_own: torch.Tensor
) -> Fitted:
    """Fit a classifier on pictures (each (pictures, 3, h, w) in [-1, 1]).

    Args:
        embed: features of pictures.
        has_it: with the attribute.
        own_without: without it, of the same origin; may be empty.
        base_own: what the base draws where nobody asks.

    Raises:
        MeasureError: there are too few, or unseen ones are told in under nine cases of ten.
    """
    if min(len(has_it), len(own_without) + len(base_own)) < FEWEST:
        raise MeasureError(
            f"{len(has_it)} pictures with it cannot teach a judge", hint=f"give {FEWEST} or more"
        )
    rows = [_features(embed, part) for part in (has_it, own_without, base_own) if len(part)]
    features = np.concatenate(rows)
    labels = np.zeros(len(features), dtype=np.bool_)
    labels[: len(has_it)] = True
    beliefs = unseen_beliefs(features, labels)
    right = (beliefs > 0.5) == labels
    accuracy = float((right[labels].mean() + right[~labels].mean()) / 2)
    if accuracy < LEAST_ACCURACY:
        raise MeasureError(
            f"the judge tells only {accuracy:.0%} of pictures rightly that it has not seen: "
            f"{LEAST_ACCURACY:.0%} are needed to rely on it",
            hint="give it more pictures, or clearer ones; a thing of a few pixels is not seen",
        )
    own = right[len(has_it) : len(has_it) + len(own_without)]
    return Fitted(
        fit(features, labels),
        accuracy,
        float(beliefs[labels].mean()),
        float(own.mean()) if len(own) else None,
    )


@torch.no_grad()
def _features(embed: Embed, pixels: torch.Tensor) -> np.ndarray:
    rows = [embed(part).cpu().double().numpy() for part in torch.split(pixels, _BATCH)]
    return np.concatenate(rows)


@dataclass(frozen=True, eq=False)
class FittedJudge:
    """Sees an attribute by a fitted classifier.

    Attributes:
        name: for the report.
        embed: features of pictures.
        fitted: the classifier.
        regions: digest of a picture of the base's own -> where the attribute may act, white.
        region: the same for a picture that is not among them; None: nowhere.
        world: tells what else moved, with the probe's heads; None: nobody names what is seen.
    """

    name: str
    embed: Embed
    fitted: Fitted
    regions: Mapping[bytes, Image.Image] = field(default_factory=dict)
    region: Image.Image | None = None
    world: WorldJudge | None = None

    @property
    def positives(self) -> float:
        """Mean belief in pictures that have it."""
        return self.fitted.positives

    def belief(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the classifier's probability."""
        beliefs = self.fitted.classifier.belief(_features(self.embed, pixels))
        return torch.from_numpy(beliefs).float()

    @torch.no_grad()
    def distances(
        self, after: torch.Tensor, before: torch.Tensor, outside: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return the channels that can be told; identity looks at the region put back."""
        if self.world is not None:
            return self.world.distances(after, before, outside, asked=asked)
        seen = outside.clone()
        seen[outside.sum((1, 2, 3)) == 0] = 1  # nowhere to look: then everywhere
        back = torch.where(outside > 0.5, after, before)
        channels = {
            name: row.distance(after, before, seen)
            for name, row in CHANNELS.items()
            if row.distance
        }
        one, other = self.embed(back).cpu(), self.embed(before).cpu()
        channels["identity"] = 1 - torch.cosine_similarity(one, other)
        return {name: channels[name].float().clamp(min=0) for name in CHANNELS if name in channels}

    def changes(
        self, after: torch.Tensor, before: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return the probe's heads whose class changed; elsewhere nobody names anything."""
        return self.world.changes(after, before, asked=asked) if self.world is not None else {}

    def truths(self, before: torch.Tensor) -> list[Truth]:
        """Return where the attribute may act; how the right picture looks nobody knows."""
        pictures = pictures_of(before)
        other = self.region or Image.new("RGB", pictures[0].size)
        return [Truth(self.regions.get(picture_key(one), other)) for one in pictures]


def picture_key(picture: Image.Image) -> bytes:
    """Return the digest by which a picture's region is found."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.convert("RGB").tobytes()).digest()
