"""From draws to figures: ratios of means over prompts, with a cluster bootstrap over prompts.

Seeds of one prompt are no independent pictures, so whole prompts are drawn with replacement
(cluster bootstrap; Field and Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x). Every figure is a
function of weighted sums over prompts, so that all draws of the bootstrap are one matrix product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spf_lora.evaluate.result import CHANNELS, Draw, Figure, figure_name

BOOTSTRAPS, SEED = 2000, 0
TARGET_RESPONSE = 0.8
AREA = (0.2, 0.9)
_LEVELS = 71  # responses at which the area is taken
Array = npt.NDArray[np.float64]

# measures that are plain means of one number of the draws: figure -> number
MEANS = {
    "shown": "shown",
    "unasked": "unasked",
    "flips": "flips",
    "leak:flips": "leak:flips",
    "truth:pixels": "truth:pixels",
    "truth:agreement": "truth:agreement",
}


@dataclass(frozen=True, eq=False)
class Sums:
    """Numbers of the draws, summed over the seeds of each prompt.

    Attributes:
        prompts: how many.
        strengths: ascending.
        values: number -> (prompts, strengths).
        counts: number -> draws that have it, (prompts, strengths).
    """

    prompts: int
    strengths: tuple[float, ...]
    values: Mapping[str, Array]
    counts: Mapping[str, Array]


def sums_of(draws: Sequence[Draw], *, prompts: int, strengths: Sequence[float]) -> Sums:
    """Sum draws over seeds; a number that a draw lacks does not count."""
    names = sorted({name for draw in draws for name in draw.numbers})
    shape = (prompts, len(strengths))
    values = {name: np.zeros(shape) for name in names}
    counts = {name: np.zeros(shape) for name in names}
    column = {strength: index for index, strength in enumerate(strengths)}
    for draw in draws:
        at = draw.case, column[draw.strength]
        for name, number in draw.numbers.items():
            values[name][at] += number
            counts[name][at] += 1
    return Sums(prompts, tuple(strengths), values, counts)


def bootstrap_weights(prompts: int, *, draws: int = BOOTSTRAPS, seed: int = SEED) -> Array:
    """Return (draws + 1, prompts): how often each prompt is drawn; the first row is all ones."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=draws)
    return np.concatenate([np.ones((1, prompts)), drawn.astype(np.float64)])


def measures(sums: Sums, weights: Array) -> dict[str, Array]:
    """Return every figure for every row of weights: name -> (rows,), NaN where it does not exist.

    Args:
        sums: of one run.
        weights: (rows, prompts), as `bootstrap_weights` returns them.
    """
    by_strength = _by_strength(sums, weights)
    rows = {
        figure_name(name, strength): columns[:, index]
        for name, columns in by_strength.items()
        for index, strength in enumerate(sums.strengths)
    }
    response, pollution = by_strength["rho"], by_strength["P"]
    if len(sums.strengths) > 1:
        rows["sps"] = at_response(response, pollution, TARGET_RESPONSE)
        rows["auc"] = area(response, pollution)
    if "truth:pixels:I0" in sums.values:
        rows["truth:pixels:I0"] = _mean(sums, weights, "truth:pixels:I0")[:, 0]
    return rows


def _by_strength(sums: Sums, weights: Array) -> dict[str, Array]:
    rows = {"rho": _response(sums, weights)}
    parts = channels(sums, weights)
    leaks = {f"leak:{c}": _ratio(sums, weights, f"leak:{c}", f"leak-ceiling:{c}") for c in parts}
    rows["P"] = np.mean(list(parts.values()), axis=0)
    rows["BL"] = np.mean(list(leaks.values()), axis=0)
    rows["excess"] = rows["P"] - rows["P"][:, :1]
    rows["H"] = harmonic(rows["rho"], rows["P"])
    rows |= parts | leaks
    rows |= {name: _mean(sums, weights, key) for name, key in MEANS.items() if key in sums.values}
    return rows


