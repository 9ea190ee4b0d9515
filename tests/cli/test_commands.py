"""The reading commands: data on stdout, talk on stderr, faults in one sentence with a hint."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spf_lora.adapters.format.adapter_file import Adapter, Module, write_adapter
from spf_lora.cli.app import main
from spf_lora.data.folder import dataset_digest, read_folder
from spf_lora.errors import PromptError
from spf_lora.recipe.files import find_recipe, list_recipes
from spf_lora.recipe.load import load_recipe, recipe_hash

ALL_RECIPES = [*list_recipes(), *list_recipes("sd15")]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(shelf: Path) -> None:
    shelf.rmdir()


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line as a user does; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["spf-lora", *words])
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def test_attributes_lists_every_recipe_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "attributes", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["trainable"]] == ALL_RECIPES
    assert found["trained"] == []


def test_attributes_tells_people_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "attributes") == 0
    said = capsys.readouterr()
    assert "a moustache" in said.out
    assert "spf-lora train --attribute beard" in said.err


def test_attributes_warns_of_what_it_cannot_read_and_lists_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipes").mkdir()
    Path("recipes/broken.toml").write_text("[")
    Path("adapters").mkdir()
    Path("adapters/damaged.safetensors").write_bytes(b"x")
    assert run(monkeypatch, "attributes", "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [row["name"] for row in found["trainable"]] == [
        name for name in ALL_RECIPES if name != "broken"
    ]
    assert found["trained"] == []
    assert "broken.toml is not valid TOML" in said.err
    assert "damaged.safetensors" in said.err


def test_attributes_lists_what_the_registry_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("adapters", "shipped"):
        Path(folder).mkdir()
        for name in ("mine", folder):
            write_adapter(one_module(), Path(folder) / f"{name}.safetensors")
    assert run(monkeypatch, "attributes", "--json") == 0
    trained = json.loads(capsys.readouterr().out)["trained"]
    assert [Path(row["file"]).parent.name for row in trained] == ["adapters", "adapters", "shipped"]
    assert [row["name"] for row in trained] == ["adapters", "mine", "shipped"]
    assert run(monkeypatch, "attributes", "--registry", "shipped", "--json") == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["trained"]] == [
        "mine",
        "shipped",
        "adapters",
    ]


def one_module() -> Adapter:
    """Return the smallest adapter there is."""
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    return Adapter({name: Module(name, np.ones((1, 2)), np.ones((2, 1)), 1.0)})


def test_what_recipe_show_prints_is_an_equal_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["optimizer.learning_rate=1e-8", 'attribute.aliases=["ein \\"Bärtchen\\"", ":x:"]']
    words = [word for change in changes for word in ("--set", change)]
    assert run(monkeypatch, "recipe", "show", "beard", *words) == 0
    Path("shown.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    expected = load_recipe(find_recipe("beard"), changes)
    assert load_recipe(Path("shown.toml")) == expected
    assert run(monkeypatch, "recipe", "show", "shown.toml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipe_hash"] == recipe_hash(expected)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["recipe", "show", "baerd"], "did you mean beard?"),
        (["recipe", "show", "none.toml"], "recipe none.toml does not exist"),
        (["recipe", "show", "beard", "--set", "rank"], "is not of the form key=value"),
        (["recipe", "show", "beard", "--set", "learn.steps=-1"], "must be at least 0"),
        (["portraits", "export", "new", "-a", "hta"], "did you mean hat?"),
        (["portraits", "export", "new", "-a", "hat", "--count", "0"], "must be at least 1"),
        (["portraits", "export", "new", "-a", "hat", "--coverage", "2"], "must be at most 1"),
        (["portraits", "export", "a/b", "-a", "hat"], "folder a/b cannot be written: No such"),
    ],
)
def test_what_is_refused_says_why_and_what_next_and_writes_nothing(
    words: list[str],
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert run(monkeypatch, *words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert fault in said.err
    assert "hint: " in said.err
    assert list(tmp_path.iterdir()) == []


def test_the_exported_folder_is_the_set_that_training_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from spf_lora.training.examples import load_examples

    assert run(monkeypatch, "portraits", "export", "new", "-a", "blonde-hair", "--count", "5") == 0
    recipe = load_recipe(find_recipe("blonde-hair"), ["data.count=5"])
    read = read_folder(Path("new"), recipe.attribute)
    drawn = load_examples(recipe, None)
    assert [e.caption for e in read] == [e.caption for e in drawn]
    assert [e.image.tobytes() for e in read] == [e.image.tobytes() for e in drawn]
    assert dataset_digest(read) == dataset_digest(drawn)


def test_another_seed_exports_other_portraits(monkeypatch: pytest.MonkeyPatch) -> None:
    beard = load_recipe(find_recipe("beard")).attribute
    for seed in ("0", "1"):
        words = ("portraits", "export", f"s{seed}", "-a", "beard", "--count", "2", "--seed", seed)
        assert run(monkeypatch, *words) == 0
    digests = {dataset_digest(read_folder(Path(name), beard)) for name in ("s0", "s1")}
    assert len(digests) == 2


def test_an_export_never_mixes_with_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("portraits", "export", "new", "-a", "beard", "--count")
    assert run(monkeypatch, *words, "3") == 0
    assert run(monkeypatch, *words, "3") == 1
    assert "folder new is not empty" in capsys.readouterr().err
    assert run(monkeypatch, *words, "3", "--force") == 0
    assert run(monkeypatch, *words, "2", "--force") == 1
    assert "holds other files, 0002.png among them" in capsys.readouterr().err
    assert len(list(Path("new").iterdir())) == 6


def piped(*words: str, stdout: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "spf_lora", *words]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60)


@pytest.mark.parametrize(
    "words", [("recipe", "show", "beard"), ("recipe", "show", "hat", "--json")]
)
def test_a_reader_that_closes_early_is_no_fault_to_tell(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = piped(*words, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize(
    "words", [("recipe", "show", "beard"), ("recipe", "show", "hat", "--json")]
)
def test_an_output_without_room_is_told(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = piped(*words, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[0] == "error: No space left on device"
    assert b"hint: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_path_that_the_system_refuses_is_told_with_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "inspect", "x" * 300) == 1
    said = capsys.readouterr().err
    assert f"error: {'x' * 300}: File name too long" in said
    assert "hint: look at the path" in said


def test_a_recipe_of_letters_prints_where_only_ascii_can_be_printed(
    monkeypatch: pytest.MonkeyPatch, shelf: Path
) -> None:
    text = 'profile = "embedded"\n[attribute]\nname = "b"\ntarget_text = "bärt"\n'
    Path("b.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = piped("recipe", "show", "b.toml", "--json", stdout=subprocess.PIPE)
    assert json.loads(done.stdout)["attribute"]["target_text"] == "bärt"
    assert piped("recipe", "show", "b.toml", stdout=subprocess.PIPE).returncode == 0


def test_a_recipe_file_is_no_family_of_recipes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "portraits", "export", "new", "-a", "./beard") == 1
    assert "did you mean beard?" in capsys.readouterr().err


def test_an_error_passes_between_processes_whole() -> None:
    sent = PromptError("the prompt is empty", hint="write one")
    found = pickle.loads(pickle.dumps(sent))
    assert (type(found), found.message, found.hint) == (PromptError, sent.message, sent.hint)
