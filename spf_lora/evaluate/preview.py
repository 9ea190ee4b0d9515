"""The picture beside an adapter: what it adds to six people, and what else it changes.

A row is one prompt from one noise: the base's picture of it, the adapter's with the target asked
for, and their difference; of a cleaned adapter what the old and the new one draw, asked and not.
The judge that `evaluate` uses says of each row what went wrong.
"""

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from PIL import Image

from spf_lora.adapters.attach import adapter_off
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.base.outline import picture_step
from spf_lora.data.captions import asking_prompt, base_prompt
from spf_lora.data.folder import Example
from spf_lora.data.worlds import world_of
from spf_lora.draw.act import NOTHING, Acting, acting, draw
from spf_lora.draw.pixels import pixels_of
from spf_lora.draw.sheet import Row, lay_out
from spf_lora.evaluate.faults import several, the
from spf_lora.evaluate.judges.judge import Judge
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.protocol import in_world
from spf_lora.recipe.schema import Attribute, Recipe

ROWS, STEPS = 6, 25
_LEAST_PX = 800
_GAIN = 2  # a difference of half the range is shown as white


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one row.

    Attributes:
        missing: whether the attribute is not seen.
        changed: what else is read differently.
    """

    missing: bool
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """A drawn preview.

    Attributes:
        picture: all rows, with titles.
        prompts: of each row, with the target.
        verdicts: of each row; none where nobody judges.
    """

    picture: Image.Image
    prompts: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Effect:
    """What an adapter does to a few pictures of the base.

    Attributes:
        moved: mean change of the pixels where it is asked for; 1 is that of another seed.
        leaked: where it is not asked for; None if it acts on every prompt.
        verdicts: of the pictures that ask; none where nobody judges.
    """

    moved: float
    leaked: float | None
    verdicts: tuple[Verdict, ...]

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Return the figures as a card has them."""
        found = {"moved": self.moved}
        if self.leaked is not None:
            found["leaked"] = self.leaked
        if self.verdicts:
            count = len(self.verdicts)
            found["shown"] = sum(not one.missing for one in self.verdicts) / count
            found["nothing_else_changed"] = sum(not one.changed for one in self.verdicts) / count
        return {f"{prefix}{name}": round(value, 4) for name, value in found.items()}


@dataclass(frozen=True)
class Comparison:
    """An adapter before and after cleaning.

    Attributes:
        picture: all rows, with titles.
        before: what the given adapter does.
        after: what the cleaned one does.
    """

    picture: Image.Image
    before: Effect
    after: Effect


def draw_before_after(
    base: Base,
    recipe: Recipe,
    examples: Sequence[Example],
    teacher: Adapter,
    *,
    wordless: bool = False,
    steps: int = STEPS,
) -> Comparison:
    """Draw what an adapter does and what the one that was cleaned does.

    Args:
        base: the model, with the cleaned adapter attached to it.
        recipe: what decided the cleaning.
        examples: their captions are the prompts where there are no held-out people.
        teacher: the adapter before.
        wordless: whether it acts on every prompt, so that none is without it.
        steps: of the sampler.
    """
    prompts = _prompts(base, recipe, examples)
    words = recipe.attribute if wordless else replace(recipe.attribute, control="words")
    teachers = [asking_prompt(prompt, words) for prompt in prompts]
    students = [asking_prompt(prompt, recipe.attribute) for prompt in prompts]
    seeds, size = list(range(len(prompts))), _square(base, recipe)
    draw_all = partial(draw, base, steps=steps, size=size)
    with adapter_off(base.unet, base.text_encoder):
        own = draw_all(prompts, seeds)
        others = draw_all(prompts, [seed + len(seeds) for seed in seeds])
        old = draw_all(teachers, seeds, acting(teacher))
        old_unasked = [] if wordless else draw_all(prompts, seeds, acting(teacher))
    new = draw_all(students, seeds)
    new_unasked = draw_all(prompts, seeds) if students != prompts else []
    judge, ceiling = _judge(base, recipe), _apart(own, others)
    before, after = (
        Effect(
            _apart(own, asked) / ceiling,
            _apart(own, unasked) / ceiling if unasked else None,
            _verdicts(judge, own, asked) if judge else (),
        )
        for asked, unasked in ((old, old_unasked), (new, new_unasked))
    )
    columns = {"base": own, "before": old, "cleaned": new}
    columns |= {"before, not asked": old_unasked} if old_unasked else {}
    columns |= {"cleaned, not asked": new_unasked} if new_unasked else {}
    notes = [_note(one, recipe.attribute) for one in after.verdicts] or [("", "")] * len(prompts)
    rows = [
        Row(pictures, text, note, tone)
        for *pictures, text, (note, tone) in zip(*columns.values(), teachers, notes, strict=True)
    ]
    return Comparison(lay_out(rows, columns=tuple(columns), least_px=_LEAST_PX), before, after)


