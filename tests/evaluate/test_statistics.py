import numpy as np
import pytest
from made_evaluations import made_up

from spf_lora.evaluate.statistics import (
    area,
    at_response,
    bootstrap_weights,
    figures,
    harmonic,
    measures,
    sums_of,
)

SWEEP = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def found(draws, prompts, strengths=SWEEP, **how):
    return figures(sums_of(draws, prompts=prompts, strengths=strengths), **how)


def test_a_straight_line_gives_its_own_value_at_a_response_of_08() -> None:
    draws = made_up(10, SWEEP, response=lambda a: min(1, a), pollution=lambda a: 0.5 * a)
    numbers = found(draws, 10)
    assert numbers["rho@0.5"].value == 0.5
    assert numbers["P@1"].value == 0.5
    assert numbers["excess@1"].value == 0.5
    assert numbers["BL@1"].value == 0.25
    assert numbers["sps"].value == pytest.approx(0.4)
    # the mean of 0.5 * rho over rho in [0.2, 0.9]
    assert numbers["auc"].value == pytest.approx(0.275)
    assert numbers["sps"].n == 10


def test_pollution_is_a_ratio_of_means_so_one_tiny_ceiling_does_not_rule() -> None:
    draws = made_up(2, (0.0,), response=lambda a: 0, pollution=lambda a: 0.1)
    for draw in draws:
        if draw.case == 1:
            draw.numbers.update({k: 1e-9 for k in draw.numbers if "ceiling" in k})
    assert found(draws, 2, (0.0,))["P@0"].value == pytest.approx(0.2)


def test_a_response_that_is_never_reached_is_a_result() -> None:
    draws = made_up(10, SWEEP, response=lambda a: 0.4 * a, pollution=lambda a: 0.1)
    sps = found(draws, 10)["sps"]
    assert (sps.value, sps.low, sps.high, sps.reached) == (None, None, None, 0.0)
    assert found(draws, 10)["auc"].value > 0.5  # charged with 1 where it is not reached


def test_doing_nothing_has_no_balance() -> None:
    draws = made_up(4, (0.0, 1.0), response=lambda a: 0, pollution=lambda a: 0)
    assert found(draws, 4, (0.0, 1.0))["H@1"].value == 0


def test_the_first_crossing_counts_and_both_neighbours_are_interpolated() -> None:
    response = np.array([[0.0, 0.6, 1.0, 0.5], [0.9, 1.0, 1.0, 1.0], [0.0, 0.1, 0.2, 0.3]])
    pollution = np.array([[0.0, 0.1, 0.3, 0.9]] * 3)
    np.testing.assert_allclose(at_response(response, pollution, 0.8), [0.2, 0.0, np.nan])


def test_the_area_of_an_adapter_that_moves_nothing_is_zero_only_if_it_responds() -> None:
    still = np.zeros((1, 3))
    assert area(np.array([[0.0, 0.5, 1.0]]), still)[0] == 0
    assert area(np.array([[0.0, 0.0, 0.1]]), still)[0] == 1
    assert area(np.array([[0.0, 0.0, 0.1]]), still + 1.5)[0] == 1.5


def test_harmonic_mean_has_its_closed_form_and_its_ends() -> None:
    rho, p = np.array([0.8, 1.0, 1.0, 0.0]), np.array([0.5, 0.0, 1.7, 0.0])
    np.testing.assert_allclose(harmonic(rho, p), [0.8 / 1.3, 1.0, 0.0, 0.0])


def test_the_bootstrap_is_seeded_and_its_first_row_is_the_sample_itself() -> None:
    weights = bootstrap_weights(7, draws=50)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 7).all()
    assert (weights == bootstrap_weights(7, draws=50)).all()
    assert (weights != bootstrap_weights(7, draws=50, seed=1)).any()


def test_the_unit_is_the_prompt_so_more_seeds_do_not_shrink_the_interval() -> None:
    def width(seeds):
        draws = made_up(
            12, (0.0,), response=lambda a: 0, pollution=lambda a: 0.5, noise=0.2, seeds=seeds
        )
        f = found(draws, 12, (0.0,))["P@0"]
        return f.high - f.low

    assert width(8) == pytest.approx(width(1))


def test_the_interval_is_that_of_the_mean_over_prompts() -> None:
    draws = made_up(200, (0.0,), response=lambda a: 0, pollution=lambda a: 2, noise=0.3, seeds=1)
    values = np.array([d.numbers["region"] for d in draws])
    f = found(draws, 200, (0.0,))["P@0"]
    standard_error = values.std() / np.sqrt(200)
    # the percentile bootstrap of a mean is normal here; 2000 draws give its ends within 8 %
    assert f.high - f.low == pytest.approx(2 * 1.96 * standard_error, rel=0.08)
    assert f.value == pytest.approx(values.mean(), abs=1e-6)


def test_one_prompt_has_no_interval() -> None:
    f = found(made_up(1, (0.0,), response=lambda a: 0, pollution=lambda a: 0.3), 1, (0.0,))["P@0"]
    assert (f.value, f.low, f.high, f.n) == (0.3, None, None, 1)


def test_a_number_that_some_draws_lack_is_the_mean_of_the_others() -> None:
    draws = made_up(4, (0.0,), response=lambda a: 0, pollution=lambda a: 0.3)
    for draw in draws[:2]:
        draw.numbers["truth:pixels"] = 0.25
    assert found(draws, 4, (0.0,))["truth:pixels@0"].value == 0.25


def test_all_bootstrap_draws_at_once_are_each_draw_alone() -> None:
    draws = made_up(6, SWEEP, response=lambda a: min(1, a), pollution=lambda a: 0.5 * a, noise=0.1)
    sums = sums_of(draws, prompts=6, strengths=SWEEP)
    weights = bootstrap_weights(6, draws=5)
    together = measures(sums, weights)
    for index, row in enumerate(weights):
        alone = measures(sums, row[None])
        for name, values in together.items():
            np.testing.assert_allclose(values[index], alone[name][0])
