"""How much two adapters meet in the weights. Computed on the factors, no matrix is built.

It is weaker evidence than pictures: adapters that share no direction can still disturb each other
through the network, and adapters that share many may do so on prompts nobody writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spf_lora.adapters.module import Adapter, Array, Module


@dataclass(frozen=True)
class Overlap:
    """Two adapters in weight space, over the modules that both move.

    Attributes:
        cosine: of the two updates as one long vector each, in [-1, 1]; 0 if no module is shared.
        reads: share of the smaller input space that the other reads too, in [0, 1].
        writes: the same for what they write to.
        modules: how many modules both move.
    """

    cosine: float
    reads: float
    writes: float
    modules: int


def overlap(first: Adapter, second: Adapter) -> Overlap:
    """Compare two adapters.

    `cosine` is <A, B> / (|A| |B|) over all modules of both; `reads` and `writes` are
    |U.T V|^2 / min(rank) of orthonormal bases U, V of the down and up factors, mean over modules
    (the normalised subspace similarity of arXiv 2106.09685, eq. 4, at full rank).
    """
    shared = sorted(first.modules.keys() & second.modules.keys())
    inner, reads, writes = 0.0, [], []
    for name in shared:
        (up, down), (other_up, other_down) = (
            _factors(one.modules[name]) for one in (first, second)
        )
        inner += float(np.sum((up.T @ other_up) * (down @ other_down.T)))
        reads.append(_similarity(down.T, other_down.T))
        writes.append(_similarity(up, other_up))
    norm = _norm(first) * _norm(second)
    return Overlap(
        cosine=inner / norm if norm else 0.0,
        reads=float(np.mean(reads)) if reads else 0.0,
        writes=float(np.mean(writes)) if writes else 0.0,
        modules=len(shared),
    )


def overlaps(adapters: Sequence[Adapter]) -> list[list[Overlap]]:
    """Compare every adapter with every other and itself."""
    return [[overlap(one, other) for other in adapters] for one in adapters]


def _factors(module: Module) -> tuple[Array, Array]:
    """Return up times scale (out, rank) and down (rank, in * taps), in float64."""
    up = np.asarray(module.up, np.float64).reshape(-1, module.rank) * module.scale
    return up, np.asarray(module.down, np.float64).reshape(module.rank, -1)


def _norm(adapter: Adapter) -> float:
    total = 0.0
    for module in adapter.modules.values():
        up, down = _factors(module)
        total += float(np.sum((up.T @ up) * (down @ down.T)))
    return float(np.sqrt(total))


def _similarity(one: Array, other: Array) -> float:
    """Return the overlap of two column spaces, 0 for orthogonal ones, 1 if one holds the other."""
    first, second = _basis(one), _basis(other)
    least = min(first.shape[1], second.shape[1])
    return float(np.sum((first.T @ second) ** 2) / least) if least else 0.0


def _basis(columns: Array) -> Array:
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    kept: Array = left[:, values > values.max(initial=0.0) * 1e-6] if values.any() else left[:, :0]
    return kept
