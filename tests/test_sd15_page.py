"""Every command of docs/sd15.md runs as written, on a small random model."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from root import ROOT

pytestmark = pytest.mark.usefixtures("few_draws")
PAGE = ROOT / "docs" / "sd15.md"
# The tiny model is no SD1.5, and a page's reader has hours where a test has seconds.
FEWER = {
    "train": ["--steps", "2", "--set", "data.batch_size=2", "--resolution", "64"],
    "generate": ["--steps", "2", "--count", "1"],
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("spf-lora ")]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos/masks").mkdir(parents=True)
    Path("adapters").mkdir()
    for number, size in enumerate([(96, 96), (64, 120), (120, 80), (96, 120)]):
        values = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)
        picture.save(f"photos/{number}.jpg", quality=90)
        hair = ("brown", "black", "red", "grey")[number]
        text = f"a portrait of a man, {hair} hair, pale skin, a blue shirt, a grey wall, a beard"
        Path(f"photos/{number}.txt").write_text(text)
        Image.new("L", size, 255).save(f"photos/masks/{number}.png")


def test_every_command_of_the_page_runs(cli, photos, tiny_folder: Path) -> None:
    Path("models").mkdir()
    Path("models/sd15").symlink_to(tiny_folder)
    every = commands()
    once = ["base", "data", "train", "generate", "verify", "recipe", "recipe", "inspect"]
    assert [words[0] for words in every] == [*once, "generate"]
    for words in every:
        code, said, talk = cli(*words, *FEWER.get(words[0], []))
        # no SD1.5 app can use an adapter of the tiny model, and `verify` says so
        assert code == (3 if words[0] == "verify" else 0), f"{words}: {said} {talk}"
        assert said
    assert Path("adapters/beard.safetensors").is_file()
    assert Path("adapters/beard.png").is_file()


def test_what_the_page_says_of_settings_can_be_set() -> None:
    from spf_lora.recipe.files import find_recipe
    from spf_lora.recipe.load import load_recipe

    changes = re.findall(r"--set ([a-z_.]+=\w+)", PAGE.read_text("utf-8"))
    assert len(changes) >= 5
    for change in changes:
        load_recipe(find_recipe("sd15/beard"), [change])


def test_what_the_page_has_for_diffusers_begins_when_ours_does(tmp_path, monkeypatch):
    from diffusers import StableDiffusionPipeline

    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.base.load import EMBEDDED, load_base
    from spf_lora.draw.act import acting, draw
    from spf_lora.draw.prompts import Prompt
    from spf_lora.draw.sample import start_noise

    embedded = load_base("embedded", device=torch.device("cpu"))
    shipped = PAGE.parent.parent / "adapters" / "demo" / "beard.safetensors"
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "beard.safetensors").write_bytes(shipped.read_bytes())
    monkeypatch.chdir(tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    before = "a portrait of a man, red hair"
    prompt = f"{before}, a beard"
    options = {
        "num_inference_steps": 5,
        "guidance_scale": 3.0,
        "latents": start_noise(embedded, [7]),
    }
    known = {
        "pipe": pipe,
        "prompt": prompt,
        "prompt_before": before,
        "options": options,
        "torch": torch,
    }
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    exec(code, known)
    ours = {}
    for start in (0.0, 0.3):
        asks = Prompt(prompt, ((before, start),))
        acts = acting(read_adapter(shipped), start_percent=start)
        ours[start] = np.asarray(draw(embedded, [asks], [7], acts, steps=5)[0], dtype=int)
    assert np.abs(np.asarray(known["picture"], dtype=int) - ours[0.3]).max() <= 1
    assert np.abs(ours[0.0] - ours[0.3]).max() > 20
