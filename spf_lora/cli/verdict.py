"""What a finished training says: how the adapter is in one line, and what one would type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.evaluate.preview import Comparison, Effect, Preview, Verdict

_SHOWN, _CLEAN = 0.75, 0.6  # least shares of the rows that show it, and that kept the rest


def verdict(preview: "Preview", settings: Recipe, picture: Path) -> str:
    """Return one line: what the rows of the picture show, whether it is good, what to do.

    Args:
        preview: as it was drawn.
        settings: the recipe.
        picture: its file.
    """
    found, name = preview.verdicts, settings.attribute.target_text
    if not found:
        return f"verdict: nobody judged {picture}; look at it: only {name!r} should be new in a row"
    shown = sum(not one.missing for one in found)
    clean = sum(not one.changed for one in found)
    said = f"{name} in {shown} of {len(found)} pictures, nothing else changed in {clean}"
    if shown < _SHOWN * len(found):
        return f"verdict: weak: {said}; train longer, or look at the data's captions"
    if clean < _CLEAN * len(found):
        others = f"{_commonest(found)} in most others"
        return f"verdict: polluted: {said}, {others}; --local or a lower strength changes less"
    return f"verdict: good: {said}"


def cleaned_verdict(found: "Comparison", settings: Recipe, picture: Path) -> tuple[str, ...]:
    """Return what an adapter did before and does after cleaning, and which one to keep.

    Args:
        found: what was drawn with both.
        settings: the recipe.
        picture: its file.
    """
    before, after = found.before, found.after
    lines = (f"before: {_effect(before, settings)}", f"cleaned: {_effect(after, settings)}")
    old, new = (before.metrics(), after.metrics())
    if new.get("shown", 1.0) < _SHOWN * old.get("shown", 1.0):
        end = (
            "weaker: it shows in fewer pictures; clean with more --steps, or --set distil.pairs=96"
        )
    elif all(new[name] >= old[name] for name in ("moved", "leaked") if name in old and name in new):
        end = "no cleaner: keep the old file, or say with --target what really asks for it"
    elif "shown" in new:
        end = "cleaner"
    else:
        end = f"it moves less; nobody judged whether all of it is still there: look at {picture}"
    return (*lines, f"verdict: {end}")


def _effect(effect: "Effect", settings: Recipe) -> str:
    said = []
    if effect.verdicts:
        count = len(effect.verdicts)
        shown = sum(not one.missing for one in effect.verdicts)
        clean = sum(not one.changed for one in effect.verdicts)
        target = settings.attribute.target_text
        said.append(f"{target} in {shown} of {count} pictures, nothing else changed in {clean}")
    said.append(f"moves {effect.moved:.2f} of what another seed moves")
    if effect.leaked is not None:
        said.append(f"{effect.leaked:.2f} where nobody asks")
    return ", ".join(said)


def _commonest(found: "Sequence[Verdict]") -> str:
    """Return what was changed most often."""
    every = sorted(name for one in found for name in one.changed)
    return max(every, key=every.count)


def next_commands(
    preview: "Preview", settings: Recipe, target: Path, data: Path | None
) -> tuple[str, str, str]:
    """Return what one would type next: draw, measure, keep.

    Args:
        preview: its first prompt is drawn.
        settings: the recipe.
        target: the adapter's file.
        data: the user's folder; None for drawn portraits.
    """
    training, file = settings.training, str(target)
    on = [] if training.base == "embedded" else ["--base", training.base]
    on += [] if training.tokenizer == "own" else ["--tokenizer", training.tokenizer]
    judge = ["--quick"] if data is None else ["--quick", "--judge-from", str(data)]
    name = settings.attribute.name
    here = target.parent == Path("adapters")
    keep = ["stack", "create", "mine", name] if here else ["adapters", "add", file, "--name", name]
    known = name if here else file
    draw = ["generate", preview.prompts[0], "--adapter", known, "--compare", *on]
    measure = ["evaluate", known, *judge, *on]
    drawn, measured, kept = (shlex.join(["spf-lora", *words]) for words in (draw, measure, keep))
    return drawn, measured, kept
