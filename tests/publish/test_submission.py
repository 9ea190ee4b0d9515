"""Protocol 1 is frozen; a submission is of the protocol, whole and unchanged, or it is refused."""

import json
from dataclasses import replace

import pytest
from made_adapters import KEYS_AND_VALUES
from made_evaluations import made_up

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.base.load import embedded_card
from spf_lora.data.worlds.portraits import ATTRIBUTES
from spf_lora.errors import MeasureError
from spf_lora.evaluate import protocol, statistics
from spf_lora.evaluate.result import Figure, PromptPair, Result, SelfTest
from spf_lora.publish import submission
from spf_lora.publish.submission import Submission, read_submission, submission_of
from spf_lora.recipe.digest import table_hash


@pytest.fixture(scope="module")
def result() -> Result:
    """Made-up figures on the very prompts of the protocol."""
    cases = tuple(
        PromptPair(one.prompt, one.base_prompt, one.seeds)
        for one in protocol.held_out_cases("beard")
    )
    strengths = submission.STRENGTHS
    draws = made_up(
        40, strengths, response=lambda s: min(1.0, s), pollution=lambda s: 0.4 * s, noise=0.05
    )
    sums = statistics.sums_of(draws, prompts=40, strengths=strengths)
    return Result(
        attribute="beard",
        target_text="a beard",
        adapter="mine",
        adapter_id="ab" * 32,
        base="embedded",
        base_id=submission.BASE,
        judge="world",
        sampler=dict(submission.SAMPLER),
        strengths=strengths,
        main=1.0,
        cases=cases,
        draws=(),
        numbers=statistics.figures(sums, draws=100),
        selftests=(SelfTest("same picture", "P = 0", 0.0, True),),
        versions={"spf-lora": "0.1.0"},
    )


@pytest.fixture(scope="module")
def sound(result: Result) -> Submission:
    return submission_of(result)


def test_what_protocol_1_fixes_is_what_this_version_measures() -> None:
    assert set(submission.PROMPTS) == set(ATTRIBUTES)
    for attribute, digest in submission.PROMPTS.items():
        cases = protocol.held_out_cases(attribute)
        assert len(cases) == submission.COUNT
        assert submission.prompts_digest(cases) == digest
    assert embedded_card()["base_id"] == submission.BASE
    assert submission.judge_digest() == submission.JUDGE
    assert submission.STRENGTHS == protocol.STRENGTHS


def test_a_submission_is_read_back_as_it_was(sound, tmp_path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(sound.to_json(), "utf-8")
    assert read_submission(path) == sound
    table = json.loads(sound.to_json())
    signature = table.pop("signature")
    assert signature == sound.signature() == table_hash(table)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"base_id": "0" * 16}, "the base is another"),
        ({"judge": "photographs"}, "the judge is another"),
        ({"sampler": {**submission.SAMPLER, "steps": 24}}, "the sampler is another"),
        ({"sampler": {**submission.SAMPLER, "runtime": "local"}}, "the sampler is another"),
        ({"strengths": (0.0, 1.0)}, "the strengths are others"),
        ({"cases": ()}, "the prompts are others"),
        ({"attribute": "hat"}, "the prompts are others"),
        ({"attribute": "crown"}, "the prompts are others"),
        ({"numbers": {}}, "the figures are others"),
    ],
)
def test_what_was_measured_otherwise_is_not_submitted(result, change, what) -> None:
    with pytest.raises(MeasureError, match=f"not measured by protocol 1: .*{what}"):
        submission_of(replace(result, **change))


def rewritten(sound, **changes):
    """Return a submission's text with other entries and a true signature."""
    return replace(sound, **changes).to_json()


def test_a_changed_file_is_refused_by_name(sound, tmp_path) -> None:
    path = tmp_path / "better.json"
    value = sound.figures["sps"].value
    text = sound.to_json()
    assert text.count(f'"value":{value}') >= 1
    path.write_text(text.replace(f'"value":{value}', '"value":0.01'), "utf-8")
    with pytest.raises(MeasureError, match=r"better\.json is left out: it was changed after"):
        read_submission(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{}", "keys are not"),
        ("[]", "keys are not"),
        ("[" * 9999, "nests too deep"),
        ("x" * (1 << 19), "larger than"),
        ('{"format": "spf-lora submission", "protocol": 2}', "no submission of protocol 1"),
    ],
)
def test_what_is_no_submission_is_refused_by_name(tmp_path, text, what) -> None:
    path = tmp_path / "wild.json"
    path.write_text(text, "utf-8")
    with pytest.raises(MeasureError, match=rf"wild\.json is left out: .*{what}"):
        read_submission(path)


def with_figure(sound, **changes):
    figures = {**sound.figures, "P@1": replace(sound.figures["P@1"], **changes)}
    return {"figures": figures}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda s: with_figure(s, value=-1.0), "P@1 cannot be"),
        (lambda s: with_figure(s, value=1e300), "P@1 cannot be"),
        (lambda s: with_figure(s, n=41), "P@1 cannot be"),
        (lambda s: with_figure(s, low=None), "P@1 cannot be"),
        (lambda s: with_figure(s, value="0.1"), "P@1.value is of the wrong type"),
        (lambda s: {"figures": {**s.figures, "best": Figure(1.0, 1.0, 1.0, 40)}}, "figures are"),
        (lambda s: {"adapter_id": "x"}, "no content id"),
        (lambda s: {"adapter": 1}, "adapter is of the wrong type"),
        (lambda s: {"prompts": "0" * 64}, "the prompts are others"),
        (lambda s: {"checks": {"same picture": "yes"}}, "is of the wrong type"),
    ],
)
def test_a_true_signature_makes_no_other_protocol(sound, tmp_path, change, what) -> None:
    path = tmp_path / "signed.json"
    path.write_text(rewritten(sound, **change(sound)), "utf-8")
    with pytest.raises(MeasureError, match=what):
        read_submission(path)


@pytest.mark.parametrize(
    "words",
    [("--quick",), ("--steps", "24"), ("--seeds", "1"), ("--local",), ("--judge", "world")],
)
def test_what_nobody_could_compare_is_refused_before_anything_is_drawn(
    cli, tmp_path, monkeypatch, words
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, talk = cli("evaluate", "beard", "--submit", "out.json", *words)
    assert (code, said) == (1, "")
    assert "a submission is measured as the protocol says" in talk
    assert not list(tmp_path.iterdir())


def test_a_slider_is_told_before_anything_is_drawn(
    cli, tmp_path, monkeypatch, make_adapter
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {"attribute": {"control": "strength"}}
    card = Card("beard", "a beard", "", submission.BASE, recipe=recipe)
    entries = file_metadata(card, rank=4, alpha=2.0, title="slider")
    adapter = make_adapter(KEYS_AND_VALUES, metadata=entries)
    write_adapter(adapter, tmp_path / "slider.safetensors")
    code, _, talk = cli("evaluate", "slider.safetensors", "--submit", "out.json")
    assert (code, "a slider needs no words" in talk) == (1, True)


def test_a_submission_that_is_there_is_not_overwritten(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.json").write_text("mine")
    code, _, talk = cli("evaluate", "beard", "--submit", "out.json")
    assert (code, "out.json exists" in talk) == (1, True)
