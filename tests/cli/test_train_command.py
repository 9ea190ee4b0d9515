"""`spf-lora train` and `spf-lora generate` as a user meets them, on a tiny random base."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from root import ROOT

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.card import from_metadata
from spf_lora.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("few_draws")
HAT = Path("adapters/hat.safetensors")
SMALL = ("--set", "data.count=4", "--set", "data.batch_size=2")


@pytest.fixture(autouse=True)
def _in_a_clone(tmp_path, monkeypatch):
    (tmp_path / "adapters").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def hat(few_draws, tiny_folder, tmp_path_factory):
    """What `train` makes without further words, made once."""
    from typer.testing import CliRunner

    from spf_lora.cli.app import app

    path = tmp_path_factory.mktemp("once") / "hat.safetensors"
    words = ("train", "-a", "hat", "--base", str(tiny_folder), "--steps", "4", *SMALL)
    done = CliRunner().invoke(app, [*words, "--out", str(path)])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def train(cli, tiny_folder):
    def run(*words, attribute="hat"):
        return cli("train", "-a", attribute, "--base", tiny_folder, "--steps", "4", *SMALL, *words)

    return run


def left_behind():
    return sorted(str(p) for p in Path().rglob("*") if p.is_file())


def test_training_writes_a_kohya_file_with_a_card_and_a_picture(train, tiny_folder):
    code, said, talk = train()
    assert (code, said.strip()) == (0, "adapters/hat.safetensors")
    assert "4 pictures, 2 steps to learn, 2 steps to distil" in talk
    for phase in ("load the base", "learn", "draw pairs to learn from", "distil"):
        assert f"{phase} ..." in talk
        assert f"{phase}: done in" in talk
    adapter = read_adapter("adapters/hat.safetensors")
    assert len(adapter.modules) == 16 * 8
    card = from_metadata(adapter.metadata)
    assert card.attribute == "hat"
    assert card.target_text == "a hat"
    assert card.seed == 0
    assert str(tiny_folder) not in str(adapter.metadata), "no local path in any file"
    picture = Image.open("adapters/hat.png")
    assert picture.width >= 800
    assert left_behind() == ["adapters/hat.png", "adapters/hat.safetensors"]


def test_the_same_recipe_and_seed_give_the_same_file(train, hat):
    assert train("--out", "adapters/same.safetensors")[0] == 0
    assert train("--out", "adapters/other.safetensors", "--seed", "1")[0] == 0
    same, other = (Path(f"adapters/{n}.safetensors").read_bytes() for n in ("same", "other"))
    assert hat.read_bytes() == same != other


def test_an_exported_folder_gives_the_same_file_as_drawing(cli, train, hat):
    assert cli("portraits", "export", "d", "--attribute", "hat", "--count", "4")[0] == 0
    assert train("--out", "adapters/hat.safetensors", "--data", "d")[0] == 0
    assert Path("adapters/hat.safetensors").read_bytes() == hat.read_bytes()


def test_a_replacing_attribute_trains_too(train):
    assert train(attribute="blonde-hair")[0] == 0


def test_tensorboard_logs_hold_every_term(train):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train("--log-dir", "logs")[0] == 0
    events = EventAccumulator("logs")
    events.Reload()
    for name, steps in (("total", 4), ("denoise", 2), ("local", 2), ("hold", 2)):
        assert len(events.Scalars(f"loss/{name}")) == steps


def at_step(number, do, patched):
    """Do something in the midst of a training's step."""
    check = Trainer._check_norm

    def disturbed(self, norm, index):
        if index == number - 1:
            do()
        check(self, norm, index)

    patched.setattr(Trainer, "_check_norm", disturbed)


def test_a_run_stopped_by_a_signal_resumes_to_the_same_file(train, hat, monkeypatch):
    with monkeypatch.context() as patched:  # tests/test_signals.py: the others do the same
        at_step(3, lambda: signal.raise_signal(signal.SIGTERM), patched)
        code, _, talk = train()
    assert code == 128 + signal.SIGTERM
    assert "stopped after step 3" in talk, "the step it was in is finished"
    assert left_behind() == ["adapters/.hat.checkpoint.safetensors"]
    code, _, talk = train("--resume")
    assert code == 0
    assert "resuming after step 3" in talk
    assert Path("adapters/hat.safetensors").read_bytes() == hat.read_bytes()


