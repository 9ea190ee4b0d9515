"""What one evaluation found, as frozen dataclasses that go to JSON and back.

Figures are named `measure@strength` ("P@1", "rho@0.5"; strength 0 is the prompt-only control), or
by the measure alone ("sps", "auc"). docs/evaluation.md says what each one means.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spf_lora.documents import parse_json
from spf_lora.errors import MeasureError
from spf_lora.strict import mistyped

FORMAT = "spf-lora report"
VERSION = 1
CHANNELS = ("region", "identity", "attributes", "layout", "colour")


@dataclass(frozen=True)
class Figure:
    """One number of a run with its 95 % interval.

    Attributes:
        value: the number; None where it does not exist, such as an SPS whose response is not
            reached.
        low: lower end of the interval over prompts; None as `value`.
        high: upper end.
        n: prompts behind it, the unit of the bootstrap.
        reached: share of the bootstrap draws in which the number exists.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reached: float = 1.0

    def text(self, digits: int = 2) -> str:
        """Return "0.31 [0.25, 0.38]", or what to say where there is no number."""
        if self.value is None:
            return f"not reached ({self.reached:.0%} of draws)"
        if self.low is None or self.high is None:
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@dataclass(frozen=True)
class PromptPair:
    """One prompt of the run.

    Attributes:
        prompt: with the attribute.
        base_prompt: without it.
        seeds: one picture each.
    """

    prompt: str
    base_prompt: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Draw:
    """One (prompt, seed, strength): its pictures and every number read from them.

    Attributes:
        case: index into `Result.cases`.
        seed: of the noise that all of its pictures but Iz share.
        strength: of the adapter; 0 is the base model.
        pictures: "I0", "Ic", "I1", "Ib", "Iz", "Iy" (a third seed), "region" (white where the
            attribute may act) and, where they are known, "plain" and "truth" (the person of I0
            drawn without and with the attribute) -> key for
            `spf_lora.evaluate.gallery.read_picture`.
        numbers: measure -> value; "P" is this draw's pollution, "score" the judge's belief in the
            attribute on I1, "shown" 1 where it sees it, channels bare ("region") are I1 against
            I0 and "leak:region" is Ib against I0; see docs/evaluation.md.
    """

    case: int
    seed: int
    strength: float
    pictures: Mapping[str, str]
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class SelfTest:
    """One check of the metric itself, on this run's pictures.

    Attributes:
        name: short, such as "same picture".
        claim: the sentence that must hold.
        value: what was found.
        passed: whether it holds.
    """

    name: str
    claim: str
    value: float
    passed: bool


@dataclass(frozen=True)
class Result:
    """Everything one evaluation found.

    Attributes:
        attribute: name of the attribute.
        target_text: the phrase that asks for it.
        adapter: name of the adapter; "" for the base model alone.
        adapter_id: its content id; "" for the base model alone.
        base: name of the base model.
        base_id: its id.
        judge: which scorers read the pictures.
        sampler: name, steps, guidance and negative prompt.
        strengths: of the sweep, ascending, 0 first.
        main: the strength the sentences and the gate speak of.
        cases: the prompts.
        draws: one row per (prompt, seed, strength).
        numbers: figure name -> figure.
        selftests: checks of the metric.
        remarks: everything a reader must know: cut prompts, pictures that failed, small n.
        versions: package -> version.
        seconds: wall time; pictures from the cache cost none.
        pictures_drawn: pictures that were not in the cache.
        gallery: where the pictures lie; not part of the JSON.
    """

    attribute: str
    target_text: str
    adapter: str
    adapter_id: str
    base: str
    base_id: str
    judge: str
    sampler: Mapping[str, str | int | float]
    strengths: tuple[float, ...]
    main: float
    cases: tuple[PromptPair, ...]
    draws: tuple[Draw, ...]
    numbers: Mapping[str, Figure]
    selftests: tuple[SelfTest, ...]
    remarks: tuple[str, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    pictures_drawn: int = 0
    gallery: Path | None = dataclasses.field(default=None, compare=False)

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.adapter or "prompt only"

    def figures(self) -> dict[str, Figure]:
        """Return every figure by name."""
        return dict(self.numbers)

    def figure(self, measure: str, strength: float | None = None) -> Figure:
        """Return a figure, by default at the main strength where it has one.

        Raises:
            MeasureError: there is no such figure.
        """
        wanted = [figure_name(measure, self.main if strength is None else strength), measure]
        for name in wanted if strength is None else wanted[:1]:
            if name in self.numbers:
                return self.numbers[name]
        raise MeasureError(
            f"there is no figure {wanted[0]!r} in the report of {self.name}",
            hint=f"it has: {', '.join(self.numbers)}",
        )

    def at(self, strength: float) -> list[Draw]:
        """Return the draws of one strength."""
        return [draw for draw in self.draws if draw.strength == strength]

    def to_json(self) -> str:
        """Return the report as JSON."""
        table = dataclasses.asdict(self)
        del table["gallery"]
        return json.dumps(
            {"format": FORMAT, "version": VERSION, **table},
            indent=1,
            ensure_ascii=False,
            allow_nan=False,
        )


def figure_name(measure: str, strength: float) -> str:
    """Return the name of a measure at a strength: "P@0.5"."""
    return f"{measure}@{strength:g}"


def from_json(text: str, *, gallery: Path | None = None) -> Result:
    """Read a report back.

    Args:
        text: what `Result.to_json` returned.
        gallery: the folder its pictures lie in.

    Raises:
        MeasureError: it is no report of ours, or of another version.
    """
    try:
        table = parse_json(text)
        if table.pop("format") != FORMAT or table.pop("version") != VERSION:
            raise ValueError("another format or version")
        return _result(table, gallery)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeasureError(
            f"this is no report of this version: {error}",
            hint="make it again with spf-lora evaluate; its pictures are in the cache",
        ) from error


def _result(table: dict[str, Any], gallery: Path | None) -> Result:
    table["strengths"] = tuple(one + 0.0 for one in table["strengths"])
    table["cases"] = tuple(PromptPair(**{**c, "seeds": tuple(c["seeds"])}) for c in table["cases"])
    table["draws"] = tuple(Draw(**d) for d in table["draws"])
    table["numbers"] = {name: Figure(**f) for name, f in table["numbers"].items()}
    table["selftests"] = tuple(SelfTest(**s) for s in table["selftests"])
    table["remarks"] = tuple(table["remarks"])
    result = Result(**table, gallery=gallery)
    if wrong := mistyped(result, Result):
        raise ValueError(f"{wrong.removeprefix('it.')[:100]} is of the wrong type")
    for draw in result.draws:
        if not 0 <= draw.case < len(result.cases):
            raise ValueError(f"a draw of prompt {draw.case}, which is not in it")
    return result
