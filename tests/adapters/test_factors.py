import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spf_lora.adapters import factors
from spf_lora.adapters.module import Module
from spf_lora.errors import RecipeError

LINEAR = "unet.up_blocks.2.resnets.1.time_emb_proj"
CONV = "unet.mid_block.resnets.0.conv1"


def module(rank, alpha, seed, conv=False):
    rng = np.random.default_rng(seed)
    taps = (3, 3) if conv else ()
    down = rng.normal(size=(rank, 9, *taps)).astype(np.float32)
    up = rng.normal(size=(14, rank, *(1 for _ in taps))).astype(np.float32)
    return Module(CONV if conv else LINEAR, down, up, alpha)


MODULES = st.builds(
    module, st.integers(1, 12), st.floats(0.5, 8), st.integers(0, 1000), st.booleans()
)


@given(MODULES)
@settings(max_examples=30)
def test_the_norm_from_gram_matrices_is_the_norm_of_the_full_matrix(delta_of, one):
    assert factors.norm(one) == pytest.approx(np.linalg.norm(delta_of(one)), rel=1e-5)


@given(MODULES)
@settings(max_examples=30)
def test_the_decomposition_is_the_full_matrix_with_sorted_values(delta_of, one):
    parts = factors.decompose_module(one)
    assert np.allclose((parts.left * parts.values) @ parts.right, delta_of(one), atol=1e-4)
    assert (np.diff(parts.values) <= 0).all()


@given(MODULES, st.integers(1, 12), st.floats(0.5, 8))
@settings(max_examples=30)
def test_the_error_printed_is_the_error_made_and_no_matrix_of_that_rank_is_nearer(
    delta_of, one, rank, alpha
):
    done = factors.resize(one, alpha=alpha, rank=rank)
    wanted = delta_of(one)
    made = np.linalg.norm(delta_of(done.module) - wanted)
    assert done.error == pytest.approx(made, abs=1e-4)
    best = np.linalg.svd(wanted, compute_uv=False)[done.module.rank :]
    assert done.error == pytest.approx(np.linalg.norm(best), abs=1e-4)
    assert done.norm == pytest.approx(np.linalg.norm(wanted), rel=1e-4)
    assert done.module.kind == one.kind


@given(MODULES, st.floats(0.05, 1))
@settings(max_examples=30)
def test_energy_keeps_the_fewest_directions_that_hold_it(one, energy):
    done = factors.resize(one, alpha=1, energy=energy)
    squares = factors.decompose_module(one).values ** 2
    kept = done.module.rank
    assert squares[:kept].sum() >= energy * squares.sum() * (1 - 1e-9)
    assert kept == 1 or squares[: kept - 1].sum() < energy * squares.sum()


def test_the_full_rank_loses_nothing_and_a_second_resize_changes_nothing(delta_of):
    one = module(6, 3.0, 0)
    once = factors.resize(one, alpha=2, rank=3)
    twice = factors.resize(once.module, alpha=5, rank=3)
    assert factors.resize(one, alpha=2, rank=6).error < 1e-9
    assert twice.error < 1e-5
    assert np.allclose(delta_of(twice.module), delta_of(once.module), atol=1e-5)


def test_a_module_that_does_nothing_can_be_resized():
    still = Module(LINEAR, np.ones((3, 5), "f4"), np.zeros((4, 3), "f4"), 3)
    done = factors.resize(still, alpha=1, energy=0.99)
    assert (done.module.rank, done.norm, done.error) == (1, 0.0, 0.0)


@pytest.mark.parametrize(
    ("rank", "energy", "reason"),
    [
        (None, None, "either a rank or an energy"),
        (4, 0.9, "either a rank or an energy"),
        (0, None, "less than 1"),
        (None, 0.0, "not in"),
        (None, 1.5, "not in"),
        (None, float("nan"), "not in"),
    ],
)
def test_settings_that_mean_nothing_are_refused(rank, energy, reason):
    with pytest.raises(RecipeError, match=reason):
        factors.check_resize(rank, energy)