def test_two_who_write_the_same_file_lose_nothing(train, hat, monkeypatch):
    told, other = [], b"made by a command that knows of no training"

    def disturb():
        begun = time.monotonic()
        second = subprocess.run(
            [sys.executable, "-m", "spf_lora", "train", "-a", "hat", "--resume"],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        told.append((second.returncode, " ".join(second.stderr.split()), time.monotonic() - begun))
        HAT.write_bytes(other)

    with monkeypatch.context() as patched:
        at_step(3, disturb, patched)
        code, _, talk = train()
    ((second, said, seconds),) = told
    assert second == 1
    assert f"{HAT} is being written by process {os.getpid()} on this machine, since" in said
    assert seconds < 10, "it is refused before anything is loaded"
    assert code == 1
    assert f"{HAT} exists and would be overwritten" in " ".join(talk.split())
    assert "with --resume what is trained already is kept" in " ".join(talk.split())
    assert HAT.read_bytes() == other
    code, _, talk = train("--resume", "--force")
    assert (code, "resuming after step 4" in talk) == (0, True)
    assert HAT.read_bytes() == hat.read_bytes()
    assert left_behind() == ["adapters/hat.png", "adapters/hat.safetensors"]


def test_a_full_disk_tells_of_resume(train, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        at_step(3, lambda: patched.setattr(os, "fsync", full), patched)
        code, _, talk = train()
    assert code == 1
    assert "free some disk space, then run the same command again; with --resume" in " ".join(
        talk.split()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-a", "beerd"), "no recipe for the attribute 'beerd'; did you mean beard"),
        ((), "nothing says what to train"),
        (("--recipe", "no.toml"), r"recipe no.toml does not exist"),
        (("--recipe", "."), "cannot be read"),
        (
            ("-a", "hat", "--set", "distil.pears=9"),
            "distil.pears is not a known key; did you mean p",
        ),
        (("-a", "hat", "--set", "align.steps=9"), r"align is not a known section: stage 2 is \[di"),
        (("-a", "hat", "--set", "adapter.rank=big"), "adapter.rank"),
        (("-a", "hat", "--set", "adapter.rank=0"), "adapter.rank is 0, but must be at least 1"),
        (("-a", "hat", "--set", "distil.guidance=0"), "distil.guidance is 0.0, but must be"),
        (("-a", "hat", "--set", "distil.guidance=nan"), "distil.guidance must be a finite number"),
        (("-a", "hat", "--set", "rank"), "not of the form key=value"),
        (("-a", "hat", "--steps", "0"), "--steps 0 leaves nothing to train"),
        (("-a", "hat", "--steps", "-3"), "--steps -3 leaves nothing to train"),
        (("-a", "hat", "--seed", "-1"), "training.seed is -1, but must be"),
        (("-a", "hat", "--out", "nowhere/hat.safetensors"), "nowhere does not exist"),
        (("-a", "hat", "--out", "hat.ckpt"), "is no .safetensors file"),
        (("-a", "hat", "--out", f"{'h' * 243}.safetensors"), "is longer than 241 bytes"),
        (("-a", "hat", "--out", f"{'h' * 300}.safetensors"), "File name too long"),
        (("-a", "hat", "--log-dir", "hat.txt"), "hat.txt is a file, not a folder"),
        (("-a", "hat", "--log-dir", "hat.txt/logs"), "hat.txt cannot be written"),
        (("-a", "hat", "--base", "h" * 300), "File name too long"),
        (("-a", "hat", "--set", "attribute.target_text=a \udcff"), "is no text in UTF-8"),
        (("-a", "hat", "--base", "nowhere"), "the base nowhere does not exist"),
        (("-a", "hat", "--data", "nowhere"), "nowhere"),
    ],
)
def test_a_wrong_setting_is_one_sentence_a_hint_and_nothing_written(cli, words, said):
    import re

    Path("hat.txt").touch()
    before = left_behind()
    code, data, talk = cli("train", *words)
    assert code == 1
    assert data == ""
    assert re.search(said, " ".join(talk.split())), talk
    assert "hint: " in talk
    assert left_behind() == before


def test_an_existing_output_needs_force(train):
    Path("adapters/hat.safetensors").write_bytes(b"mine")
    code, _, talk = train()
    assert code == 1
    assert "hat.safetensors exists" in talk
    assert "--force" in talk
    assert Path("adapters/hat.safetensors").read_bytes() == b"mine"
    assert train("--force")[0] == 0
    assert len(read_adapter("adapters/hat.safetensors").modules) == 128


def test_an_existing_picture_needs_force_too(train):
    Path("adapters/hat.png").write_bytes(b"mine")
    assert train()[0] == 1
    assert Path("adapters/hat.png").read_bytes() == b"mine"


def test_a_folder_where_the_checkpoint_goes_is_refused_before_training(train):
    Path("adapters/.hat.checkpoint.safetensors").mkdir()
    code, _, talk = train()
    assert code == 1
    assert ".hat.checkpoint.safetensors is a folder" in talk
    assert "learn" not in talk


def test_a_read_only_folder_is_refused(train, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    code, _, talk = train()
    assert code == 1
    assert "read-only" in talk
    assert left_behind() == []


def test_a_recipe_for_something_else_is_refused(cli):
    from spf_lora.recipe.files import find_recipe

    code, _, talk = cli("train", "-a", "beard", "--recipe", find_recipe("hat"))
    assert code == 1
    assert "is a recipe for hat, not for beard" in " ".join(talk.split())


def test_faults_of_a_folder_are_listed_together_and_nothing_is_trained(cli, train):
    assert cli("portraits", "export", "d", "--attribute", "hat", "--count", "4")[0] == 0
    names = sorted(p.stem for p in Path("d").glob("*.png"))
    Path(f"d/{names[0]}.txt").write_text("a portrait of a person")
    Path(f"d/{names[1]}.txt").unlink()
    Path(f"d/{names[2]}.png").write_bytes(b"no picture")
    code, _, talk = train("--data", "d")
    assert code == 1
    assert all(name in talk for name in names[:3])
    assert not any(p.startswith("adapters/") for p in left_behind())


def test_a_prompt_whose_end_is_not_read_stops_the_training_or_is_left_out(cli, train):
    assert cli("portraits", "export", "d", "--attribute", "hat", "--count", "4")[0] == 0
    first = sorted(Path("d").glob("*.txt"))[0]
    first.write_text("a hat, " + ", ".join(["pale skin"] * 25) + ", angry brows")
    code, _, talk = train("--data", "d")
    assert code == 1
    assert f"{first.stem}.png: its prompt is over 77 tokens" in " ".join(talk.split())
    assert "a hat'" in talk
    code, _, talk = train("--data", "d", "--skip-faulty")
    assert code == 0
    assert f"left out: {first.stem}.png" in talk
    assert "3 pictures" in talk


def test_a_loss_that_explodes_stops_with_advice_and_keeps_the_checkpoint(train):
    code, _, talk = train(
        "--set", "optimizer.learning_rate=1", "--set", "optimizer.name=adamw",
        "--set", "training.max_grad_norm=1e6", "--set", "adapter.alpha=1024",
        "--set", "training.checkpoint_every_steps=1", "--steps", "60",
    )  # fmt: skip
    assert code == 1
    assert "became" in talk
    assert "learning_rate" in talk
    assert left_behind() == ["adapters/.hat.checkpoint.safetensors"]


@pytest.fixture
def trained(hat):
    return Path(shutil.copy(hat, "adapters/hat.safetensors"))


def test_generate_draws_a_grid_with_adapters_at_any_strength(cli, tiny_folder, trained):
    words = ("generate", "a person, a hat", "--base", tiny_folder, "--count", "3", "--steps", "2")
    assert cli(*words, "--out", "base.png")[0] == 0
    assert cli(*words, "--out", "zero.png", "--adapter", "hat:0")[0] == 0
    code, said, _ = cli(*words, "--out", "one.png", "--adapter", "hat:2", "--adapter", trained)
    assert (code, said.strip()) == (0, "one.png")
    pictures = [Image.open(f"{name}.png") for name in ("base", "zero", "one")]
    assert pictures[0].size == (3 * 34 + 2, 36)
    assert pictures[0].tobytes() == pictures[1].tobytes(), "strength 0 is the base, bit for bit"
    assert pictures[0].tobytes() != pictures[2].tobytes()


def test_generate_exact_leaves_a_prompt_that_does_not_ask_alone(cli, tiny_folder, trained):
    words = ("--base", tiny_folder, "--count", "2", "--steps", "2", "--out")
    exact = ("--adapter", "hat:2", "--exact")
    assert cli("generate", "a person", *words, "base.png")[0] == 0
    assert cli("generate", "a person", *words, "still.png", *exact)[0] == 0
    assert cli("generate", "a person, a hat", *words, "asked.png")[0] == 0
    assert cli("generate", "a person, a hat", *words, "moved.png", *exact)[0] == 0
    base, still, asked, moved = (
        Image.open(f"{name}.png").tobytes() for name in ("base", "still", "asked", "moved")
    )
    assert base == still
    assert asked != moved


@pytest.mark.parametrize("exact", [(), ("--exact",)])
def test_generate_lets_an_adapter_begin_late(cli, tiny_folder, trained, exact):
    words = ("generate", "a person, a hat", "--base", tiny_folder, "--count", "1", "--steps", "2",
             "--adapter", "hat:2", *exact, "--out")  # fmt: skip
    drawn = []
    for start in ("0", "0.4", "0.6"):  # two steps: at 501 and at 1
        assert cli(*words, f"{start}.png", "--start-percent", start)[0] == 0
        drawn.append(Image.open(f"{start}.png").tobytes())
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_words_without_a_card_are_there_from_the_first_step(cli, tiny_folder, trained):
    from spf_lora.adapters.format.adapter_file import write_adapter

    bare = read_adapter(trained)
    bare.metadata.clear()
    write_adapter(bare, Path("bare.safetensors"))
    words = ("--base", tiny_folder, "--count", "1", "--steps", "2", "--start-percent", "0.6")
    found, told = {}, {}
    for name in ("hat", "bare.safetensors"):
        for prompt in ("a person, a hat", "a person"):
            code, _, talk = cli(
                "generate", prompt, *words, "--adapter", f"{name}:0", "--out", "x.png", "--force"
            )
            assert code == 0
            found[name, prompt], told[name] = Image.open("x.png").tobytes(), " ".join(talk.split())
    assert "does not say which words ask for it" in told["bare.safetensors"]
    assert "does not say" not in told["hat"]
    assert found["hat", "a person, a hat"] != found["bare.safetensors", "a person, a hat"]
    assert found["hat", "a person"] == found["bare.safetensors", "a person"]


def test_generate_exact_needs_an_adapter_that_says_its_words(cli, tiny_folder, trained):
    from spf_lora.adapters.format.adapter_file import write_adapter

    bare = read_adapter(trained)
    bare.metadata.clear()
    write_adapter(bare, Path("bare.safetensors"))
    code, _, talk = cli(
        "generate", "x", "--base", tiny_folder, "--adapter", "bare.safetensors", "--exact"
    )
    assert code == 1
    assert "does not say which words ask for it" in " ".join(talk.split())


def test_generate_warns_of_what_a_long_prompt_loses(cli, tiny_folder):
    prompt = ", ".join(["pale skin"] * 30) + ", a beard"
    code, _, talk = cli("generate", prompt, "--base", tiny_folder, "--count", "1", "--steps", "1")
    assert code == 0
    assert "longer than 77 tokens" in talk
    assert "a beard" in talk


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((" ",), "the prompt is empty"),
        (("\udcff",), "is no text in UTF-8"),
        (("x", "--steps", "1000"), "embedded has 1000 time steps"),
        (("x", "--out", "x" * 300), "is longer than 241 bytes"),
        (("x", "--adapter", "nobody"), "no adapter is called nobody"),
        (("x", "--adapter", "hat:much"), "no number from -4 to 4"),
        (("x", "--adapter", "hat:9"), "no number from -4 to 4"),
        (("x", "--adapter", "hat:nan"), "no number from -4 to 4"),
        (("x", "--out", "nowhere/x.png"), "nowhere does not exist"),
    ],
)
def test_generate_refuses_what_it_cannot_draw(cli, words, said):
    code, _, talk = cli("generate", *words)
    assert code == 1
    assert said in " ".join(talk.split())
    assert "hint: " in talk


