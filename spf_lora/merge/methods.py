"""The merge methods, one row each: terms of a module in, other terms or one dense matrix out.

Throughout, term i is `scale_i * up_i @ down_i` with `scale_i = weight_i * alpha_i / rank_i`, and a
convolution's taps are flattened into `in`. Tasks and their sum mean the whole change of one module.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from spf_lora.adapters.factors import decompose
from spf_lora.adapters.module import Array
from spf_lora.errors import RecipeError
from spf_lora.merge.lowrank import Matrix

# a direction this much weaker than the strongest is rounding, not something learned
_SPAN_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Term:
    """What one adapter adds to one module.

    Attributes:
        source: the adapter's place in the list.
        scale: its weight times its own scale.
        up: (out, rank), as stored.
        down: (rank, in), as stored or changed by a method.
        key: the adapter's content id and the module's name; seeds what is drawn.
        norm: Frobenius norm, scale included, before a method took something away, else 0.
        lost: Frobenius norm of what it took away.
    """

    source: int
    scale: float
    up: Array
    down: Array
    key: str = ""
    norm: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True)
class Chance:
    """What the methods on dense modules are given besides the terms.

    Attributes:
        density: share of the entries to keep.
        seed: seeds what is drawn.
    """

    density: float
    seed: int


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        gist: one line for people.
        reference: where it was published.
        rank: whether a rank or an energy may, must or must never be given.
        weights: turns the weights given into those used.
        terms: turns a module's terms into others, or None for a method on dense modules.
        dense: turns a module's terms into its dense change, or None.
        density: what density is if it is not given, or None where it means nothing.
        draws: whether a seed changes the result.
    """

    gist: str
    reference: str
    rank: Literal["never", "may", "must"]
    weights: Callable[[Sequence[float]], list[float]] = list
    terms: Callable[[list[Term]], list[Term]] | None = list
    dense: Callable[[list[Term], Chance], Matrix] | None = None
    density: float | None = None
    draws: bool = False


def shares(weights: Sequence[float]) -> list[float]:
    """Return weights divided by their sum.

    Raises:
        RecipeError: they add up to nothing.
    """
    total = sum(weights)
    if abs(total) < 1e-9 * sum(map(abs, weights)) or total == 0:
        raise RecipeError(
            "the weights add up to 0, so there is no average",
            hint="give other weights, or --method concat for the sum",
        )
    return [weight / total for weight in weights]


def orthogonal(terms: list[Term]) -> list[Term]:
    """Let each term read only what no earlier term reads: down_i - down_i @ span @ span.T.

    `span` holds orthonormal directions of the input that earlier terms answer to (their right
    singular vectors), so on those inputs the merge is exactly what the earlier adapters are.
    """
    span: Matrix = np.zeros((terms[0].down.shape[1], 0))
    kept: list[Term] = []
    for term in terms:
        up = np.asarray(term.up, np.float64) * term.scale
        down = np.asarray(term.down, np.float64)
        taken = (down @ span) @ span.T
        kept.append(replace(term, down=down - taken, norm=_norm(up, down), lost=_norm(up, taken)))
        parts = decompose(up, down - taken)
        strong = parts.values > _SPAN_TOLERANCE * max(_norm(up, down), 1e-300)
        fresh = parts.right[strong]
        # twice is enough: what rounding left of the old directions goes in the second projection
        fresh = fresh - (fresh @ span) @ span.T
        span = np.concatenate([span, np.linalg.qr(fresh.T)[0]], axis=1)
    return kept


def ties(terms: list[Term], chance: Chance) -> Matrix:
    """Trim, elect signs, average those that agree; on the dense change of one module.

    1. of each term only the `density` share of entries largest in magnitude is kept;
    2. an entry's sign is that of the sum of all terms there, weights included;
    3. the result is the mean of the terms that are not 0 there and have that sign.
    """
    mass = _zeros(terms)
    for term in terms:
        mass += _trimmed(term, chance.density)
    sign = np.sign(mass)
    total, count = _zeros(terms), np.zeros(mass.shape, np.uint8)
    for term in terms:
        change = _trimmed(term, chance.density)
        agrees = (change * sign) > 0
        total += np.where(agrees, change, 0.0)
        count += agrees
    return total / np.maximum(count, 1)


def dare(terms: list[Term], chance: Chance) -> Matrix:
    """Drop each entry with probability 1 - density, divide the rest by density, add up.

    What is dropped depends on seed, adapter and module only, not on the order of the adapters.
    """
    total = _zeros(terms)
    for term in terms:
        digest = hashlib.sha256(f"{chance.seed} {term.key}".encode()).digest()
        kept = np.random.default_rng(int.from_bytes(digest)).random(total.shape) < chance.density
        total += np.where(kept, _change(term) / chance.density, 0.0)
    return total


def _zeros(terms: list[Term]) -> Matrix:
    return np.zeros((terms[0].up.shape[0], terms[0].down.shape[1]))


def _change(term: Term) -> Matrix:
    up = np.asarray(term.up, np.float64) * term.scale
    change: Matrix = up @ np.asarray(term.down, np.float64)
    return change


def _trimmed(term: Term, density: float) -> Matrix:
    change = _change(term)
    keep = int(np.ceil(density * change.size))
    sizes = np.abs(change).reshape(-1)
    threshold = np.partition(sizes, change.size - keep)[change.size - keep]
    return np.where(np.abs(change) >= threshold, change, 0.0)


def _norm(up: Matrix, down: Matrix) -> float:
    return float(np.sqrt(max(np.sum((up.T @ up) * (down @ down.T)), 0.0)))


METHODS: dict[str, Method] = {
    "concat": Method(
        gist="the exact weighted sum; ranks add up",
        reference="stacked factors: sum of scale_i up_i down_i",
        rank="never",
    ),
    "svd": Method(
        gist="of all adapters of that rank the one nearest to the exact weighted sum",
        reference="Eckart and Young 1936, doi:10.1007/BF02288367",
        rank="must",
    ),
    "average": Method(
        gist="the exact sum with weights that are made to add up to 1",
        reference="model soups, arXiv:2203.05482",
        rank="may",
        weights=shares,
    ),
    "orthogonal": Method(
        gist="each adapter loses what it reads of inputs that an earlier one answers to",
        reference="after O-LoRA, arXiv:2310.14152, which trains so; ours projects afterwards",
        rank="may",
        terms=orthogonal,
    ),
    "ties": Method(
        gist="largest entries only, signs elected, mean of those that agree",
        reference="TIES-Merging, arXiv:2306.01708",
        rank="must",
        terms=None,
        dense=ties,
        density=0.2,
    ),
    "dare": Method(
        gist="entries dropped at random, the rest made larger",
        reference="DARE, arXiv:2311.03099",
        rank="must",
        terms=None,
        dense=dare,
        density=0.5,
        draws=True,
    ),
}
