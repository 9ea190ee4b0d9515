"""Logistic regression on features of pictures: few pictures, many features, so it is held short."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

FOLDS = 5
PENALTY = 0.01  # of the squared weights, features scaled so that a picture's squares sum to about 1
_STEPS = 50


@dataclass(frozen=True, eq=False)
class Classifier:
    """Tells two kinds of pictures apart.

    Attributes:
        mean: of the features it was fitted on, (features,).
        scale: what they are divided by, (features,).
        weights: (features,).
        bias: of the sum.
    """

    mean: Array
    scale: Array
    weights: Array
    bias: float

    def belief(self, features: Array) -> Array:
        """Return how surely each picture is of the first kind, (pictures,) in [0, 1]."""
        total = (features - self.mean) / self.scale @ self.weights + self.bias
        return np.asarray(1 / (1 + np.exp(-np.clip(total, -60, 60))))


def fit(features: Array, labels: npt.NDArray[np.bool_]) -> Classifier:
    """Fit by Newton's method; both kinds weigh the same, however many there are of each.

    Minimises sum_i c_i log(1 + exp(-y_i (w x_i + b))) + PENALTY |w|^2 / 2.

    Args:
        features: (pictures, features).
        labels: (pictures,), True for the first kind; there are some of each.
    """
    mean, scale = features.mean(0), features.std(0) + 1e-8
    scale = scale * features.shape[1] ** 0.5
    # In the space that the pictures span the solution is the same, and there are fewer unknowns.
    u, s, vt = np.linalg.svd((features - mean) / scale, full_matrices=False)
    inputs = np.column_stack([u * s, np.ones(len(u))])  # (pictures, rank + 1)
    target = labels.astype(np.float64)
    each = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    penalty = np.full(inputs.shape[1], PENALTY)
    penalty[-1] = 1e-6
    solution = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        belief = 1 / (1 + np.exp(-np.clip(inputs @ solution, -60, 60)))
        gradient = inputs.T @ (each * (belief - target)) + penalty * solution
        curvature = (inputs * (each * belief * (1 - belief))[:, None]).T @ inputs
        step = np.linalg.solve(curvature + np.diag(penalty), gradient)
        solution = solution - step
        if np.abs(step).max() < 1e-9:
            break
    return Classifier(mean, scale, vt.T @ solution[:-1], float(solution[-1]))


def unseen_beliefs(features: Array, labels: npt.NDArray[np.bool_]) -> Array:
    """Return the belief in each picture of a classifier that was fitted without it, (pictures,)."""
    beliefs = np.zeros(len(features))
    for test in _folds(labels):
        kept = np.ones(len(features), dtype=np.bool_)
        kept[test] = False
        beliefs[test] = fit(features[kept], labels[kept]).belief(features[test])
    return beliefs


def _folds(labels: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the pictures of each fold, with both kinds spread evenly."""
    rng = np.random.default_rng(0)
    order = [rng.permutation(np.flatnonzero(labels == kind)) for kind in (True, False)]
    for fold in range(FOLDS):
        yield np.concatenate([rows[fold::FOLDS] for rows in order])
