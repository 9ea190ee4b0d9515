"""Each button starts the command that a person would type, and shows what its files say."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from made_adapters import KEYS_AND_VALUES, make_adapter  # noqa: F401
from PIL import Image

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.cli.app import app
from spf_lora.errors import SpfError
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.studio import command, form, jobs, work


@pytest.fixture(autouse=True)
def _alone(shelf, studio, unstarted):
    Path("adapters").mkdir()


@pytest.fixture
def beard(make_adapter):  # noqa: F811
    write_adapter(make_adapter(KEYS_AND_VALUES), Path("adapters/beard.safetensors"))
    return Path("adapters/beard.safetensors")


def values(**changed):
    keys = [field.key for field in form.fields()]
    own = form.values(load_recipe(find_recipe("beard")))
    return list((dict(zip(keys, own, strict=True)) | changed).values())


def is_read(job):
    """The command line reads the words, options and kinds of values too; nothing runs."""
    command_, words = typer.main.get_command(app), list(job.words)
    while subcommands := getattr(command_, "commands", None):
        command_, words = subcommands[words[0]], words[1:]
    return command_.make_context(command_.name, words).params


def test_every_button_writes_a_command_that_is_read(beard):
    assert is_read(work.measure("beard", "embedded", quick=True))["quick"]
    assert is_read(work.audit(beard, "beard", "embedded", "-o x"))["target"] == "-o x"
    assert is_read(work.clean(beard, "beard", "embedded", "a beard"))["target"] == "a beard"
    job = work.train("beard", values(**{"adapter.rank": 4}), "", "other", keep_every=50, skip=True)
    told = is_read(job)
    assert told["changes"] == ["adapter.rank=4"]
    assert (told["keep_every"], told["sample_every"], told["base"]) == (50, 50, "other")
    assert Path(told["sample_prompts"]).read_text().count("a beard") == 2
    assert [one.kind for one in jobs.jobs()] == ["evaluate", "audit", "clean", "train"]


@pytest.mark.parametrize("name", ["../beard", "adapters/beard.safetensors", "--help", ""])
def test_names_are_never_paths_nor_options(beard, name):
    for start in (
        lambda: work.measure(name, "embedded", quick=True),
        lambda: work.measure_stack(name, "embedded"),
        lambda: work.train(name, values(), "", "embedded", keep_every=0, skip=False),
    ):
        with pytest.raises(SpfError, match=r"no name|no recipe|no adapter"):
            start()
    assert not jobs.jobs()


def test_what_a_training_kept_can_be_kept_by_a_name_once(make_adapter):  # noqa: F811
    job = work.train("beard", values(), "", "embedded", keep_every=2, skip=False)
    with pytest.raises(SpfError, match="no such adapter"):
        work.keep(job, "finished", "mine")
    (job.folder / "adapter-steps").mkdir()
    for at, name in enumerate(("adapter-steps/adapter-000002", "adapter")):
        write_adapter(make_adapter(KEYS_AND_VALUES, seed=at), job.folder / f"{name}.safetensors")
    assert list(work.candidates(job)) == ["finished", "step 2"]
    assert work.keep(job, "step 2", "mine").path == Path("adapters/mine.safetensors")
    with pytest.raises(SpfError, match="mine"):
        work.keep(job, "finished", "mine")
    with pytest.raises(SpfError, match="no name"):
        work.keep(job, "finished", "../mine")
    assert len(is_read(work.compare_steps(job, "embedded"))["adapters"]) == 2


def test_pictures_on_the_way_are_shown_the_last_first(beard):
    job = work.train("beard", values(), "", "embedded", keep_every=2, skip=False)
    (job.folder / "adapter-samples").mkdir()
    for name in ("adapter.png", "adapter-samples/000002.png", "adapter-samples/000004.png"):
        Image.new("RGB", (8, 8)).save(job.folder / name)
    assert list(work.sheets(job)) == ["result", "step 4", "step 2"]


def test_a_folder_is_checked_and_a_faulty_caption_has_its_picture_beside(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, caption in (("a", "a man, a beard"), ("b", "a woman"), ("c", None)):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        if caption:
            (folder / f"{name}.txt").write_text(caption)
    report, thumbnails = work.check_folder(str(folder), "beard", "embedded")
    assert report["pictures"] == 3
    named = {fault["file"] for fault in report["faults"]}
    assert named == set(thumbnails)
    assert all(uri.startswith("data:image/png") for uri in thumbnails.values())


@pytest.mark.parametrize("text", ["/nowhere", "\0", "a" * 5000, "--help"])
def test_a_folder_that_is_none_is_refused(text):
    with pytest.raises(SpfError, match="is no folder"):
        work.check_folder(text, "beard", "embedded")


def test_what_a_command_refuses_is_told_with_its_hint():
    with pytest.raises(SpfError, match="no recipe for the attribute") as caught:
        command.ask(["train", "--attribute", "berd", "--dry-run"])
    assert "spf-lora attributes" in caught.value.hint


def test_the_cross_talk_of_a_stack_is_read_from_what_its_report_printed():
    job = jobs.submit("stack", ["stack", "report", "x"])
    assert work.cross_talk(job) == {}
    (job.folder / "out").write_text(json.dumps({"cross_talk": [[0.0]], "adapters": ["hat"]}))
    assert work.cross_talk(job)["cross_talk"] == [[0.0]]
    (job.folder / "out").write_text("[" * 100)
    assert work.cross_talk(job) == {}
