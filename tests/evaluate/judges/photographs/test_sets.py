import numpy
import pytest
import torch

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.sets import frechet, kernel_distance


def sample(n, dim, seed, scale=1.0, shift=0.0):
    return numpy.random.default_rng(seed).normal(shift, scale, (n, dim))


@pytest.mark.parametrize(("n", "m"), [(200, 150), (12, 7)])
def test_frechet_agrees_with_the_textbook_formula(n, m):
    # The second case has fewer pictures than features, where matrix roots lose digits.
    one, other = sample(n, 20, 0), sample(m, 20, 1, scale=1.5, shift=0.3)
    first, second = numpy.cov(one, rowvar=False), numpy.cov(other, rowvar=False)
    roots = numpy.linalg.eigvals(first @ second).real.clip(0)
    wanted = (
        ((one.mean(0) - other.mean(0)) ** 2).sum()
        + numpy.trace(first + second)
        - 2 * numpy.sqrt(roots).sum()
    )
    assert frechet(*map(torch.tensor, (one, other))) == pytest.approx(wanted, rel=1e-4)


def test_frechet_of_known_gaussians_is_the_closed_form():
    # Whitened samples have mean 0 and covariance 1 exactly, so scaling and shifting are exact too.
    raw = sample(500, 5, 2)
    raw -= raw.mean(0)
    white = raw @ numpy.linalg.inv(numpy.linalg.cholesky(numpy.cov(raw, rowvar=False))).T
    moved = white * 3 + numpy.array([1.0, 0, 0, 2, 0])
    wanted = 5 + 5 * (1 - 3) ** 2  # |m|^2 + dim (s1 - s2)^2
    assert frechet(*map(torch.tensor, (white, moved))) == pytest.approx(wanted, rel=1e-9)
    assert frechet(*map(torch.tensor, (white, white))) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_agrees_with_the_sums_written_out():
    one, other = sample(7, 4, 0), sample(5, 4, 1, shift=0.5)

    def k(x, y):
        return (x @ y / 4 + 1) ** 3

    within = [
        sum(k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j)
        / (len(s) * (len(s) - 1))
        for s in (one, other)
    ]
    across = numpy.mean([k(x, y) for x in one for y in other])
    found = kernel_distance(*map(torch.tensor, (one, other)))
    assert found == pytest.approx(within[0] + within[1] - 2 * across, rel=1e-9)


def test_kernel_distance_is_unbiased():
    def mean_over_seeds(shift):
        pairs = [(sample(20, 4, s), sample(20, 4, 1000 + s, shift=shift)) for s in range(200)]
        return numpy.mean([kernel_distance(*map(torch.tensor, pair)) for pair in pairs])

    assert abs(mean_over_seeds(0.0)) < 0.05
    assert mean_over_seeds(0.5) > 0.5


def test_one_picture_is_no_set():
    with pytest.raises(ScorerError, match="two pictures or more"):
        frechet(torch.zeros(1, 3), torch.zeros(4, 3))
