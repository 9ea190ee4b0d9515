import dataclasses

import pytest
import torch
from made_evaluations import evaluate_adapter, random_adapter

from spf_lora.adapters.module import Adapter
from spf_lora.base.load import load_base
from spf_lora.errors import AdapterFileError, DataError, MeasureError, PromptError
from spf_lora.evaluate.gallery import read_picture
from spf_lora.evaluate.protocol import Case, held_out_cases
from spf_lora.evaluate.result import CHANNELS, from_json

pytestmark = pytest.mark.usefixtures("one_dnn")  # a figure is one, to its last digit
NEEDED = {"I0", "Ic", "I1", "Ib", "Iz", "Iy", "region", "plain", "truth"}
HOW = {"attribute": "beard", "steps": 2, "bootstraps": 50}


def test_a_run_has_a_draw_for_every_prompt_seed_and_strength(measured) -> None:
    assert len(measured.draws) == 4 * 2 * 3
    assert {(d.case, d.seed, d.strength) for d in measured.draws} == {
        (i, seed, a)
        for i, c in enumerate(measured.cases)
        for seed in c.seeds
        for a in (0.0, 0.5, 1.0)
    }
    assert measured.strengths == (0.0, 0.5, 1.0)
    assert measured.main == 1.0


def test_every_picture_of_a_draw_is_in_the_cache(measured, gallery) -> None:
    for draw in measured.draws:
        assert set(draw.pictures) == NEEDED
        assert {read_picture(gallery, key).size for key in draw.pictures.values()} == {(32, 32)}


def test_strength_0_is_the_control_and_leaks_nothing(measured) -> None:
    for draw in measured.at(0.0):
        assert draw.pictures["I1"] == draw.pictures["Ic"]
        assert draw.pictures["Ib"] == draw.pictures["I0"]
    assert measured.figure("BL", 0).value == 0
    assert measured.figure("excess", 0).value == 0


def test_the_figures_are_all_there_with_their_n(measured) -> None:
    for name in (
        "rho",
        "P",
        "BL",
        "H",
        "excess",
        "shown",
        "unasked",
        "flips",
        "truth:pixels",
        "truth:agreement",
        *CHANNELS,
    ):
        for strength in (0.0, 0.5, 1.0):
            assert measured.figure(name, strength).n == 4
    assert {"sps", "auc", "truth:pixels:I0"} <= set(measured.figures())
    for name, figure in measured.figures().items():
        if figure.low is not None:
            assert figure.low <= figure.high, name


def test_a_random_adapter_pollutes_more_the_stronger_it_is(measured) -> None:
    assert measured.figure("BL", 1).value > measured.figure("BL", 0.5).value > 0
    assert measured.figure("P", 1).value > measured.figure("P", 0).value


def test_the_mean_of_the_draws_pollution_is_the_runs(measured) -> None:
    mean = sum(d.numbers["P"] for d in measured.at(1.0)) / 8
    # the draws share the run's ceilings, so that their mean is the figure, up to rounding
    assert mean == pytest.approx(measured.figure("P", 1).value, rel=1e-3)


def test_a_second_evaluation_draws_nothing_and_finds_the_same(measured, tiny, gallery) -> None:
    again = evaluate_adapter(
        tiny,
        random_adapter(tiny.unet),
        attribute="beard",
        name="noise",
        gallery=gallery,
        cases=held_out_cases("beard", prompts=4, seeds=2),
        strengths=(1, 0.5),
        steps=2,
        bootstraps=200,
    )
    assert again.pictures_drawn == 0
    assert measured.pictures_drawn == 4 * (2 + 1 + 2 + 2 * 2 * 2)
    assert (
        dataclasses.replace(again, seconds=measured.seconds, pictures_drawn=measured.pictures_drawn)
        == measured
    )


def test_a_report_goes_to_json_and_back(measured, gallery) -> None:
    assert from_json(measured.to_json(), gallery=gallery) == measured