def channels(sums: Sums, weights: Array) -> dict[str, Array]:
    """Return each channel by its other-seed ceiling, (rows, strengths); P is their mean."""
    return {c: _ratio(sums, weights, c, f"ceiling:{c}") for c in CHANNELS if c in sums.values}


def harmonic(response: Array, pollution: Array) -> Array:
    """Return H = 2 rho (1 - P) / (rho + 1 - P), P clipped to [0, 1]; 0 where both are 0."""
    kept = 1 - np.clip(pollution, 0, 1)
    total = response + kept
    return np.divide(2 * response * kept, total, out=np.zeros_like(total), where=total > 0)


def at_response(response: Array, pollution: Array, level: float) -> Array:
    """Return the pollution where the sweep first reaches a response.

    Args:
        response: (rows, strengths), the sweep in ascending strength.
        pollution: (rows, strengths).
        level: the response to reach; between two strengths both are taken as linear.

    Returns:
        (rows,), NaN where the level is not reached. A control that reaches it gives its own P.
    """
    reached = response >= level
    right = reached.argmax(1)
    left = np.maximum(right - 1, 0)
    row = np.arange(len(response))
    low, high = response[row, left], response[row, right]
    share = np.where(right > 0, (level - low) / np.where(high > low, high - low, 1), 0.0)
    value = pollution[row, left] + share * (pollution[row, right] - pollution[row, left])
    return np.where(reached.any(1), value, np.nan)


def area(response: Array, pollution: Array) -> Array:
    """Return the mean of P over responses from 0.2 to 0.9: the area divided by its width.

    A response that is not reached is charged with another picture's pollution, 1, or with the last
    strength's if that is more: an adapter cannot win by never reaching it.
    """
    charge = np.maximum(1.0, pollution[:, -1])
    rows = []
    for level in np.linspace(*AREA, _LEVELS):
        value = at_response(response, pollution, level)
        rows.append(np.where(np.isnan(value), charge, value))
    mean: Array = np.mean(rows, axis=0)
    return mean


def figures(sums: Sums, *, draws: int = BOOTSTRAPS, seed: int = SEED) -> dict[str, Figure]:
    """Return every figure with its 95 % interval over prompts."""
    weights = bootstrap_weights(sums.prompts, draws=draws, seed=seed)
    return {
        name: figure_of(values, sums.prompts) for name, values in measures(sums, weights).items()
    }


def figure_of(values: Array, prompts: int) -> Figure:
    """Return the figure of (point, bootstrap draws...); draws without a value are left out."""
    point, drawn = float(values[0]), values[1:][~np.isnan(values[1:])]
    reached = float(len(drawn) / max(1, len(values) - 1))
    if np.isnan(point):
        return Figure(None, None, None, prompts, round(reached, 4))
    if prompts < 2 or not len(drawn):
        return Figure(_rounded(point), None, None, prompts, round(reached, 4))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(_rounded(point), _rounded(low), _rounded(high), prompts, round(reached, 4))


def _rounded(value: float) -> float:
    return round(float(value), 6)


def _response(sums: Sums, weights: Array) -> Array:
    """Return rho = (s(I1) - s(I0)) / (s(truth) - s(I0)), means over draws, clipped to [0, 1]."""
    now, before, real = (weights @ sums.values[k] for k in ("score", "score:I0", "score:truth"))
    room = real - before
    rho = np.divide(now - before, room, out=np.zeros_like(room), where=room > 1e-9)
    return np.clip(rho, 0, 1)


def _ratio(sums: Sums, weights: Array, top: str, bottom: str) -> Array:
    """Return the mean of one number over the mean of another; the ceiling is of the whole run."""
    above, below = weights @ sums.values[top], weights @ sums.values[bottom]
    return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-12)


def _mean(sums: Sums, weights: Array, name: str) -> Array:
    above, below = weights @ sums.values[name], weights @ sums.counts[name]
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
