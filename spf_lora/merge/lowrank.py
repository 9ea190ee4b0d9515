"""The nearest matrix of lower rank, and exactly how near it is (Eckart and Young, 1936).

Factors of a small total rank go through QR and the SVD of the core (total rank x total rank); the
full matrix is never built. Towards the size of the matrix itself, the Gram matrix of its smaller
side is decomposed instead, from the factors or, once they are larger than the matrix that they
stand for and it is cheaper, from that matrix.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from spf_lora.adapters.factors import Near, decompose, kept, truncated

Matrix = npt.NDArray[np.float64]


def nearest(up: Matrix, down: Matrix, *, rank: int | None, energy: float | None) -> Near:
    """Return the best approximation of `up @ down`.

    Args:
        up: (out, total), scale inside.
        down: (total, in).
        rank: directions to keep at most, or None.
        energy: or the share of the squared norm to keep.
    """
    out, total, into = *up.shape, down.shape[1]
    if 2 * total <= min(out, into):
        return truncated(decompose(up, down), rank=rank, energy=energy)
    if total >= min(out, into) and _cheaper_whole(out, total, into):
        return nearest_dense(up @ down, rank=rank, energy=energy)
    if out < into:
        near = nearest_by_gram(
            up @ (down @ down.T) @ up.T, lambda left: ((left.T @ up) @ down).T, rank, energy
        )
        return Near(near.down.T, near.up.T, near.norm, near.error)
    return nearest_by_gram(
        down.T @ (up.T @ up) @ down, lambda right: up @ (down @ right), rank, energy
    )


def nearest_dense(matrix: Matrix, *, rank: int | None, energy: float | None) -> Near:
    """Return the best approximation of a matrix that is there as a whole."""
    if matrix.shape[0] < matrix.shape[1]:
        near = nearest_dense(matrix.T, rank=rank, energy=energy)
        return Near(near.down.T, near.up.T, near.norm, near.error)
    return nearest_by_gram(matrix.T @ matrix, lambda right: matrix @ right, rank, energy)


def nearest_by_gram(
    gram: Matrix, apply: Callable[[Matrix], Matrix], rank: int | None, energy: float | None
) -> Near:
    """Return the best approximation of A, from A.T @ A and from A itself as a function.

    Projecting on the leading eigenvectors V of A.T @ A gives A V V.T; what it holds is measured on
    A V, so the error is that of the result, whatever the eigenvectors' own rounding.
    """
    squares, vectors = np.linalg.eigh(gram)
    squares, vectors = np.maximum(squares[::-1], 0.0), vectors[:, ::-1]
    right = vectors[:, : kept(squares, rank, energy)]
    image = apply(right)
    held = np.linalg.norm(image, axis=0)
    root = np.sqrt(np.where(held > 0, held, 1.0))
    total = float(np.trace(gram))
    return Near(
        image / root,
        root[:, None] * right.T,
        float(np.sqrt(max(total, 0.0))),
        float(np.sqrt(max(total - float(np.sum(held**2)), 0.0))),
    )


def _cheaper_whole(out: int, total: int, into: int) -> bool:
    """Tell whether multiplying the factors out takes fewer steps than their Gram matrices."""
    small, large = sorted((out, into))
    whole = 2 * out * total * into + small**2 * large
    return whole < total**2 * large + 2 * total**2 * small + 2 * total * small**2
