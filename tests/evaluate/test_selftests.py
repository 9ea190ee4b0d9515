"""The metric's own checks pass on the embedded base, and fail where they should."""

import pytest
import torch
from made_evaluations import evaluate_adapter, random_adapter

from spf_lora.base.load import load_base
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.protocol import held_out_cases
from spf_lora.evaluate.result import SelfTest
from spf_lora.evaluate.selftests import selftests

NAMES = {
    "same picture",
    "doing nothing",
    "another seed",
    "growing change",
    "true edit, pollution",
    "true edit, response",
    "shuffled labels",
}


def by_name(tests) -> dict[str, SelfTest]:
    return {test.name: test for test in tests}


def test_the_exact_checks_hold_on_any_base(measured) -> None:
    tests = by_name(measured.selftests)
    assert set(tests) == NAMES
    for name in ("same picture", "doing nothing"):
        assert tests[name].value == 0
        assert tests[name].passed


def test_a_judge_that_moves_with_the_attribute_is_found_out(measured, gallery, monkeypatch) -> None:
    judge = world_judge("beard")
    whole = type(judge).distances

    def skewed(self, after, before, outside, *, asked):
        found = whole(self, after, before, outside, asked=asked)
        return found | {"attributes": (self.belief(after) - self.belief(before)).abs() * 50}

    monkeypatch.setattr(type(judge), "distances", skewed)
    tests = by_name(selftests(measured.draws, judge, gallery))
    assert not tests["true edit, pollution"].passed


def test_a_judge_that_cannot_see_the_attribute_is_found_out(measured, gallery, monkeypatch) -> None:
    judge = world_judge("beard")
    monkeypatch.setattr(type(judge), "belief", lambda self, pixels: pixels.mean((1, 2, 3)) * 0)
    tests = by_name(selftests(measured.draws, judge, gallery))
    assert not tests["true edit, response"].passed


@pytest.mark.slow
def test_every_check_passes_on_the_embedded_base(tmp_path) -> None:
    base = load_base("embedded", device=torch.device("cpu"))
    result = evaluate_adapter(
        base,
        random_adapter(base.unet, size=0.05),
        attribute="beard",
        cases=held_out_cases("beard", prompts=16, seeds=2),
        strengths=(0, 0.5, 1),
        gallery=tmp_path,
        steps=10,
    )
    assert [t for t in result.selftests if not t.passed] == []
    assert [result.figure("P", a).value for a in (0, 0.5, 1)] == sorted(
        result.figure("P", a).value for a in (0, 0.5, 1)
    )
