"""Which differences between adapters are real: the same prompts, drawn again together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from spf_lora.errors import MeasureError
from spf_lora.evaluate.result import Result, figure_name
from spf_lora.evaluate.statistics import (
    BOOTSTRAPS,
    Array,
    bootstrap_weights,
    figure_of,
    measures,
    sums_of,
)

# what a comparison speaks of: measures at the main strength, then those of the sweep
MEASURES = ("rho", "P", "BL", "unasked", "truth:pixels")
OF_THE_SWEEP = ("sps", "auc")


@dataclass(frozen=True)
class Difference:
    """One figure of one adapter less that of another, over the prompts both have.

    Attributes:
        figure: its name.
        first: name of the adapter it is subtracted from.
        second: name of the adapter that is subtracted.
        value: the difference; None where one of them has no value.
        low: lower end of its 95 % interval.
        high: upper end.
        n: prompts both have.
        real: the interval excludes 0.
    """

    figure: str
    first: str
    second: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    real: bool


def differences(first: Result, second: Result, names: Sequence[str]) -> Iterator[Difference]:
    """Yield the paired difference of each figure: the bootstrap draws the same prompts for both.

    Raises:
        MeasureError: they are of another base, attribute or sampler, have no prompt in common, or
            one lacks a figure.
    """
    cases = _common(first, second)
    weights = bootstrap_weights(len(cases), draws=BOOTSTRAPS)
    one, other = (
        _values(result, rows, weights)
        for result, rows in ((first, [i for i, _ in cases]), (second, [j for _, j in cases]))
    )
    for name in names:
        for result, values in ((first, one), (second, other)):
            if name not in values:
                raise MeasureError(
                    f"there is no figure {name!r} in the report of {result.name}",
                    hint=f"it has: {', '.join(values)}",
                )
        figure = figure_of(one[name] - other[name], len(cases))
        real = (
            figure.low is not None
            and figure.high is not None
            and not figure.low <= 0 <= figure.high
        )
        yield Difference(
            name, first.name, second.name, figure.value, figure.low, figure.high, len(cases), real
        )


def all_differences(results: Sequence[Result]) -> list[Difference]:
    """Return the differences of every pair in the measures that both have."""
    rows: list[Difference] = []
    for first, second in combinations(results, 2):
        if first.main != second.main:
            raise MeasureError(
                f"{first.name} is judged at strength {first.main:g}, "
                f"{second.name} at {second.main:g}",
                hint="evaluate both with the same --strengths",
            )
        names = [*(figure_name(m, first.main) for m in MEASURES), *OF_THE_SWEEP]
        shared = [n for n in names if n in first.numbers and n in second.numbers]
        rows += differences(first, second, shared)
    return rows


def _common(first: Result, second: Result) -> list[tuple[int, int]]:
    """Return the indices of the prompts that both have."""
    for what in ("attribute", "base_id", "judge", "sampler"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            raise MeasureError(
                f"{first.name} and {second.name} cannot be compared: {what} is {one} and {other}",
                hint="evaluate both on the same base, attribute and settings",
            )
    places = {case: index for index, case in enumerate(second.cases)}
    shared = [(i, places[case]) for i, case in enumerate(first.cases) if case in places]
    if not shared:
        raise MeasureError(
            f"there are no pictures to compare: {first.name} and {second.name} share no prompt "
            "with the same seeds",
            hint="evaluate both with the same --prompts and --seeds",
        )
    return shared


def _values(result: Result, rows: Sequence[int], weights: Array) -> dict[str, Array]:
    place = {case: index for index, case in enumerate(rows)}
    draws = [replace(d, case=place[d.case]) for d in result.draws if d.case in place]
    sums = sums_of(draws, prompts=len(rows), strengths=result.strengths)
    return {name: np.asarray(values) for name, values in measures(sums, weights).items()}
