"""The judge of photographs: pretrained models in the place of the probe and the renderer.

It answers what every judge is asked (`spf_lora.evaluate.judges.judge.Judge`) with the scorers
beside it. Where an attribute may act is read from the parts of the face in the base's own picture,
or from one mask file for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from spf_lora.evaluate.judges.channels import CHANNELS
from spf_lora.evaluate.judges.judge import Judge, Truth
from spf_lora.evaluate.judges.photographs.clip import ClipJudge
from spf_lora.evaluate.judges.photographs.faces import SIDE, FaceNet, align, load_face_net
from spf_lora.evaluate.judges.photographs.lpips import Lpips
from spf_lora.evaluate.judges.photographs.masks import read_masks
from spf_lora.evaluate.judges.photographs.parsing import Parser, consistency, parts_of
from spf_lora.evaluate.judges.photographs.weights import locate_all

_PERSON = "a photo of a person"


@dataclass(frozen=True)
class Choice:
    """Two words for one thing that can be named about a portrait, and what may change it."""

    name: str
    one: str
    other: str
    free: tuple[str, ...] = ()  # attributes that may move it when asked for


CHOICES = (
    Choice("sex", "a photo of a man", "a photo of a woman", ("beard", "moustache")),
    Choice("age", "a photo of a young person", "a photo of an old person"),
    Choice("skin", "a photo of a person with light skin", "a photo of a person with dark skin"),
    Choice(
        "hair colour",
        "a photo of a person with dark hair",
        "a photo of a person with light hair",
        ("hat", "blonde-hair"),
    ),
    Choice(
        "hair length",
        "a photo of a person with long hair",
        "a photo of a person with short hair",
        ("hat",),
    ),
    Choice("expression", "a photo of a person who smiles", "a photo of a person who is serious"),
    Choice("clothes", "a photo of a person in a suit", "a photo of a person in a t-shirt"),
    Choice("place", "a photo of a person outdoors", "a photo of a person indoors"),
)


@dataclass(frozen=True, eq=False)
class PhotographJudge:
    """LPIPS, a face embedding, a face parser and a CLIP that took no part in training.

    Attributes:
        attribute: name of the attribute.
        target_text: the words that ask for it.
        clip: sees the attribute and the other choices.
        lpips: distance of pictures.
        face: embedding of aligned faces.
        parser: parts of faces.
        device: where they compute.
        mask: folder of the region for all pictures, or None to read it from each.
        name: for the report.
        positives: belief in the attribute on real pictures that have it.
    """

    attribute: str
    target_text: str
    clip: ClipJudge
    lpips: Lpips
    face: FaceNet
    parser: Parser
    device: torch.device
    mask: Path | None = None
    name: str = "photographs"
    positives: float = 1.0

    def belief(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return CLIP's probability of the words with the attribute against those without."""
        texts = [f"{_PERSON}, {self.target_text}", _PERSON]
        return self._logits(pixels, texts).softmax(1)[:, 0].cpu()

    @torch.no_grad()
    def distances(
        self, after: torch.Tensor, before: torch.Tensor, outside: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return every channel; identity looks at the picture with the region put back."""
        after, before, outside = (x.to(self.device) for x in (after, before, outside))
        parts, was = self.parser.labels(after), self.parser.labels(before)
        if asked and self.mask is None:
            outside = outside * (1 - self.parser.region(self.attribute, was, parts))
        kept = outside > 0.5
        back = torch.where(kept, after, before)
        its_parts = torch.where(kept[:, 0], parts, was)
        seen = outside.clone()
        seen[outside.sum((1, 2, 3)) == 0] = 1  # nowhere to look: then everywhere
        colour = CHANNELS["colour"].distance
        assert colour is not None
        distances = {
            "region": self.lpips.distance(after, before, seen),
            "identity": 1 - self._likeness(back, before, its_parts, was),
            "attributes": self._gaps(after, before, asked).abs().mean(1),
            "layout": 1 - consistency(was, parts, seen),
            "colour": colour(after, before, seen),
        }
        return {name: distances[name].float().clamp(min=0).cpu() for name in CHANNELS}

    def changes(
        self, after: torch.Tensor, before: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return each of the other choices of which CLIP now prefers the other word."""
        one, other = (self._choices(pixels, asked) for pixels in (after, before))
        changed = ((one > 0) != (other > 0)).float().cpu()
        return {c.name: changed[:, i] for i, c in enumerate(self._kept(asked))}

    def truths(self, before: torch.Tensor) -> list[Truth]:
        """Return where the attribute may act; how the right picture looks nobody knows."""
        if self.mask is not None:
            side = before.shape[-1]
            regions = read_masks(self.mask, ["all"], side).expand(len(before), -1, -1, -1)
        else:
            labels = self.parser.labels(before.to(self.device))
            regions = self.parser.region(self.attribute, labels, labels)
        white = (regions[:, 0].cpu().numpy() * 255).astype("uint8")
        return [Truth(Image.fromarray(mask).convert("RGB")) for mask in white]

    def _logits(self, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        scale = self.clip.model.logit_scale.exp()
        seen = self.clip.embed_image(pixels.to(self.device))
        scores: torch.Tensor = scale * seen @ self.clip.embed_text(texts).T
        return scores

    def _choices(self, pixels: torch.Tensor, asked: bool) -> torch.Tensor:
        """Return how much each first word is preferred, (batch, choices)."""
        kept = self._kept(asked)
        logits = self._logits(pixels, [word for c in kept for word in (c.one, c.other)])
        return logits[:, ::2] - logits[:, 1::2]

    def _kept(self, asked: bool) -> list[Choice]:
        return [c for c in CHOICES if not (asked and self.attribute in c.free)]

    def _gaps(self, after: torch.Tensor, before: torch.Tensor, asked: bool) -> torch.Tensor:
        return self._choices(after, asked) - self._choices(before, asked)

    def _likeness(
        self, after: torch.Tensor, before: torch.Tensor, parts: torch.Tensor, was: torch.Tensor
    ) -> torch.Tensor:
        """Return the cosine of each pair's faces; a pair without a face is compared whole."""
        pairs = []
        for now, then, new, old in zip(after, before, parts, was, strict=True):
            first = self.parser.landmarks(old)
            second = self.parser.landmarks(new) or first
            if first is None or second is None:
                whole = torch.stack([then, now])
                size = (SIDE, SIDE)
                pairs.append(functional.interpolate(whole, size, mode="area"))
            else:
                pairs.append(torch.stack([align(then, first), align(now, second)]))
        one, other = self.face(torch.cat(pairs)).unflatten(0, (-1, 2)).unbind(1)
        cosine: torch.Tensor = (one * other).sum(1)
        return cosine


def photograph_judge(
    attribute: str,
    target_text: str,
    *,
    text_encoder: Any,
    sources: Mapping[str, str] | None = None,
    device: torch.device | None = None,
    mask: Path | None = None,
) -> Judge:
    """Load the judge of photographs.

    Args:
        attribute: its name; `parsing.PARTS` knows where it may act.
        target_text: the words that ask for it.
        text_encoder: the text encoder of the base that is judged; its own CLIP is refused.
        sources: model name -> folder, or another repository of the same layout.
        device: where to compute; the processor if None.
        mask: folder with an `all.png`, white where the attribute may act in every picture.

    Raises:
        ScorerError: a model is absent, damaged or not allowed to judge, or nobody has said where
            the attribute may act.
    """
    if mask is None:
        parts_of(attribute)
    else:
        read_masks(mask, ["all"], SIDE)
    where = device or torch.device("cpu")
    clip, trunk, face, parser = locate_all(("clip", "vgg16", "face", "parser"), sources)
    return PhotographJudge(
        attribute,
        target_text,
        clip=ClipJudge(clip, where, text_encoder),
        lpips=Lpips(trunk, where),
        face=load_face_net(face, where),
        parser=Parser(parser, where),
        device=where,
        mask=mask,
    )
