"""A headline says plainly what the numbers say; what went wrong is told in a person's words."""

import pytest

from spf_lora.evaluate.faults import ceilings_of, faults, the
from spf_lora.evaluate.headline import THRESHOLDS, headline
from spf_lora.evaluate.report.summary import best_at_response, pick
from spf_lora.evaluate.result import Draw, Figure, PromptPair, Result


def result(name="mine", *, width=0.01, main=1.0, **values) -> Result:
    """A result with these figures: `P__1` is P at strength 1, `sps` is of the sweep."""
    numbers = {}
    for key, value in values.items():
        low, high = (None, None) if value is None else (value - width, value + width)
        numbers[key.replace("__", "@")] = Figure(value, low, high, 16, float(value is not None))
    return Result(
        attribute="beard",
        target_text="a beard",
        adapter=name,
        adapter_id=name,
        base="embedded",
        base_id="b",
        judge="world",
        sampler={},
        strengths=(0.0, 1.0),
        main=main,
        cases=(PromptPair("p, a beard", "p", (1,)),) * 16,
        draws=(),
        numbers=numbers,
        selftests=(),
    )


GOOD = {"shown__1": 0.9, "unasked__0": 0.02, "unasked__1": 0.03, "P__1": 0.4, "P__0": 0.35}


@pytest.mark.parametrize(
    ("excess", "leakage", "unasked", "level", "words"),
    [
        (0.05, 0.05, 0.03, "clean", "Clean: changes little besides the beard"),
        (-0.3, 0.0, 0.02, "clean", "Clean: changes little besides the beard"),
        (0.2, 0.05, 0.03, "some", "Some pollution: more changes than the beard"),
        (0.05, 0.3, 0.03, "some", "Some pollution"),
        (0.05, 0.05, 0.1, "some", "Some pollution"),
        (0.05, 1.1, 0.03, "heavy", "Heavy pollution: much more changes than the beard"),
        (0.6, 0.05, 0.03, "heavy", "Heavy pollution"),
        (0.05, 0.05, 0.44, "heavy", "Heavy pollution"),
    ],
)
def test_the_worst_of_three_numbers_decides(excess, leakage, unasked, level, words):
    values = GOOD | {"excess__1": excess, "BL__1": leakage, "unasked__1": unasked}
    found = headline(result(**values))
    assert found.level == level
    assert found.text.startswith(words)


def test_what_the_base_shows_by_itself_is_not_the_adapters_fault():
    values = GOOD | {"excess__1": 0.0, "BL__1": 0.0, "unasked__0": 0.3, "unasked__1": 0.31}
    assert headline(result(**values)).level == "clean"


@pytest.mark.parametrize(
    ("shown", "words"),
    [(0.9, "beard"), (0.6, ", but the beard is often missing"), (0.2, "is mostly missing")],
)
def test_an_adapter_that_answers_seldom_is_not_praised_alone(shown, words):
    values = GOOD | {"excess__1": 0.0, "BL__1": 0.0, "shown__1": shown}
    assert headline(result(**values)).text.endswith(words)


def test_the_sentence_below_has_the_numbers():
    found = headline(result(**GOOD, excess__1=0.05, BL__1=0.0))
    assert found.detail == (
        "The beard appears in 90% of the pictures that ask for it and in 3% of those that do not; "
        "besides, 40% as much changes as with another seed (the words alone: 35%)."
    )


def test_few_prompts_that_cannot_decide_are_told():
    values = GOOD | {"excess__1": 0.12, "BL__1": 0.0}
    sure, unsure = (headline(result(width=w, **values)) for w in (0.005, 0.2))
    assert sure.level == unsure.level == "some"
    assert "may be a level better or worse" in unsure.detail
    assert "may be" not in sure.detail


def test_nothing_measured_and_no_adapter_are_told_as_such():
    assert headline(result()).level == "unknown"
    assert "without an adapter" in headline(result(main=0.0)).text


def test_the_thresholds_are_those_of_the_glossary():
    from spf_lora.evaluate.report.words import glossary

    _, meaning = glossary()["headline"]
    for row in THRESHOLDS:
        assert f"{row.clean:.2f} or {row.some:.2f}" in meaning


def draw(**numbers) -> Draw:
    said = {key.replace("__", ":"): value for key, value in numbers.items()}
    return Draw(0, 1, 1.0, {}, said)


def test_faults_name_what_the_judge_sees_changed():
    found = faults(draw(shown=1.0, changed__background=1.0, P=0.2), "a beard", {})
    assert found == ("background changed",)
    leaked = draw(**{"leak-changed__hair colour": 1.0})
    assert faults(leaked, "a beard", {}) == ("hair colour changed where nobody asked",)


def test_faults_tell_of_channels_where_nothing_has_a_name():
    ceilings = ceilings_of([draw(ceiling__identity=0.2), draw(ceiling__identity=0.4)])
    assert ceilings == {"identity": pytest.approx(0.3)}
    assert faults(draw(identity=0.25), "a beard", ceilings) == ("looks like somebody else",)
    assert faults(draw(identity=0.15), "a beard", ceilings) == ()


def test_the_base_alone_is_not_blamed_on_the_adapter():
    unasked = {"unasked": 1.0, "shown": 1.0, "P": 0.1}
    said = faults(draw(**unasked, score__I0=0.2), "glasses", {})
    assert said == ("the glasses appear where nobody asked",)
    assert not faults(draw(**unasked, score__I0=0.9), "glasses", {})


@pytest.mark.parametrize(
    ("target", "words"), [("a beard", "the beard"), ("an apple", "the apple"), ("old", "the old")]
)
def test_an_attribute_is_spoken_of_as_a_thing(target, words):
    assert the(target) == words


def test_the_step_with_the_least_pollution_at_equal_response_is_picked():
    steps = [
        result("step-100", sps=None, rho__1=0.5),
        result("step-200", sps=0.4),
        result("step-300", sps=0.7),
    ]
    assert best_at_response(steps).name == "step-200"
    assert pick(steps) == (
        "take step-200: the least pollution at a response of 0.8, 0.40 [0.39, 0.41]"
    )


def test_a_step_that_may_be_as_good_is_named():
    steps = [result("a", sps=0.4, width=0.1), result("b", sps=0.45, width=0.1)]
    assert pick(steps).endswith("b may be as good")


def test_no_step_is_picked_where_none_answers():
    steps = [result("a", sps=None, rho__1=0.3), result("b", sps=None, rho__1=0.6)]
    assert best_at_response(steps) is None
    assert pick(steps) == "none reaches a response of 0.8; b comes nearest: 0.60"
