"""Stage 2 as a user meets it: stopped and resumed, on a full disk, with nothing to teach."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from stopping import interrupting

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.hashes import content_id
from spf_lora.data import cache as caching
from spf_lora.draw import trajectories
from spf_lora.errors import OutputError
from spf_lora.training import distil, pairs, stages

pytestmark = pytest.mark.usefixtures("few_draws", "in_a_clone")
FEW = ("learn.steps=2", "distil.steps=2", "data.count=4", "data.batch_size=2")
SMALL = tuple(word for change in FEW for word in ("--set", change))
HAT, CHECKPOINT = Path("adapters/hat.safetensors"), Path("adapters/.hat.checkpoint.safetensors")


@pytest.fixture
def train(cli, tiny_folder, tmp_path, monkeypatch):
    """Trains a hat, with a cache that is this test's own."""
    monkeypatch.setenv("SPF_LORA_CACHE", str(tmp_path / "cache"))

    def run(*words, small=SMALL):
        code, said, talk = cli("train", "-a", "hat", "--base", tiny_folder, *small, *words)
        return code, said, " ".join(talk.split())

    return run


@pytest.fixture(scope="module")
def whole(few_draws, tiny_folder, tmp_path_factory):
    """The file of an undisturbed run, made once."""
    from typer.testing import CliRunner

    from spf_lora.cli.app import app

    path = tmp_path_factory.mktemp("once") / "hat.safetensors"
    words = ("train", "-a", "hat", "--base", str(tiny_folder), *SMALL, "--out", str(path))
    with pytest.MonkeyPatch.context() as patched:
        for one in (trajectories, pairs):
            patched.setattr(one, "CHUNK", 2)  # as `packed` has it: sums depend on it
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return path.read_bytes()


@pytest.fixture
def packed(monkeypatch):
    """Pairs are drawn two at a time; tells how many at each time."""
    real, seen = trajectories._packed, []

    def draw(base, adapter, pairs, how):
        seen.append(len(pairs))
        return real(base, adapter, pairs, how)

    for one in (trajectories, pairs):
        monkeypatch.setattr(one, "CHUNK", 2)
    monkeypatch.setattr(trajectories, "_packed", draw)
    return seen


@pytest.mark.parametrize(
    ("where", "name", "when", "step"),
    [
        (stages, "draw_batch", 1, 1),
        (trajectories, "_packed", 1, 2),
        (distil.Curriculum, "batch", 1, 3),
    ],
    ids=["learning", "drawing pairs", "distilling"],
)
def test_a_run_stopped_by_a_signal_resumes_to_the_same_file(
    train, whole, packed, monkeypatch, where, name, when, step
):
    with monkeypatch.context() as patched:
        patched.setattr(where, name, interrupting(getattr(where, name), when))
        code, said, talk = train()
    assert (code, said) == (128 + signal.SIGTERM, "")
    assert f"stopped after step {step} of 4; the same command with --resume goes on" in talk
    assert "draw pairs to learn from: done" not in talk or step == 3
    assert [path.name for path in Path("adapters").iterdir()] == [CHECKPOINT.name]
    code, _, talk = train("--resume")
    assert code == 0
    assert f"resuming after step {step}" in talk
    assert HAT.read_bytes() == whole
    assert packed == [2, 1], "no pair is drawn twice"


def test_another_run_with_other_settings_of_stage_2_draws_no_pair_again(train, packed):
    assert train("--out", "one.safetensors")[0] == 0
    assert packed == [2, 1]
    assert train("--out", "two.safetensors", "--set", "distil.base_prompts=0.5")[0] == 0
    assert packed == [2, 1]
    assert Path("one.safetensors").read_bytes() != Path("two.safetensors").read_bytes()


def test_a_disk_that_fills_while_pairs_are_written_is_told_and_resumed_from(
    train, whole, packed, monkeypatch
):
    write = caching.write_bytes

    def full(path, data, **more):
        if packed:
            raise OutputError(f"{path} could not be written: No space left", hint="free some")
        write(path, data, **more)

    with monkeypatch.context() as patched:
        patched.setattr(caching, "write_bytes", full)
        code, said, talk = train()
    assert (code, said) == (1, "")
    assert "error: the pictures to learn from cannot be kept: " in talk
    assert "No space left" in talk
    assert "hint: they take 1 MB: free as much, or name another folder in SPF_LORA_CACHE; " in talk
    assert "with --resume what is trained already is kept" in talk
    assert [path.name for path in Path("adapters").iterdir()] == [CHECKPOINT.name]
    assert train("--resume")[0] == 0
    assert HAT.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_told_before_the_first_step(train, monkeypatch):
    Path("file").write_text("x")
    monkeypatch.setenv("SPF_LORA_CACHE", "file")
    code, said, talk = train()
    assert (code, said) == (1, "")
    assert "the pictures to learn from cannot be kept: " in talk
    assert "learn ..." not in talk
    assert not list(Path().rglob("*.safetensors"))


