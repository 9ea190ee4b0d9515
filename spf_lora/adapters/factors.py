"""Arithmetic on low-rank factors; the full matrix is never built.

A module moves its weight by `scale * up @ down`. With QR of both factors the small core
(rank x rank) holds all of it, so norms, spectra and truncation errors are exact and cheap.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spf_lora.adapters.module import Module
from spf_lora.adapters.number_formats import effective_up
from spf_lora.errors import RecipeError

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decomposed:
    """The singular value decomposition of what a module adds.

    Attributes:
        left: (out, rank) orthonormal columns.
        values: (rank,) singular values, largest first.
        right: (rank, in) orthonormal rows; a convolution's taps are flattened into `in`.
    """

    left: Matrix
    values: Matrix
    right: Matrix


def decompose(up: npt.NDArray[np.floating], down: npt.NDArray[np.floating]) -> Decomposed:
    """Decompose `up @ down` without forming it: QR of each, SVD of the core.

    Args:
        up: (out, rank), scale already inside.
        down: (rank, in).
    """
    left, left_core = np.linalg.qr(np.asarray(up, np.float64))
    right, right_core = np.linalg.qr(np.asarray(down, np.float64).T)
    inner_left, values, inner_right = np.linalg.svd(left_core @ right_core.T)
    return Decomposed(
        left @ inner_left[:, : len(values)], values, inner_right[: len(values)] @ right.T
    )


def decompose_module(module: Module) -> Decomposed:
    """Decompose what a module adds, scale included."""
    up = effective_up(module).reshape(-1, module.rank)
    return decompose(up, np.asarray(module.down, np.float32).reshape(module.rank, -1))


def norm(module: Module) -> float:
    """Return the Frobenius norm of what a module adds, from two Gram matrices.

    |up @ down|^2 = sum((up.T @ up) * (down @ down.T)).
    """
    up = effective_up(module).reshape(-1, module.rank).astype(np.float64)
    down = np.asarray(module.down, np.float64).reshape(module.rank, -1)
    return float(np.sqrt(max(np.sum((up.T @ up) * (down @ down.T)), 0.0)))


@dataclass(frozen=True)
class Near:
    """A matrix `up @ down` near another one.

    Attributes:
        up: (out, rank); its columns and the rows of `down` have equal norms.
        down: (rank, in).
        norm: Frobenius norm of the matrix that was asked for.
        error: Frobenius norm of the difference.
    """

    up: Matrix
    down: Matrix
    norm: float
    error: float


def truncated(parts: Decomposed, *, rank: int | None, energy: float | None) -> Near:
    """Return the strongest directions (Eckart and Young, 1936: no rank-k matrix is nearer).

    Args:
        parts: of the matrix.
        rank: directions to keep at most, or None.
        energy: or keep the fewest that hold this share of the squared norm, in (0, 1].
    """
    squares = parts.values**2
    count = kept(squares, rank, energy)
    root = np.sqrt(parts.values[:count])
    return Near(
        parts.left[:, :count] * root,
        root[:, None] * parts.right[:count],
        float(np.sqrt(squares.sum())),
        float(np.sqrt(squares[count:].sum())),
    )


def kept(squares: Matrix, rank: int | None, energy: float | None) -> int:
    """Return how many leading values to keep; at least one."""
    if rank is not None:
        return min(rank, len(squares))
    total = squares.sum()
    if energy is None or total == 0:
        return len(squares) if energy is None else 1
    enough = int(np.searchsorted(np.cumsum(squares) / total, energy - 1e-12)) + 1
    return min(enough, len(squares))


@dataclass(frozen=True)
class Resized:
    """A truncated module and what the truncation cost.

    Attributes:
        module: the new module, in float32.
        norm: Frobenius norm before.
        error: Frobenius norm of what was cut off.
    """

    module: Module
    norm: float
    error: float


def resize(
    module: Module, *, alpha: float, rank: int | None = None, energy: float | None = None
) -> Resized:
    """Truncate a module to its strongest directions (Eckart and Young, 1936: no rank-k is nearer).

    Args:
        module: what to truncate.
        alpha: alpha of the new module; the scale it implies is divided out of `up`.
        rank: how many directions to keep at most.
        energy: or keep the fewest that hold this share of the squared norm, in (0, 1].
    """
    near = truncated(decompose_module(module), rank=rank, energy=energy)
    keep = len(near.down)
    up, down = near.up * (keep / alpha), near.down
    new = Module(
        module.name,
        down.astype(np.float32).reshape(keep, *module.down.shape[1:]),
        up.astype(np.float32).reshape(module.up.shape[0], keep, *module.up.shape[2:]),
        alpha,
    )
    return Resized(new, near.norm, near.error)


def check_resize(rank: int | None, energy: float | None) -> None:
    """Refuse settings that no module can be resized by.

    Raises:
        RecipeError: not exactly one is given, or it is out of range.
    """
    if (rank is None) == (energy is None):
        raise RecipeError("give either a rank or an energy", hint="--rank 8, or --energy 0.99")
    if rank is not None and rank < 1:
        raise RecipeError(f"rank {rank} is less than 1", hint="--rank 8")
    if energy is not None and not 0 < energy <= 1:
        raise RecipeError(f"energy {energy:g} is not in (0, 1]", hint="--energy 0.99")
