import dataclasses

import pytest

from spf_lora.errors import MeasureError
from spf_lora.evaluate.gate import MEASURES, SWEPT, check_gate, parse_gate
from spf_lora.evaluate.result import Figure, figure_name

SWEEP = (0.0, 0.5, 1.0)


def with_figures(measured, **numbers):
    figures = {
        name.replace("_at_", "@"): Figure(value, None, None, 4) for name, value in numbers.items()
    }
    return dataclasses.replace(measured, numbers=dict(measured.numbers) | figures)


def outcomes(result, text):
    return check_gate(result, parse_gate(text, SWEEP))


def test_a_gate_holds_when_every_condition_does(measured) -> None:
    result = with_figures(measured, sps=0.15, rho_at_1=0.9)
    assert all(o.passed for o in outcomes(result, "sps<0.2, response > 0.8"))
    failing = outcomes(result, "sps<0.15,response>=0.9")
    assert [(o.text, o.value, o.passed) for o in failing] == [
        ("sps<0.15", 0.15, False),
        ("response>=0.9", 0.9, True),
    ]


def test_a_strength_can_be_named(measured) -> None:
    result = with_figures(measured, P_at_1=0.9, **{"P_at_0.5": 0.1})
    assert [o.passed for o in outcomes(result, "P<0.5,P@0.5<0.5,pollution@1<0.5")] == [
        False,
        True,
        False,
    ]


def test_a_figure_that_is_not_reached_never_holds(measured) -> None:
    result = dataclasses.replace(
        measured, numbers=dict(measured.numbers) | {"sps": Figure(None, None, None, 4, 0.0)}
    )
    assert [o.passed for o in outcomes(result, "sps<9,sps>0")] == [False, False]


def test_every_figure_of_a_run_can_be_a_gate(measured) -> None:
    for measure in MEASURES:
        assert figure_name(measure, 1.0) in measured.numbers, measure
    assert set(SWEPT) <= set(measured.numbers)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("speed<1", "'speed' is no figure"),
        ("sp<1", "'sp' is no figure; did you mean sps"),
        ("", "'' cannot be read"),
        ("sps", "'sps' cannot be read"),
        ("sps<", "cannot be read"),
        ("sps<much", "cannot be read"),
        ("sps<nan", "cannot be read"),
        ("sps<0.2,,rho>1", "'' cannot be read"),
        ("sps=0.2", "cannot be read"),
        ("P@0.3<1", "P@0.3 is not measured"),
        ("P@x<1", "P@x is not measured"),
        ("sps@1<1", "sps@1 is not measured"),
    ],
)
def test_a_gate_that_cannot_be_checked_is_refused(text, what) -> None:
    with pytest.raises(MeasureError, match=what):
        parse_gate(text, SWEEP)


def test_an_unknown_figure_is_answered_with_the_list() -> None:
    with pytest.raises(MeasureError, match="no figure") as wrong:
        parse_gate("zzz<1", SWEEP)
    assert "sps, auc, response" in wrong.value.hint