def test_generate_refuses_an_adapter_of_another_base(cli, trained, tmp_path_factory):
    from tiny_base import make_tiny_base

    other = make_tiny_base(tmp_path_factory.mktemp("other") / "base", seed=1)
    code, _, talk = cli("generate", "x", "--adapter", "hat", "--base", other)
    assert code == 1
    assert "was trained on the base" in " ".join(talk.split())
    assert not Path("out/grid.png").exists()


def test_an_adapter_of_the_embedded_base_is_verified_as_such(cli, tmp_path):
    import numpy as np

    from spf_lora.adapters.format.adapter_file import write_adapter
    from spf_lora.adapters.module import Adapter, Module

    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    module = Module(name, np.ones((2, 192), np.float32), np.ones((96, 2), np.float32), 2.0)
    write_adapter(Adapter({name: module}, {}), tmp_path / "a.safetensors")
    code, said, talk = cli("verify", "a.safetensors", "--app", "diffusers")
    assert code == 0, said + talk
    assert "fits spf-lora's embedded base, so no SD1.5 app can use it" in " ".join(said.split())
    assert "spf-lora's embedded base" in cli("inspect", "a.safetensors")[1]


def test_generate_takes_no_seed_that_cannot_be_counted_on_from(cli):
    assert cli("generate", "x", "--seed", str(2**64 - 1))[0] == 2
