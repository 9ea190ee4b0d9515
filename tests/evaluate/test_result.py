import dataclasses
import json

import pytest

from spf_lora.errors import MeasureError
from spf_lora.evaluate.result import (
    Draw,
    Figure,
    PromptPair,
    Result,
    SelfTest,
    figure_name,
    from_json,
)


def small() -> Result:
    draws = tuple(
        Draw(case, 7, strength, {"I0": "aa", "I1": "bb"}, {"P": 0.1 * case + strength})
        for case in (0, 1)
        for strength in (0.0, 1.0)
    )
    numbers = {
        "P@0": Figure(0.05, 0.0, 0.1, 2),
        "P@1": Figure(1.05, 1.0, 1.1, 2),
        "sps": Figure(None, None, None, 2, 0.25),
    }
    return Result(
        attribute="beard",
        target_text="a beard",
        adapter="mine",
        adapter_id="c0ffee",
        base="embedded",
        base_id="1234",
        judge="world",
        sampler={"name": "ddim", "steps": 25, "guidance": 3.0, "negative": ""},
        strengths=(0.0, 1.0),
        main=1.0,
        cases=(
            PromptPair("a man, a beard", "a man", (7,)),
            PromptPair("<b>, a beard", "<b>", (7,)),
        ),
        draws=draws,
        numbers=numbers,
        selftests=(SelfTest("same", "P is 0", 0.0, True),),
        remarks=("two prompts are few",),
        versions={"torch": "2"},
    )


def test_a_report_read_back_is_the_same_report(tmp_path) -> None:
    again = from_json(small().to_json(), gallery=tmp_path)
    assert again == small()
    assert again.gallery == tmp_path


def test_a_report_holds_no_path_of_the_machine(tmp_path) -> None:
    result = dataclasses.replace(small(), gallery=tmp_path)
    assert str(tmp_path) not in result.to_json()


def test_figures_are_found_by_measure_and_strength() -> None:
    assert small().figure("P").value == 1.05
    assert small().figure("P", 0).value == 0.05
    assert small().figure("sps").value is None
    assert figure_name("P", 0.25) == "P@0.25"
    with pytest.raises(MeasureError, match=r"no figure .P@0\.5.") as wrong:
        small().figure("P", 0.5)
    assert "P@0, P@1, sps" in wrong.value.hint


def test_a_figure_says_its_interval_or_that_it_is_not_reached() -> None:
    assert Figure(0.314, 0.25, 0.381, 16).text() == "0.31 [0.25, 0.38]"
    assert Figure(None, None, None, 16, 0.25).text() == "not reached (25% of draws)"
    assert Figure(0.5, None, None, 1).text() == "0.50"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"version": 99}, "version"),
        ({"format": "other"}, "format"),
        ({"strangers": 1}, "strangers"),
        ({"seconds": "long"}, "seconds is of the wrong type"),
        ({"numbers": {"P": {"value": "x", "low": 0, "high": 0, "n": 1}}}, "numbers.P.value is of"),
        ({"cases": [{"prompt": 1, "base_prompt": "", "seeds": []}]}, "cases.0.prompt is of"),
        ({"draws": [{"case": 5, "seed": 1, "strength": 1, "pictures": {}, "numbers": {}}]}, "5"),
    ],
)
def test_a_file_that_is_no_report_of_ours_is_refused(change, what) -> None:
    text = json.dumps(json.loads(small().to_json()) | change)
    with pytest.raises(MeasureError, match=what):
        from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"format": 1}'])
def test_what_is_not_json_of_ours_is_refused(text) -> None:
    with pytest.raises(MeasureError, match="no report"):
        from_json(text)


def test_a_number_that_is_not_finite_is_refused() -> None:
    text = small().to_json().replace('"P": 1.1', '"P": NaN')
    assert "NaN" in text
    with pytest.raises(MeasureError, match="P is not a finite number"):
        from_json(text)
