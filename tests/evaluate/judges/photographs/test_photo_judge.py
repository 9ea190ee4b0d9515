import numpy
import pytest
import torch
from made_evaluations import evaluate_adapter
from PIL import Image
from test_faces import face_labels
from tiny_scorers import PART_NAMES

from spf_lora.base.load import load_base
from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.judge import flips
from spf_lora.evaluate.judges.photographs.judge import CHOICES, photograph_judge
from spf_lora.evaluate.judges.photographs.parsing import Parser
from spf_lora.evaluate.protocol import held_out_cases
from spf_lora.evaluate.report.page import make_page
from spf_lora.evaluate.result import CHANNELS

SIDE = 96


@pytest.fixture
def judge(scorer_folders):
    return photograph_judge("beard", "a beard", text_encoder=None, sources=scorer_folders)


@pytest.fixture
def pictures():
    torch.manual_seed(2)
    before, after = torch.rand(2, 2, 3, SIDE, SIDE) * 2 - 1
    return before, after, torch.ones(2, 1, SIDE, SIDE)


def test_nothing_moved_is_no_distance_and_no_flip(judge, pictures):
    before, after, outside = pictures
    same = judge.distances(before, before, outside, asked=True)
    moved = judge.distances(after, before, outside, asked=True)
    assert list(same) == ["region", "identity", "attributes", "layout", "colour"]
    for channel, distance in same.items():
        assert distance.tolist() == pytest.approx([0, 0], abs=1e-5), channel
        assert (moved[channel] > 1e-4).all(), channel
    assert flips(judge, before, before, asked=True).tolist() == [0, 0]


def test_what_happens_where_the_attribute_may_act_is_not_counted(judge, pictures, monkeypatch):
    before = pictures[0]
    after = before.clone()
    after[:, :, 55:75, 10:60] *= -1
    monkeypatch.setattr(  # a face whose mouth and chin are there
        Parser, "labels", lambda _, p: face_labels(SIDE, 5, 10).expand(len(p), -1, -1)
    )
    everywhere = torch.ones(2, 1, SIDE, SIDE)
    asked = judge.distances(after, before, everywhere, asked=True)
    unasked = judge.distances(after, before, everywhere, asked=False)
    for channel in ("identity", "colour"):
        assert asked[channel].max() < 1e-5
        assert unasked[channel].min() > 1e-4
    assert (asked["region"] < unasked["region"]).all()
    assert unasked["layout"].tolist() == [0, 0]


def test_the_attribute_may_move_what_goes_with_it_only_when_asked_for(judge, pictures):
    before, after, _ = pictures
    bound = sum("beard" in choice.free for choice in CHOICES)
    assert bound == 1
    assert judge._choices(before, True).shape == (2, len(CHOICES) - bound)
    assert judge._choices(before, False).shape == (2, len(CHOICES))
    shares = flips(judge, after, before, asked=True) * (len(CHOICES) - bound)
    assert torch.equal(shares, shares.round())


def test_belief_is_a_probability_that_depends_on_the_words(scorer_folders, pictures):
    before = pictures[0]
    beliefs = []
    for words in ("a beard", "glasses"):
        judge = photograph_judge("beard", words, text_encoder=None, sources=scorer_folders)
        beliefs.append(judge.belief(before))
        assert ((beliefs[-1] > 0) & (beliefs[-1] < 1)).all()
    assert not torch.allclose(*beliefs)


def test_a_mask_file_stands_for_the_parts_of_the_face(scorer_folders, pictures, tmp_path):
    mask = numpy.zeros((32, 32), dtype=numpy.uint8)
    mask[16:] = 255
    Image.fromarray(mask).save(tmp_path / "all.png")
    judge = photograph_judge(
        "freckles", "freckles", text_encoder=None, sources=scorer_folders, mask=tmp_path
    )
    before, after, _ = pictures
    for truth in judge.truths(before):
        assert truth.right is None
        assert numpy.asarray(truth.region)[48:].min() == 255
        assert numpy.asarray(truth.region)[:48].max() == 0
    after = torch.cat([before[:, :, :48], after[:, :, 48:]], dim=2)
    outside = torch.ones(2, 1, SIDE, SIDE)
    outside[:, :, 48:] = 0
    found = judge.distances(after, before, outside, asked=True)
    assert found["colour"].max() < 1e-5


def test_a_judge_needs_to_know_where_the_attribute_may_act(scorer_folders, tmp_path):
    with pytest.raises(ScorerError, match="no parts of a face are known for 'freckles'"):
        photograph_judge("freckles", "freckles", text_encoder=None, sources=scorer_folders)
    with pytest.raises(ScorerError, match=r"holds no mask all\.png"):
        photograph_judge(
            "beard", "a beard", text_encoder=None, sources=scorer_folders, mask=tmp_path
        )


def test_without_a_mask_the_region_is_read_from_each_picture(judge, pictures, monkeypatch):
    faces = torch.stack([face_labels(SIDE, 5, 10), face_labels(SIDE, 30, 10)])
    monkeypatch.setattr(Parser, "labels", lambda *_: faces)
    first, second = (numpy.asarray(truth.region)[70, :, 0] for truth in judge.truths(pictures[0]))
    assert first[10] == second[80] == 255
    assert first[80] == second[10] == 0


def test_a_region_that_covers_everything_leaves_no_gap_in_the_numbers(judge, pictures, monkeypatch):
    skin = PART_NAMES.index("skin")
    monkeypatch.setattr(Parser, "labels", lambda _, p: torch.full((len(p), SIDE, SIDE), skin))
    before, after, outside = pictures
    found = judge.distances(after, before, outside, asked=True)
    assert all(distance.isfinite().all() for distance in found.values())


@pytest.mark.slow
def test_a_whole_evaluation_can_be_judged_by_it(scorer_folders, tmp_path):
    base = load_base("embedded", device=torch.device("cpu"))
    judge = photograph_judge(
        "beard", "a beard", text_encoder=base.text_encoder, sources=scorer_folders
    )
    cases = held_out_cases("beard", prompts=2, seeds=1)
    result = evaluate_adapter(
        base,
        None,
        attribute="beard",
        cases=cases,
        gallery=tmp_path,
        judge=judge,
        steps=3,
        bootstraps=20,
    )
    assert result.judge == "photographs"
    for channel in CHANNELS:
        assert result.figure(channel, 0).value is not None
    assert result.figure("P", 0).value > 0
    assert "photographs" in make_page([result])
