"""One evaluation from beginning to end: draw, look, count."""

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from spf_lora import __version__
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.data.worlds.portraits import ATTRIBUTES
from spf_lora.draw.act import acting
from spf_lora.draw.sample import BATCH, GUIDANCE, STEPS
from spf_lora.errors import MeasureError
from spf_lora.evaluate.judges.judge import Judge
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.numbers import with_numbers, with_pollution
from spf_lora.evaluate.paint import Progress, painter
from spf_lora.evaluate.plan import Plan
from spf_lora.evaluate.protocol import STRENGTHS, Case, check_lengths
from spf_lora.evaluate.result import CHANNELS, Asked, Draw, Result
from spf_lora.evaluate.selftests import selftests
from spf_lora.evaluate.statistics import BOOTSTRAPS, figures, sums_of
from spf_lora.recipe.schema import Attribute

FEW_PROMPTS = 40
_TOOLS = ("torch", "diffusers", "transformers", "numpy")


def evaluate(
    base: Base,
    adapter: Adapter | Sequence[Adapter] | None,
    *,
    attribute: Attribute | str,
    cases: Sequence[Case],
    gallery: Path,
    strengths: Sequence[float] = STRENGTHS,
    name: str = "",
    judge: Judge | None = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    start_percent: float | Sequence[float] = 0.0,
    words_percent: float | None = None,
    exact: Sequence[str] = (),
    local: bool = False,
    batch_size: int = BATCH,
    bootstraps: int = BOOTSTRAPS,
    on_progress: Progress | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Result:
    """Measure what an adapter does, and what it does besides.

    Args:
        base: the model it was trained on.
        adapter: or several that act together; None measures the prompt-only control alone.
        attribute: what it should add; a name stands for an attribute of the portrait world.
        cases: the prompts, see `spf_lora.evaluate.protocol`.
        gallery: folder of the picture cache; `cache_folder()` is the user's.
        strengths: of the sweep; 0 is always in it.
        name: what tables call the adapter.
        judge: who looks at the pictures; the portrait world's by default.
        steps: DDIM steps.
        guidance: scale of classifier-free guidance.
        start_percent: share of the time steps before the adapter acts, or before each does; at
            strength 0 nothing is late.
        words_percent: share of the time steps until which the base prompt is drawn; by default as
            long as no adapter acts.
        exact: the words that ask for each adapter, which then acts on them alone; empty: adapters
            are added to the weights, as every app does.
        local: adapters act in the control map alone, and never where nothing is asked for.
        batch_size: pictures drawn at once.
        bootstraps: draws of the bootstrap.
        on_progress: told how many of the missing pictures are drawn.
        on_stage: told what begins: "draw", "look", "count".

    Raises:
        MeasureError: there is nothing to compare, or the attribute cannot be judged.
        PromptError: a prompt is too long.
        AdapterFileError: the adapter does not fit the base.
    """
    began = time.perf_counter()
    tell = on_stage or (lambda stage: None)
    who = attribute if isinstance(attribute, str) else attribute.name
    judge = judge or world_judge(who)
    swept = _sweep(strengths, adapter)
    if not cases or not all(case.seeds for case in cases):
        raise MeasureError("there are no pictures to compare", hint="give a prompt and a seed")
    check_lengths(base.tokenizer, cases)
    adapters = [adapter] if isinstance(adapter, Adapter) else list(adapter or ())
    acts = acting(
        [(one, 1.0) for one in adapters], start_percent=start_percent, words=exact, local=local
    )
    paint = painter(
        base, acts, folder=gallery, steps=steps, guidance=guidance, batch_size=batch_size
    )
    paint.check()
    until = min(acts.starts, default=0.0) if words_percent is None else words_percent
    tell("draw")
    plan = Plan(cases, swept, until, local)
    drawn = paint.draw(plan.wanted(), on_progress)
    tell("look")
    rows = plan.draws(paint, judge)
    seen = with_numbers(rows, judge, gallery)
    channels = [c for c in CHANNELS if all(f"ceiling:{c}" in d.numbers for d in seen)]
    draws = with_pollution(seen, channels)
    tell("count")
    sums = sums_of(draws, prompts=len(cases), strengths=swept)
    return Result(
        attribute=who,
        target_text=_target_text(attribute),
        adapter=(name or who) if adapter else "",
        adapter_id=paint.adapter_id, base=base.name, base_id=base.id, judge=judge.name,
        sampler={
            "name": "ddim", "steps": steps, "guidance": guidance, "negative": "",
            **lateness(acts.starts), **runtime(exact, local),
        },
        strengths=swept, main=1.0 if 1.0 in swept else swept[-1],
        cases=tuple(Asked(c.prompt, c.base_prompt, c.seeds) for c in cases),
        draws=tuple(draws), numbers=figures(sums, draws=bootstraps),
        selftests=tuple(selftests(draws, judge, gallery)),
        remarks=tuple(_remarks(cases, draws)),
        versions={"spf-lora": __version__, **{tool: version(tool) for tool in _TOOLS}},
        seconds=round(time.perf_counter() - began, 2), pictures_drawn=drawn, gallery=gallery,
    )  # fmt: skip


def lateness(starts: Sequence[float]) -> dict[str, float | str]:
    """Return what a result's sampler says of adapters that begin late: nothing if none does."""
    if not any(starts):
        return {}
    alike = len(set(starts)) == 1
    return {"start_percent": starts[0] if alike else " ".join(f"{one:g}" for one in starts)}


def runtime(exact: object, local: bool) -> dict[str, str]:
    """Return what a result's sampler says of adapters that no other app draws so."""
    named = [name for name, on in (("exact", exact), ("local", local)) if on]
    return {"runtime": ", ".join(named)} if named else {}


def _target_text(attribute: Attribute | str) -> str:
    if isinstance(attribute, Attribute):
        return attribute.target_text
    return ATTRIBUTES[attribute].target_text if attribute in ATTRIBUTES else attribute


def _sweep(strengths: Sequence[float], adapter: object) -> tuple[float, ...]:
    wanted = {0.0, *map(float, strengths)} if adapter else {0.0}
    if not all(0 <= s <= 4 for s in wanted):
        raise MeasureError(
            f"strengths {', '.join(f'{s:g}' for s in strengths)}: each must be from 0 to 4",
            hint="the usual sweep is 0, 0.25, 0.5, 0.75, 1, 1.25",
        )
    return tuple(sorted(wanted))


def _remarks(cases: Sequence[Case], draws: Sequence[Draw]) -> list[str]:
    said = []
    if len(cases) < FEW_PROMPTS:
        said.append(f"{len(cases)} prompts: intervals are wide; {FEW_PROMPTS} are meant for claims")
    if len(cases) == 1:
        said.append("one prompt has no interval: the prompt is the unit")
    without = sum("truth" not in draw.pictures for draw in draws)
    if without:
        said.append(
            "nobody knows how the right picture would look: there is no distance to the truth"
        )
    return said