def test_a_teacher_that_changes_nothing_stops_the_run_before_it_distils(train, packed, monkeypatch):
    monkeypatch.setattr(pairs, "_LEAST_CHANGE", 1.0)  # the words alone change a little
    code, said, talk = train("--set", "optimizer.learning_rate=1e-8")
    assert (code, said) == (1, "")
    assert "so there is nothing to distil" in talk
    assert packed == [2], "after the first chunk"
    assert "hint: either the attribute was not learned yet (raise learn.steps" in talk
    assert "or the base draws it in every picture already" in talk
    assert "distil ..." not in talk


def test_a_teacher_that_changes_the_whole_picture_stops_the_run_unless_it_is_meant(
    train, monkeypatch
):
    monkeypatch.setattr(pairs, "_COVERED", 0.0)
    code, said, talk = train()
    assert (code, said) == (1, "")
    assert "what was learned changes the whole picture" in talk
    assert 'set attribute.scope = "global"' in talk
    assert "distil ..." not in talk
    with monkeypatch.context() as patched:
        patched.setattr(trajectories, "draw_locally", None)  # such a picture has no place
        assert train("--set", "attribute.scope=global", "--out", "old.safetensors")[0] == 0


def test_without_stage_2_the_file_is_what_was_learned(train, packed):
    plain = ("--set", "data.vocabulary=none")
    code, _, talk = train(*plain, "--set", "distil.steps=0", "--out", "learned.safetensors")
    assert code == 0
    assert "4 pictures, 2 steps to learn" in talk
    assert "distil" not in talk
    rival = (*plain, "--set", "training.method=plain", "--out", "plain.safetensors")
    code, _, talk = train(*rival)
    assert (code, "2 steps to plain" in talk) == (0, True)
    assert packed == []
    learned, same = (content_id(read_adapter(f"{n}.safetensors")) for n in ("learned", "plain"))
    assert learned == same


def test_the_papers_objective_needs_a_clip_that_is_named(train):
    code, said, talk = train("--set", "training.method=spf-portrait")
    assert (code, said) == (1, "")
    assert "no CLIP is known to be this base's own" in talk
    assert "--set data.clip=" in talk


def test_a_dry_run_tells_what_the_pairs_take(cli, tiny_folder):
    words = ("train", "-a", "hat", "--base", tiny_folder, *SMALL[4:], "--dry-run")
    pairs = ("--set", "distil.pairs=100", "--set", "distil.sampler_steps=20")
    code, said, _ = cli(*words, *pairs, "--set", "distil.steps=7")
    assert code == 0
    assert "7 to distil from 100 pairs of pictures (5 MB on disk)" in said
    assert "others are drawn again: at most 174 pairs" in said
    assert "and 9 MB more" in said
    code, said, _ = cli(*words, "--set", "training.method=plain")
    assert code == 0
    assert "distil" not in said


def test_a_dry_run_refuses_what_is_no_base_and_takes_a_hub_id_as_it_is(cli, tmp_path):
    words = ("train", "-a", "hat", *SMALL[4:], "--dry-run", "--base")
    for no_base, why in (("nowhere", "does not exist"), (tmp_path, "has no model_index.json")):
        code, said, talk = cli(*words, no_base)
        assert (code, said) == (1, "")
        assert why in " ".join(talk.split())
    code, said, _ = cli(*words, "owner/name")
    assert code == 0
    assert "base owner/name" in said


@pytest.mark.parametrize(
    ("part", "change", "what"),
    [
        ("text_encoder", {"hidden_size": None}, "'hidden_size' is missing"),
        ("text_encoder", {"num_hidden_layers": "three"}, "'three'"),
        ("unet", {"cross_attention_dim": None}, "'cross_attention_dim' is missing"),
        ("unet", {"block_out_channels": [8]}, "block_out_channels"),
    ],
)
def test_a_dry_run_refuses_a_base_whose_configs_say_too_little(
    cli, tiny_folder, tmp_path, part, change, what
):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    file = folder / part / "config.json"
    kept = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
    words = ("train", "-a", "hat", "--base", folder, *SMALL[4:], "--dry-run")
    code, _, talk = cli(*words)
    talk = " ".join(talk.split())
    assert code == 1
    assert "cannot be made from its configs" in talk
    assert what in talk
    assert "fetch the folder again, whole" in talk


@pytest.mark.parametrize(
    ("words", "steps"), [((), 300), (("--set", "distil.steps=90"), 90), (("--steps", "110"), 60)]
)
def test_a_slider_is_distilled_for_a_third_of_the_steps(train, words, steps) -> None:
    code, said, talk = train("--slider", "--dry-run", *words, small=())
    assert code == 0, talk
    assert f"{steps} to distil from 48 pairs" in said


def test_a_slider_says_that_its_strength_brings_it(train) -> None:
    from spf_lora.adapters.format.card import attribute_of, from_metadata

    code, _, talk = train("--slider")
    assert code == 0, talk
    metadata = read_adapter(HAT).metadata
    card = from_metadata(metadata)
    assert (card.target_text, card.trigger) == ("a hat", "")
    assert attribute_of(card).control == "strength"
    assert metadata["modelspec.usage_hint"].startswith("a slider: the strength is how much")
    assert "spf-lora generate 'a portrait of a person" in talk
    assert "a hat'" not in talk.partition("generate ")[2].partition("--adapter")[0]