def test_the_base_model_alone_is_the_control(measured, tiny, gallery) -> None:
    alone = evaluate_adapter(
        tiny, None, cases=held_out_cases("beard", prompts=4, seeds=2), gallery=gallery, **HOW
    )
    assert alone.strengths == (0.0,)
    assert alone.pictures_drawn == 0
    assert alone.name == "prompt only"
    for name in ("rho", "P", *CHANNELS):
        assert alone.figure(name, 0).value == measured.figure(name, 0).value
    assert "sps" not in alone.figures()


def test_another_base_or_another_adapter_shares_no_picture(tiny, tmp_path, tiny_folder) -> None:
    from tiny_base import make_tiny_base

    cases = held_out_cases("beard", prompts=1, seeds=1)
    evaluate_adapter(tiny, None, cases=cases, gallery=tmp_path, **HOW)
    other = load_base(str(make_tiny_base(tmp_path / "b", seed=5)), device=torch.device("cpu"))
    assert evaluate_adapter(other, None, cases=cases, gallery=tmp_path, **HOW).pictures_drawn == 4
    one, two = (random_adapter(tiny.unet, seed=seed) for seed in (1, 2))
    drawn = [
        evaluate_adapter(
            tiny, a, cases=cases, gallery=tmp_path, strengths=(1,), **HOW
        ).pictures_drawn
        for a in (one, two, one)
    ]
    assert drawn == [2, 2, 0]


def test_a_run_that_was_stopped_goes_on_to_the_same_report(tiny, tmp_path) -> None:
    def go(folder, stop_at=None):
        def progress(done, total):
            if done == stop_at:
                raise KeyboardInterrupt

        return evaluate_adapter(
            tiny,
            random_adapter(tiny.unet),
            cases=held_out_cases("beard", prompts=2, seeds=1),
            strengths=(0, 1),
            gallery=folder,
            batch_size=4,
            on_progress=progress,
            **HOW,
        )

    weights = {n: p.clone() for n, p in tiny.unet.named_parameters()}
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stopped", stop_at=8)
    assert all(torch.equal(p, weights[n]) for n, p in tiny.unet.named_parameters())
    rest, whole = go(tmp_path / "stopped"), go(tmp_path / "whole")
    assert whole.pictures_drawn == 12
    assert rest.pictures_drawn == 4
    assert (rest.draws, rest.numbers) == (whole.draws, whole.numbers)


def test_an_adapter_of_other_shapes_is_refused_before_anything_is_drawn(tiny, tmp_path) -> None:
    adapter = random_adapter(tiny.unet)
    name, module = next(iter(adapter.modules.items()))
    wide = dataclasses.replace(module, down=module.down.repeat(2, axis=1))
    with pytest.raises(AdapterFileError, match=r"the base's weight is"):
        evaluate_adapter(
            tiny,
            Adapter({name: wide}, {}),
            cases=held_out_cases("beard", prompts=1, seeds=1),
            gallery=tmp_path,
            **HOW,
        )
    assert not list(tmp_path.iterdir())


def test_few_prompts_are_remarked_on(measured) -> None:
    assert any("4 prompts" in remark for remark in measured.remarks)


@pytest.mark.parametrize(
    ("how", "error", "what"),
    [
        ({"cases": ()}, MeasureError, "no pictures to compare"),
        ({"cases": (Case("a, b", "a", ()),)}, MeasureError, "no pictures to compare"),
        ({"strengths": (0, -1)}, MeasureError, "0, -1: each must be from 0 to 4"),
        ({"strengths": (float("nan"),)}, MeasureError, "nan: each must be"),
        ({"attribute": "halo"}, MeasureError, "cannot judge 'halo'"),
        ({"cases": (Case("hair " * 90, "hair", (1,)),)}, PromptError, "longer than 77"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_drawn(
    tiny, tmp_path, how, error, what
) -> None:
    words = {"cases": (Case("a, b", "a", (1,)),), "gallery": tmp_path} | HOW | how
    with pytest.raises(error, match=what):
        evaluate_adapter(tiny, random_adapter(tiny.unet), **words)
    assert not list(tmp_path.iterdir())


def test_held_out_people_of_an_unknown_attribute_are_refused() -> None:
    with pytest.raises(DataError, match="no attribute 'halo'"):
        held_out_cases("halo", prompts=1, seeds=1)
