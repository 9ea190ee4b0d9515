"""A world's judge: a probe that names everything, and the renderer as the truth."""

import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch

from spf_lora.base.load import EMBEDDED, Base, check_embedded
from spf_lora.base.towers import Probe, load_probe
from spf_lora.data.worlds import PORTRAITS, world_of
from spf_lora.data.worlds.world import SIZE, Portrait, World
from spf_lora.draw.pixels import pixels_of
from spf_lora.errors import MeasureError
from spf_lora.evaluate.judges.channels import CHANNELS
from spf_lora.evaluate.judges.judge import Truth
from spf_lora.evaluate.judges.region import changed_region
from spf_lora.strict import did_you_mean

_REMEMBERED = 12  # batches, enough for one draw's pictures
_TYPICAL = 24  # portraits that give the belief in real positives


@dataclass(frozen=True, eq=False)
class _Look:
    """What the probe said of a batch of pictures."""

    pixels: torch.Tensor
    embedding: torch.Tensor
    logits: Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class WorldJudge:
    """The probe and the renderer of a world.

    Attributes:
        attribute: a name of the world's attributes, or "" where another judge sees it.
        probe: the classifier.
        positives: belief in the attribute on renders that have it.
        name: for the report.
        world: draws the truth.
        free: heads that may move where the attribute is asked for.
        seen: the last batches it looked at.
    """

    attribute: str
    probe: Probe
    positives: float
    name: str = "world"
    world: World = PORTRAITS
    free: frozenset[str] = frozenset()
    seen: "OrderedDict[int, _Look]" = field(default_factory=OrderedDict, repr=False)

    def belief(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the probe's probability of the attribute."""
        return self._logits(pixels)[self.attribute].softmax(1)[:, 1]

    def distances(
        self, after: torch.Tensor, before: torch.Tensor, outside: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return every channel of `CHANNELS`.

        Identity looks at the new picture with the region put back as it was, so that the attribute
        itself is no change of the person. Attributes compares beliefs, not logits: those move with
        the attribute even in the renderer's own edit.
        """
        inside = outside < 0.5
        back = torch.where(inside, before, after) if inside.any() else after
        distances = {
            name: row.distance(after, before, outside)
            for name, row in CHANNELS.items()
            if row.distance
        }
        distances["identity"] = 1 - torch.cosine_similarity(
            self._look(back).embedding, self._look(before).embedding
        )
        one, other = self._logits(after), self._logits(before)
        distances["attributes"] = torch.stack(
            [
                (one[head].softmax(1) - other[head].softmax(1)).abs().sum(1) / 2
                for head in self._heads(asked)
            ]
        ).mean(0)
        return {name: distances[name].clamp(min=0) for name in CHANNELS}

    def changes(
        self, after: torch.Tensor, before: torch.Tensor, *, asked: bool
    ) -> dict[str, torch.Tensor]:
        """Return each of the other heads whose class changed."""
        one, other = self._logits(after), self._logits(before)
        return {
            head.replace("_", " ").replace("-", " "): (
                one[head].argmax(1) != other[head].argmax(1)
            ).float()
            for head in self._heads(asked)
        }

    def truths(self, before: torch.Tensor) -> list[Truth]:
        """Read who is in each picture, draw them with and without the attribute.

        The region is where the two drawings differ, dilated.
        """
        read = {head: rows.argmax(1).tolist() for head, rows in self._logits(before).items()}
        truths = []
        for index in range(len(before)):
            portrait, worn = self._person({head: row[index] for head, row in read.items()})
            plain = self.world.render(portrait, worn, size=before.shape[-1])
            right = self.world.render(portrait, (*worn, self.attribute), size=before.shape[-1])
            truths.append(Truth(changed_region(plain, right), plain, right))
        return truths

    def _person(self, read: Mapping[str, int]) -> tuple[Portrait, tuple[str, ...]]:
        """Return whom the probe sees, and what they wear that the attribute does not exclude."""
        chosen = {name: list(values)[read[name]] for name, values in self.world.factors.items()}
        never = {self.attribute, *self.world.attributes[self.attribute].excludes}
        worn: list[str] = []
        for name, row in self.world.attributes.items():
            if read[name] and name not in never and not set(row.excludes) & set(worn):
                worn.append(name)
        return Portrait(**chosen), tuple(worn)

    def _logits(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return self._look(pixels).logits

    def _look(self, pixels: torch.Tensor) -> "_Look":
        """Run the probe once for each of the last batches: every measure asks for the same ones."""
        look = self.seen.get(id(pixels))
        if look is None:
            embedding = self.probe.embed(_to_probe(pixels))
            logits = {name: head(embedding) for name, head in self.probe.heads.items()}
            # holding the pixels keeps their id from being another's
            look = self.seen[id(pixels)] = _Look(pixels, embedding, logits)
            if len(self.seen) > _REMEMBERED:
                self.seen.popitem(last=False)
        return look

    def _heads(self, asked: bool) -> list[str]:
        """Return the heads that must not change; asked for, hidden and excluded ones may."""
        return [head for head in self.probe.heads if not (asked and head in self.free)]

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the probe's embedding, (batch, features)."""
        return self._look(pixels).embedding


def free_heads(attribute: str, world: World = PORTRAITS) -> frozenset[str]:
    """Return the heads that may move where the attribute is asked for, itself among them."""
    row = world.attributes[attribute]
    free = {attribute, *row.hides, *row.excludes, *([row.replaces] if row.replaces else [])}
    # a hat hides the hair that would be blonde
    return frozenset(free | {n for n, other in world.attributes.items() if other.replaces in free})


def beside_judge(attribute: str, replaces: Sequence[str]) -> WorldJudge:
    """Return what the probe says of everything else, where another judge sees the attribute.

    Args:
        attribute: its name, whether the portrait world has it or not.
        replaces: phrases that it takes the place of; what they name may move.
    """
    check_embedded(EMBEDDED)
    named = {
        head
        for head, values in PORTRAITS.factors.items()
        if any(said in replaces for said, _ in values.values())
    }
    free = free_heads(attribute) if attribute in PORTRAITS.attributes else frozenset(named)
    return WorldJudge("", load_probe(EMBEDDED / "probe"), 1.0, free=free)


def world_judge(attribute: str, base: Base | None = None) -> WorldJudge:
    """Return the judge of a world.

    Args:
        attribute: what it looks for.
        base: draws the world and brings the probe; by default the embedded one.

    Raises:
        MeasureError: the world has no such attribute.
        BaseModelError: the probe is missing or damaged.
    """
    world = world_of(base) if base else PORTRAITS
    if attribute not in world.attributes:
        raise MeasureError(
            f"the world {world.name} cannot judge "
            f"{attribute!r}{did_you_mean(attribute, world.attributes)}",
            hint="--attribute names one of: " + ", ".join(sorted(world.attributes)),
        )
    return _world_judge(attribute, world, base.folder if base and base.world else EMBEDDED)


@lru_cache(maxsize=8)
@torch.no_grad()
def _world_judge(attribute: str, world: World, folder: Path) -> WorldJudge:
    if folder == EMBEDDED:
        check_embedded(EMBEDDED)
    probe = load_probe(folder / "probe")
    rng = random.Random("typical people")
    people = [world.unbiased(rng) for _ in range(_TYPICAL)]
    have = torch.stack([pixels_of(world.render(person, (attribute,))) for person in people])
    positives = float(probe(have)[attribute].softmax(1)[:, 1].mean())
    free = free_heads(attribute, world)
    return WorldJudge(attribute, probe, positives, world=world, free=free)


def _to_probe(pixels: torch.Tensor) -> torch.Tensor:
    if pixels.shape[-1] == SIZE:
        return pixels
    return torch.nn.functional.interpolate(
        pixels, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False
    )
