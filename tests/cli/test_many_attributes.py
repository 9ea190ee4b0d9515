"""`spf-lora train --attribute a,b,c`: one process, one base, the files of separate runs."""

from pathlib import Path

import pytest
import torch

from spf_lora.adapters.attach import attach_trainable
from spf_lora.base import load
from spf_lora.base.share import shared
from spf_lora.training.precision import set_up

pytestmark = pytest.mark.usefixtures("in_a_clone", "few_draws")
SMALL = ("--steps", "2", "--set", "data.count=3", "--set", "data.batch_size=2")


@pytest.fixture
def train(cli, tiny_folder):
    def run(attributes, *words):
        code, said, talk = cli("train", "-a", attributes, "--base", tiny_folder, *SMALL, *words)
        return code, said.split(), " ".join(talk.split())

    return run


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def written(name):
    """Return what changes when a file is written again, and not when it is read."""
    found = Path(f"adapters/{name}.safetensors").stat()
    return found.st_ino, found.st_mtime_ns


@pytest.mark.parametrize(
    "words",
    [
        (),
        pytest.param(
            (
                "--set",
                "training.precision=bf16",
                "--set",
                "training.channels_last=true",
                "--set",
                "training.gradient_checkpointing=true",
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "bf16"],
)
def test_several_attributes_give_the_files_of_separate_runs(train, monkeypatch, words):
    names = ("blonde-hair", "hat")
    for name in names:
        Path("alone").mkdir(exist_ok=True)
        assert train(name, "--out", "alone", *words)[0] == 0
    loaded = []
    real = load.load_base
    monkeypatch.setattr(load, "load_base", lambda *a, **k: loaded.append(a) or real(*a, **k))
    code, said, _ = train("blonde-hair, hat", *words)
    assert (code, said) == (0, [f"adapters/{name}.safetensors" for name in names])
    assert files("adapters") == files("alone")
    assert len(loaded) == 1


def test_a_shared_base_is_as_it_was(tiny):
    before = {name: tensor.clone() for name, tensor in tiny.unet.state_dict().items()}
    with shared(tiny, apart=True) as own:
        parameters = attach_trainable(own.unet, preset="kv", rank=2, alpha=1.0, seed=0)
        set_up(own.unet, precision="bf16", gradient_checkpointing=True, channels_last=True)
        own.scheduler.set_timesteps(3)
        weights = [p for p in own.unet.parameters() if not p.requires_grad]
        assert len(parameters) == 16
        assert {p.dtype for p in weights} == {torch.bfloat16}
    after = tiny.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert "forward" not in vars(tiny.unet)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in tiny.unet.modules())
    assert tiny.scheduler.num_inference_steps is None


def test_a_shared_base_has_its_weights_once(tiny):
    with shared(tiny) as own:
        pairs = zip(own.unet.parameters(), tiny.unet.parameters(), strict=True)
        assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)


def test_one_that_fails_loses_no_other_and_resume_trains_it_alone(cli, train):
    Path("d").mkdir()
    for name in ("beard", "hat"):
        words = ("--attribute", name, "--count", "3")
        assert cli("portraits", "export", f"d/{name}", *words)[0] == 0
    missing = sorted(Path("d/beard").glob("*.txt"))[0]
    text = missing.read_text()
    missing.unlink()
    code, said, talk = train("beard,hat", "--data", "d")
    assert (code, said) == (1, ["adapters/hat.safetensors"])
    assert "error: beard:" in talk
    assert "1 of 2 attributes are not trained: beard" in talk
    before = written("hat")
    missing.write_text(text)
    code, said, talk = train("beard,hat", "--data", "d", "--resume")
    assert (code, said) == (0, ["adapters/beard.safetensors", "adapters/hat.safetensors"])
    assert "hat is finished already" in talk
    assert written("hat") == before


@pytest.mark.parametrize(
    ("attributes", "words", "said"),
    [
        ("beard,,hat", (), "has an empty name"),
        ("beard,", (), "has an empty name"),
        ("", (), "has an empty name"),
        ("beard,hat, beard", (), "beard is named twice"),
        ("beard,sd15/beard", (), "beard is named twice"),
        ("beard,hatt", (), "no recipe for the attribute 'hatt'; did you mean hat"),
        ("beard,hat", ("--recipe", "mine.toml"), "mine.toml is for one attribute"),
        ("beard,hat", ("--out", "x.safetensors"), "x.safetensors is no folder"),
        ("beard,hat", ("--out", "nowhere"), "nowhere is no folder"),
        ("beard,hat", ("--data", "d"), "none for hat"),
    ],
)
def test_what_cannot_be_trained_together_is_refused_before_anything_is(
    train, attributes, words, said
):
    Path("d/beard").mkdir(parents=True)
    code, data, talk = train(attributes, *words)
    assert (code, data) == (1, [])
    assert said in talk
    assert "hint: " in talk
    assert files("adapters") == {}


def test_recipes_for_different_bases_need_one_told(cli):
    code, _, talk = cli("train", "-a", "beard,sd15/smile")
    assert code == 1
    assert "beard is trained with the base embedded, smile with" in " ".join(talk.split())


def test_a_file_in_the_way_of_one_stops_all_before_the_first(train):
    Path("adapters/hat.safetensors").write_bytes(b"mine")
    code, _, talk = train("beard,hat")
    assert code == 1
    assert "hat.safetensors exists" in talk
    assert files("adapters") == {"hat.safetensors": b"mine"}


def test_a_dry_run_plans_each(train):
    code, said, _ = train("beard,hat", "--dry-run")
    assert code == 0
    assert {"beard:", "hat:"} <= set(said)
    assert files("adapters") == {}