def _apart(one: Sequence[Image.Image], other: Sequence[Image.Image]) -> float:
    """Return the mean difference of the colours of pictures, in [0, 2]."""
    pairs = zip(one, other, strict=True)
    return float(torch.stack([(pixels_of(a) - pixels_of(b)).abs().mean() for a, b in pairs]).mean())


def draw_preview(
    base: Base,
    recipe: Recipe,
    examples: Sequence[Example],
    *,
    acting: Acting | None = None,
    steps: int = STEPS,
) -> Preview:
    """Draw a preview.

    Args:
        base: the model; without `acting`, with the adapter in training attached to it.
        recipe: what was trained.
        examples: what on; their captions are the prompts where there are no held-out people.
        acting: the adapter, where it is not attached.
        steps: of the sampler.
    """
    prompts = _prompts(base, recipe, examples)
    full_prompts = [asking_prompt(prompt, recipe.attribute) for prompt in prompts]
    seeds, size = list(range(len(prompts))), _square(base, recipe)
    off = adapter_off(base.unet, base.text_encoder)
    with off if acting is None else nullcontext():
        before = draw(base, prompts, seeds, steps=steps, size=size)
    after = draw(base, full_prompts, seeds, acting or NOTHING, steps=steps, size=size)
    judge = _judge(base, recipe)
    verdicts = () if judge is None else _verdicts(judge, before, after)
    notes = [_note(one, recipe.attribute) for one in verdicts] or [("", "")] * len(prompts)
    rows = [
        Row([one, other, _difference(one, other)], text, note, tone)
        for one, other, text, (note, tone) in zip(before, after, full_prompts, notes, strict=True)
    ]
    strength = acting.strengths[0] if acting is not None and acting.strengths else 1.0
    columns = ("base, not asked", f"adapter at {strength:g}, asked", "difference")
    return Preview(
        lay_out(rows, columns=columns, least_px=_LEAST_PX), tuple(full_prompts), verdicts
    )


@torch.no_grad()
def _verdicts(
    judge: Judge, before: Sequence[Image.Image], after: Sequence[Image.Image]
) -> tuple[Verdict, ...]:
    one, other = (torch.stack([pixels_of(p) for p in row]) for row in (before, after))
    seen = judge.belief(other) > 0.5
    changes = judge.changes(other, one, asked=True)
    return tuple(
        Verdict(not bool(seen[i]), tuple(name for name in sorted(changes) if changes[name][i]))
        for i in range(len(before))
    )


def _note(verdict: Verdict, attribute: Attribute) -> tuple[str, str]:
    """Return what is written on a row, and its tone."""
    thing = the(attribute.target_text)
    notes = [f"{thing} {'are' if several(thing) else 'is'} missing"] if verdict.missing else []
    notes += [f"{name} changed" for name in verdict.changed]
    return (", ".join(notes), "bad") if notes else ("nothing else changed", "good")


def _difference(one: Image.Image, other: Image.Image) -> Image.Image:
    """Return how far two pictures are apart, twice as bright."""
    apart = (pixels_of(one) - pixels_of(other)).abs().mean(0) / 2 * 255 * _GAIN
    return Image.fromarray(apart.clamp(max=255).round().to(torch.uint8).numpy()).convert("RGB")


def _square(base: Base, recipe: Recipe) -> tuple[int, int]:
    """Return height and width of the latents of a square picture at the resolution of training."""
    wide = len(base.vae.config.block_out_channels)
    step = picture_step(wide, len(base.unet.config.block_out_channels))
    side = (recipe.data.resolution or base.resolution) // step * step
    return (side // 2 ** (wide - 1),) * 2


def _judge(base: Base, recipe: Recipe) -> Judge | None:
    """Return who can judge without being given anything: the probe of the base's world."""
    drawn = base.world and in_world(recipe.attribute.name, world_of(base))
    return world_judge(recipe.attribute.name, base) if drawn else None


def _prompts(base: Base, recipe: Recipe, examples: Sequence[Example]) -> list[str]:
    """Return held-out portraits' captions, or the data's own base prompts."""
    if base.world:
        world = world_of(base)
        rng = random.Random(f"held-out {recipe.attribute.name}")
        return [world.caption(world.unbiased(rng)) for _ in range(ROWS)]
    return [base_prompt(e.caption, recipe.attribute) for e in examples[:ROWS]]
