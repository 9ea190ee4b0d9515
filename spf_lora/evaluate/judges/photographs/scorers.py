"""Scorers for photographs, a table row each; none loads anything before it is opened.

A scorer is a function of `Pictures`: one number for each pair, or one for the whole set. Its
models are looked for in folders that the user names, then in the hub's local cache (`weights`);
what is absent is an error with the command that fetches it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.weights import WEIGHTS, locate_all
from spf_lora.strict import did_you_mean


@dataclass(frozen=True, eq=False)
class Pictures:
    """A batch of pairs from the same noise, and what was asked for.

    Attributes:
        before: the base model's pictures, (batch, 3, height, width) in [-1, 1].
        after: the adapter's, the same shape.
        asked: the attribute's words, one text for each pair.
        outside: (batch, 1, height, width), 1 where the attribute must not act; None = everywhere.
    """

    before: torch.Tensor
    after: torch.Tensor
    asked: tuple[str, ...] = ()
    outside: torch.Tensor | None = None


Score = Callable[[Pictures], torch.Tensor]


@dataclass(frozen=True)
class Scorer:
    """One way to score pictures.

    Attributes:
        measures: what the number says, in a sentence.
        models: keys of `WEIGHTS` it needs, in the order in which `build` takes their folders.
        better: which end is good.
        each: True for one number a pair, False for one number a set.
        reference: where the measure comes from.
        build: makes the scorer from the folders, the device and the base's text encoder.
    """

    measures: str
    models: tuple[str, ...]
    better: Literal["low", "high"]
    each: bool
    reference: str
    build: Callable[[tuple[Path, ...], torch.device, Any], Score]


def _lpips(folders: tuple[Path, ...], device: torch.device, _: Any) -> Score:
    from spf_lora.evaluate.judges.photographs.lpips import Lpips

    net = Lpips(folders[0], device)
    return lambda pictures: net.distance(pictures.before, pictures.after, pictures.outside)


def _identity(folders: tuple[Path, ...], device: torch.device, _: Any) -> Score:
    from spf_lora.evaluate.judges.photographs.faces import align, load_face_net
    from spf_lora.evaluate.judges.photographs.parsing import Parser

    net, parser = load_face_net(folders[0], device), Parser(folders[1], device)

    @torch.no_grad()
    def score(pictures: Pictures) -> torch.Tensor:
        scores = torch.full((len(pictures.before),), torch.nan, device=device)
        batch = zip(pictures.before, pictures.after, strict=True)
        for index, pair in enumerate(batch):
            first, second = (parser.landmarks(parser.labels(p[None])[0]) for p in pair)
            if first is None:
                continue  # no face to begin with
            # Sunglasses hide the eyes: then the face is where it was.
            faces = [align(pair[0], first), align(pair[1], second or first)]
            one, other = net(torch.stack(faces))
            scores[index] = one @ other
        return scores

    return score


def _clip_image(folders: tuple[Path, ...], device: torch.device, text_encoder: Any) -> Score:
    from spf_lora.evaluate.judges.photographs.clip import ClipJudge

    clip = ClipJudge(folders[0], device, text_encoder)

    def score(pictures: Pictures) -> torch.Tensor:
        pair = clip.embed_image(pictures.before), clip.embed_image(pictures.after)
        return (pair[0] * pair[1]).sum(1)

    return score


def _clip_text(folders: tuple[Path, ...], device: torch.device, text_encoder: Any) -> Score:
    from spf_lora.evaluate.judges.photographs.clip import ClipJudge

    clip = ClipJudge(folders[0], device, text_encoder)
    return lambda p: (clip.embed_image(p.after) * clip.embed_text(p.asked)).sum(1)


def _parsing(folders: tuple[Path, ...], device: torch.device, _: Any) -> Score:
    from spf_lora.evaluate.judges.photographs.parsing import Parser, consistency

    parser = Parser(folders[0], device)
    return lambda p: consistency(parser.labels(p.before), parser.labels(p.after), p.outside)


def _over_sets(distance: str) -> Callable[[tuple[Path, ...], torch.device, Any], Score]:
    def build(folders: tuple[Path, ...], device: torch.device, _: Any) -> Score:
        from spf_lora.evaluate.judges.photographs import sets

        features, measure = sets.Features(folders[0], device), getattr(sets, distance)

        def score(pictures: Pictures) -> torch.Tensor:
            distance = measure(features.embed(pictures.before), features.embed(pictures.after))
            return torch.tensor([distance])

        return score

    return build


SCORERS: dict[str, Scorer] = {
    "lpips": Scorer(
        "how different two pictures look, outside the attribute's region",
        ("vgg16",),
        "low",
        True,
        "arXiv 1801.03924",
        _lpips,
    ),
    "identity": Scorer(
        "cosine of two face embeddings: is it the same person? NaN where the base drew no face",
        ("face", "parser"),
        "high",
        True,
        "arXiv 2204.00964",
        _identity,
    ),
    "clip-i": Scorer(
        "cosine of two pictures in a CLIP that training has not seen",
        ("clip",),
        "high",
        True,
        "arXiv 2103.00020",
        _clip_image,
    ),
    "clip-t": Scorer(
        "cosine of the adapter's picture and the attribute's words, in that CLIP",
        ("clip",),
        "high",
        True,
        "arXiv 2104.08718",
        _clip_text,
    ),
    "parsing": Scorer(
        "mean IoU of the parts of the face, outside the attribute's region",
        ("parser",),
        "high",
        True,
        "arXiv 2504.00396, table 1",
        _parsing,
    ),
    "fid": Scorer(
        "Frechet distance of the two sets, on DINOv2's features",
        ("dinov2",),
        "low",
        False,
        "arXiv 1706.08500, 2306.04675",
        _over_sets("frechet"),
    ),
    "kid": Scorer(
        "unbiased kernel distance of the two sets, on DINOv2's features",
        ("dinov2",),
        "low",
        False,
        "arXiv 1801.01401, 2306.04675",
        _over_sets("kernel_distance"),
    ),
}


def open_scorer(
    name: str,
    *,
    sources: Mapping[str, str] | None = None,
    device: torch.device | None = None,
    text_encoder: Any = None,
) -> Score:
    """Load what a scorer needs and return it.

    Args:
        name: a key of `SCORERS`.
        sources: model name -> folder, or another repository of the same layout.
        device: where to compute; the processor if None.
        text_encoder: the text encoder of the base that is judged; a scorer that is the same CLIP
            is refused.

    Raises:
        ScorerError: the name is unknown, or a model is absent, damaged or not allowed to judge.
    """
    if name not in SCORERS:
        raise ScorerError(
            f"no scorer is called {name!r}{did_you_mean(name, SCORERS)}",
            hint=f"scorers for photographs: {', '.join(SCORERS)}",
        )
    scorer = SCORERS[name]
    folders = tuple(locate_all(scorer.models, sources))
    return scorer.build(folders, device or torch.device("cpu"), text_encoder)


def needs(name: str) -> list[str]:
    """Return one line for each model of a scorer: what it is, its size, licence and command."""
    return [
        f"{w.what}: {w.megabytes} MB, licence {w.licence}; {w.command}"
        for w in (WEIGHTS[model] for model in SCORERS[name].models)
    ]
