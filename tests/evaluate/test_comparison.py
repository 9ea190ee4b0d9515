import dataclasses

import pytest
from made_evaluations import made_up

from spf_lora.errors import MeasureError
from spf_lora.evaluate.comparison import Difference, all_differences, differences
from spf_lora.evaluate.report.summary import difference_sentence, rows, verdict
from spf_lora.evaluate.result import PromptPair, Result
from spf_lora.evaluate.statistics import figures, sums_of

SWEEP = (0.0, 0.5, 1.0)


def result(name, *, pollution, response=lambda a: a, prompts=20, noise=0.0, first=0) -> Result:
    draws = made_up(prompts, SWEEP, response=response, pollution=pollution, noise=noise)
    for draw in draws:
        draw.numbers["truth:pixels"] = 0.1
    return Result(
        attribute="beard",
        target_text="a beard",
        adapter=name,
        adapter_id=name,
        base="embedded",
        base_id="b",
        judge="world",
        sampler={"steps": 2},
        strengths=SWEEP,
        main=1.0,
        cases=tuple(
            PromptPair(f"p{first + i}, a beard", f"p{first + i}", (1, 2)) for i in range(prompts)
        ),
        draws=tuple(draws),
        selftests=(),
        numbers=figures(sums_of(draws, prompts=prompts, strengths=SWEEP), draws=300),
    )


def versus(first: Result, second: Result, figure: str) -> Difference:
    return next(differences(first, second, (figure,)))


def test_a_difference_smaller_than_the_prompts_scatter_is_real_when_it_is_paired() -> None:
    # both share the prompts' scatter (0.2), so that a difference of 0.1 is exact
    one = result("one", pollution=lambda a: 0.8 + 0.1, noise=0.2)
    two = result("two", pollution=lambda a: 0.8, noise=0.2)
    assert one.figure("P").low < two.figure("P").high  # the intervals overlap
    found = versus(one, two, "P@1")
    assert found.real
    assert found.value == pytest.approx(0.1, abs=1e-6)
    assert found.n == 20
    assert versus(two, one, "P@1").value == pytest.approx(-0.1, abs=1e-6)


def test_an_adapter_does_not_differ_from_itself() -> None:
    one = result("one", pollution=lambda a: 0.5, noise=0.2)
    assert not any(d.real for d in all_differences([one, one]))


def test_every_pair_is_compared() -> None:
    three = [
        result(n, pollution=lambda a, k=k: k * a) for k, n in ((0.1, "a"), (0.2, "b"), (0.3, "c"))
    ]
    pairs = [(d.first, d.second) for d in all_differences(three) if d.figure == "sps"]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]


def test_only_prompts_that_both_have_are_compared() -> None:
    one = result("one", pollution=lambda a: 0.5)
    two = result("two", pollution=lambda a: 0.5, prompts=20, first=15)
    assert versus(one, two, "P@1").n == 5


def test_a_response_that_one_never_reaches_gives_no_difference() -> None:
    one = result("one", pollution=lambda a: 0.5)
    two = result("two", pollution=lambda a: 0.5, response=lambda a: 0.1 * a)
    found = versus(one, two, "sps")
    assert (found.value, found.real) == (None, False)
    assert difference_sentence(found).endswith("one of them has no value")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"attribute": "hat"}, "attribute is beard and hat"),
        ({"base_id": "other"}, "base_id is b and other"),
        ({"sampler": {"steps": 9}}, "sampler"),
        ({"cases": tuple(PromptPair(f"q{i}", "q", (1,)) for i in range(20))}, "share no prompt"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, what) -> None:
    one = result("one", pollution=lambda a: 0.5)
    with pytest.raises(MeasureError, match=what):
        versus(one, dataclasses.replace(one, **change), "P@1")


def test_an_unknown_figure_is_refused() -> None:
    one = result("one", pollution=lambda a: 0.5)
    with pytest.raises(MeasureError, match="no figure 'P@9'"):
        versus(one, one, "P@9")


def test_results_at_different_strengths_are_not_compared() -> None:
    one = result("one", pollution=lambda a: 0.5)
    with pytest.raises(MeasureError, match=r"strength 1, two at 0.5"):
        all_differences([one, dataclasses.replace(one, adapter="two", main=0.5)])


def test_the_verdict_says_whether_more_moved_than_the_words_alone_move() -> None:
    more = verdict(result("one", pollution=lambda a: 0.1 + 0.5 * a, noise=0.05))
    less = verdict(result("one", pollution=lambda a: 0.6 - 0.5 * a, noise=0.05))
    same = verdict(result("one", pollution=lambda a: 0.3, noise=0.05))
    assert "it pollutes more than its words do" in more
    assert "it pollutes less than its words alone do" in less
    assert "no more than its words do" in same
    assert "SPS 0.49" in more  # 0.5, and what the noise of 20 prompts leaves
    assert "20 prompts, 40 pictures" in more


def test_the_verdict_says_when_the_response_is_not_reached() -> None:
    weak = result("one", pollution=lambda a: 0.1, response=lambda a: 0.2 * a)
    assert "SPS not reached" in verdict(weak)


def test_the_table_has_the_control_first_and_no_sps_for_it() -> None:
    heads, lines = rows([result("one", pollution=lambda a: 0.2 + 0.2 * a)])
    table = {line[0]: line[1:] for line in lines}
    assert heads == ["", "prompt only", "one"]
    assert table["pollution P"] == ["0.20 [0.20, 0.20]", "0.40 [0.40, 0.40]"]
    assert table["SPS (P at response 0.8)"] == ["", "0.36 [0.36, 0.36]"]
