"""Training on pictures before and after: the same file again, as a slider, and refusals."""

import json
import random
import signal

import pytest
from stopping import interrupting

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.card import from_metadata
from spf_lora.data.worlds.portraits import render, unbiased
from spf_lora.training import distil

pytestmark = pytest.mark.usefixtures("few_draws", "in_a_clone")
SMALL = ("--steps", "3", "--set", "data.batch_size=4", "--set", "distil.pairs=8")


@pytest.fixture
def pairs(tmp_path):
    rng = random.Random(1)
    folder = tmp_path / "pairs"
    folder.mkdir()
    for i in range(3):
        face = unbiased(rng)
        render(face).save(folder / f"{i}_before.png")
        render(face, ("hat",)).save(folder / f"{i}_after.png")
    return folder


@pytest.fixture
def train(cli, tiny_folder, pairs):
    def run(*words, to=pairs):
        code, said, talk = cli(
            "train", "-a", "hat", "--base", tiny_folder, "--pairs", to, *SMALL, *words
        )
        return code, said, " ".join(talk.split())

    return run


def test_pairs_teach_alone_and_the_same_ones_give_the_same_file(train, tmp_path):
    code, said, talk = train("--out", "one.safetensors")
    assert code == 0, talk
    assert said.strip() == "one.safetensors"
    assert "3 pictures, 3 steps to distil" in talk
    assert "steps to learn" not in talk
    assert train("--out", "two.safetensors")[0] == 0
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    card = from_metadata(read_adapter(tmp_path / "one.safetensors").metadata)
    assert (card.recipe["learn"]["steps"], card.trigger) == (0, "a hat")


def test_a_stopped_run_resumes_to_the_same_file(train, tmp_path, monkeypatch):
    assert train("--out", "whole.safetensors")[0] == 0
    with monkeypatch.context() as patched:
        batch = interrupting(distil.Curriculum.batch, 2)
        patched.setattr(distil.Curriculum, "batch", lambda *of: batch(*of))
        code, _, talk = train("--out", "again.safetensors")
    assert (code, "stopped after step 2 of 3" in talk) == (128 + signal.SIGTERM, True)
    code, _, talk = train("--out", "again.safetensors", "--resume")
    assert (code, "resuming after step 2" in talk) == (0, True)
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("whole", "again")]
    assert files[0] == files[1]


def test_a_slider_from_pairs_needs_no_words(train, tmp_path):
    assert train("--slider", "--out", "x.safetensors")[0] == 0
    card = from_metadata(read_adapter(tmp_path / "x.safetensors").metadata)
    assert card.trigger == ""


def test_a_dry_run_has_nothing_to_learn_first(train):
    code, said, _ = train("--dry-run", "--set", "data.batch_size=2")
    assert code == 0
    assert "3 pictures" in said
    assert "0 steps to learn" in said


def test_what_cannot_be_taught_by_pairs_is_refused(train, cli, pairs, tiny_folder):
    code, _, talk = train("--data", pairs)
    assert (code, "--pairs and --data are two ways to teach" in talk) == (1, True)
    code, _, talk = train("--set", "training.method=plain")
    assert (code, "stage 2 of the method ours" in talk) == (1, True)
    few = ("--set", "learn.steps=0", "--set", "data.count=2", "--set", "data.vocabulary=none")
    code, _, talk = cli("train", "-a", "hat", "--base", tiny_folder, *few)
    assert (code, "leaves nothing to learn from" in talk) == (1, True)
    (pairs / "1_after.png").unlink()
    code, _, talk = train()
    assert (code, "1_before.png: has no picture of 1 after" in talk) == (1, True)


def test_data_check_looks_at_pairs(cli, pairs):
    code, said, _ = cli("data", "check", pairs, "-a", "hat", "--pairs", "--json")
    assert (code, json.loads(said)["usable"]) == (0, 3)
    render(unbiased(random.Random(9)), ("hat",)).save(pairs / "2_after.png")
    code, said, talk = cli("data", "check", pairs, "-a", "hat", "--pairs")
    assert (code, "2_after.png: differs from the picture before" in said) == (3, True)
    assert "so training would stop" in talk
