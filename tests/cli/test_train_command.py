"""`spf-lora train` as a user meets it, on a tiny random base."""

import os
from pathlib import Path

import pytest
from PIL import Image

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.card import from_metadata

pytestmark = pytest.mark.usefixtures("few_draws")
FEW = ("learn.steps=2", "distil.steps=2", "data.count=4", "data.batch_size=2")
SMALL = tuple(word for change in FEW for word in ("--set", change))


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
    words = ("train", "-a", "hat", "--base", str(tiny_folder), *SMALL)
    done = CliRunner().invoke(app, [*words, "--out", str(path)])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def train(cli, tiny_folder):
    def run(*words, attribute="hat"):
        return cli("train", "-a", attribute, "--base", tiny_folder, *SMALL, *words)

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
    assert len(adapter.modules) == 4 * 8
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
    assert len(read_adapter("adapters/hat.safetensors").modules) == 32


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
        "--set",
        "optimizer.learning_rate=1",
        "--set",
        "optimizer.name=adamw",
        "--set",
        "training.max_grad_norm=1e6",
        "--set",
        "adapter.alpha=1024",
        "--set",
        "training.checkpoint_every_steps=1",
        "--steps",
        "60",
    )
    assert code == 1
    assert "became" in talk
    assert "learning_rate" in talk
    assert left_behind() == ["adapters/.hat.checkpoint.safetensors"]
