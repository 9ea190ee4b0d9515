"""One evaluation from beginning to end: draw, look, count."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from spf_lora import __version__
from spf_lora.base.load import Base
from spf_lora.data.worlds.portraits import ATTRIBUTES
from spf_lora.draw.act import Acting
from spf_lora.draw.sample import SAMPLING, Sampling
from spf_lora.errors import MeasureError
from spf_lora.evaluate.draw_missing import Progress, painter
from spf_lora.evaluate.judges.judge import Judge
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.numbers import with_numbers, with_pollution
from spf_lora.evaluate.plan import PicturePlan
from spf_lora.evaluate.protocol import STRENGTHS, Case, check_lengths
from spf_lora.evaluate.result import CHANNELS, Draw, PromptPair, Result
from spf_lora.evaluate.selftests import selftests
from spf_lora.evaluate.statistics import BOOTSTRAPS, figures, sums_of
from spf_lora.recipe.schema import Attribute

FEW_PROMPTS = 40
_TOOLS = ("torch", "diffusers", "transformers", "numpy")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What an adapter should add, on which prompts, and at which strengths it is looked at.

    Attributes:
        attribute: what it should add; a name stands for an attribute of the portrait world.
        cases: the prompts, see `spf_lora.evaluate.protocol`.
        strengths: of the sweep; 0 is always in it.
        judge: who looks at the pictures; by default that of the world which the base draws.
        words_percent: share of the time steps until which the base prompt is drawn; by default as
            long as no adapter acts. At strength 0 nothing is late.
        bootstraps: draws of the bootstrap.
    """

    attribute: Attribute | str
    cases: Sequence[Case]
    strengths: Sequence[float] = STRENGTHS
    judge: Judge | None = None
    words_percent: float | None = None
    bootstraps: int = BOOTSTRAPS

    @property
    def name(self) -> str:
        """The attribute's name."""
        return self.attribute if isinstance(self.attribute, str) else self.attribute.name


def evaluate(
    base: Base,
    acting: Acting,
    measurement: Measurement,
    *,
    gallery: Path,
    name: str = "",
    sampling: Sampling = SAMPLING,
    on_progress: Progress | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Result:
    """Measure what an adapter does, and what it does besides.

    Args:
        base: the model it was trained on.
        acting: the adapter, or several that act together; `NOTHING` measures the prompt-only
            control alone. With `local` they never act where nothing is asked for.
        measurement: what is asked for, and how often.
        gallery: folder of the picture cache; `cache_folder()` is the user's.
        name: what tables call the adapter.
        sampling: how pictures are drawn.
        on_progress: told how many of the missing pictures are drawn.
        on_stage: told what begins: "draw", "look", "count".

    Raises:
        MeasureError: there is nothing to compare, or the attribute cannot be judged.
        PromptError: a prompt is too long.
        AdapterFileError: the adapter does not fit the base.
    """
    began = time.perf_counter()
    tell = on_stage or (lambda stage: None)
    cases = measurement.cases
    judge = measurement.judge or world_judge(measurement.name, base)
    strengths = _sweep(measurement.strengths, acting)
    if not cases or not all(case.seeds for case in cases):
        raise MeasureError("there are no pictures to compare", hint="give a prompt and a seed")
    check_lengths(base.tokenizer, cases)
    paint = painter(base, acting, folder=gallery, sampling=sampling)
    paint.check()
    until = measurement.words_percent
    tell("draw")
    plan = PicturePlan(
        cases, strengths, min(acting.starts, default=0.0) if until is None else until, acting.local
    )
    drawn = paint.draw(plan.wanted(), on_progress)
    tell("look")
    draws = _looked_at(plan.draws(paint, judge), judge, gallery)
    tell("count")
    sums = sums_of(draws, prompts=len(cases), strengths=strengths)
    return Result(
        attribute=measurement.name,
        target_text=_target_text(measurement.attribute),
        adapter=(name or measurement.name) if acting.adapters else "",
        adapter_id=paint.adapter_id,
        base=base.name,
        base_id=base.id,
        judge=judge.name,
        sampler=sampler_of(sampling, acting) | {"negative": ""},
        strengths=strengths,
        main=1.0 if 1.0 in strengths else strengths[-1],
        cases=tuple(PromptPair(c.prompt, c.base_prompt, c.seeds) for c in cases),
        draws=tuple(draws),
        numbers=figures(sums, draws=measurement.bootstraps),
        selftests=tuple(selftests(draws, judge, gallery)),
        remarks=tuple(_remarks(cases, draws)),
        versions={"spf-lora": __version__, **{tool: version(tool) for tool in _TOOLS}},
        seconds=round(time.perf_counter() - began, 2),
        pictures_drawn=drawn,
        gallery=gallery,
    )


def _looked_at(draws: Sequence[Draw], judge: Judge, gallery: Path) -> list[Draw]:
    """Return the draws with all their numbers."""
    rows = with_numbers(draws, judge, gallery)
    channels = [c for c in CHANNELS if all(f"ceiling:{c}" in row.numbers for row in rows)]
    return with_pollution(rows, channels)


def sampler_of(sampling: Sampling, acting: Acting) -> dict[str, str | int | float]:
    """Return what a result says of how its pictures were drawn."""
    return {
        "name": sampling.sampler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        **_lateness(acting.starts),
        **_runtime(acting),
    }


def _lateness(starts: Sequence[float]) -> dict[str, float | str]:
    """Return what a result's sampler says of adapters that begin late: nothing if none does."""
    if not any(starts):
        return {}
    alike = len(set(starts)) == 1
    return {"start_percent": starts[0] if alike else " ".join(f"{one:g}" for one in starts)}


def _runtime(acting: Acting) -> dict[str, str]:
    """Return what a result's sampler says of adapters that are not drawn as any app does."""
    named = [name for name, on in (("exact", acting.words), ("local", acting.local)) if on]
    return {"runtime": ", ".join(named)} if named else {}


def _target_text(attribute: Attribute | str) -> str:
    if isinstance(attribute, Attribute):
        return attribute.target_text
    return ATTRIBUTES[attribute].target_text if attribute in ATTRIBUTES else attribute


def _sweep(strengths: Sequence[float], acting: Acting) -> tuple[float, ...]:
    wanted = {0.0, *map(float, strengths)} if acting.adapters else {0.0}
    if not all(0 <= s <= 4 for s in wanted):
        raise MeasureError(
            f"strengths {', '.join(f'{s:g}' for s in strengths)}: each must be from 0 to 4",
            hint="the usual sweep is 0, 0.25, 0.5, 0.75, 1, 1.25",
        )
    return tuple(sorted(wanted))


def _remarks(cases: Sequence[Case], draws: Sequence[Draw]) -> list[str]:
    remarks = []
    if len(cases) < FEW_PROMPTS:
        remarks.append(
            f"{len(cases)} prompts: intervals are wide; {FEW_PROMPTS} are meant for claims"
        )
    if len(cases) == 1:
        remarks.append("one prompt has no interval: the prompt is the unit")
    without = sum("truth" not in draw.pictures for draw in draws)
    if without:
        remarks.append(
            "nobody knows how the right picture would look: there is no distance to the truth"
        )
    return remarks
