"""Cleaning chooses its pairs by what the LoRA draws as it is, where words ask for it."""

import pytest
import torch
from tiny_base import noisy_adapter
from tiny_runs import load
from torch.nn.functional import normalize

from spf_lora.cli.any_lora import recipe_of, source_of
from spf_lora.data.cache import TensorCache
from spf_lora.draw.act import acting, draw_latents
from spf_lora.draw.prompts import Prompt
from spf_lora.errors import BaseModelError
from spf_lora.training import build, clean
from spf_lora.training.clean import SHOWING, Task, build_cleaner
from spf_lora.training.pairs import first_seed
from spf_lora.training.sight import Limit, Sight

pytestmark = pytest.mark.usefixtures("few_draws")


class Eyes:
    """A CLIP that keeps what it was shown."""

    scale = 30.0

    def __init__(self):
        self.shown = []

    def digest(self):
        return "eyes"

    def embed_text(self, texts):
        return torch.tensor([[1.0, 0.0] if "a hat" in text else [0.0, 1.0] for text in texts])

    def embed_image(self, pixels):
        self.shown.append(pixels)
        light = pixels.mean(dim=(1, 2, 3))
        return normalize(torch.stack([1 + light, 1 - light], dim=1), dim=1)


@pytest.fixture
def cleaner(tiny, tiny_folder, tmp_path, monkeypatch):
    """Builds what cleans an adapter of noise, with a CLIP or with none."""
    from spf_lora.adapters.format.adapter_file import write_adapter

    path = tmp_path / "any.safetensors"
    write_adapter(noisy_adapter(tiny_folder), path)

    def found(base, spec, tell):
        if made.eyes is None:
            raise BaseModelError("no CLIP is known", hint="name one")
        return "eyes"

    monkeypatch.setattr(build, "find_clip", found)
    monkeypatch.setattr(clean, "load_clip", lambda base, spec: made.eyes)

    def made(target="a hat", eyes=None):
        made.eyes, made.told = eyes, []
        source = source_of(path)
        changes = ["distil.vocabulary=none", "distil.steps=1"]
        recipe, wordless = recipe_of(
            source, changes, target=target, attribute=None, base=str(tiny_folder)
        )
        task = Task(tiny, source.adapter, ["a man", "a woman", "a child"], wordless)
        cache = TensorCache(tmp_path / "cache")
        trainer = build_cleaner(
            recipe,
            task,
            checkpoint=tmp_path / "run",
            cache=cache,
            tell=lambda *said: made.told.append(said),
        )
        return trainer, recipe, task

    return made


def test_it_is_shown_what_the_lora_draws_in_any_app(cleaner, tiny_folder):
    eyes = Eyes()
    trainer, recipe, task = cleaner(eyes=eyes)
    assert trainer.remarks == []
    assert (SHOWING, 0, 3) in cleaner.told
    first = first_seed(recipe.training.seed)
    texts = [Prompt(f"{who}, a hat") for who in task.prompts]
    how = {"steps": 2, "guidance": recipe.distil.guidance}
    base = load(tiny_folder)  # with nothing attached
    latents = draw_latents(base, texts, range(first, first + 3), acting(task.teacher), **how)
    pixels = base.vae.decode(latents / base.vae.config.scaling_factor).sample.clamp(-1, 1)
    assert torch.allclose(torch.cat(eyes.shown), pixels, atol=1e-5)


def test_pairs_that_do_not_show_it_are_drawn_again_and_told(cleaner, monkeypatch):
    from spf_lora.training import pairs

    asked = []

    def look(sight, base, own, local, prompts, limit=None):
        asked.append([full for _, full in prompts])
        return Limit(0.0, 1.0), [full != "a woman, a hat" for _, full in prompts]

    monkeypatch.setattr(pairs, "LEAST_AUC", 0.9)
    monkeypatch.setattr(Sight, "look", look)
    trainer, *_ = cleaner(eyes=Eyes())
    list(trainer.run())
    assert trainer.remarks == ["2 of 3 pairs show the target and are learned from"]
    assert asked[1:] == [["a woman, a hat"]] * 2


def test_without_a_clip_all_pairs_are_learned_from_and_it_is_another_run(cleaner):
    seeing, *_ = cleaner(eyes=Eyes())
    blind, *_ = cleaner()
    assert blind.remarks == [
        "nobody sees the pictures, so all pairs are learned from: no CLIP is known; for less "
        "pollution name one"
    ]
    assert blind.run_id != seeing.run_id
    list(blind.run())
    assert len(blind.remarks) == 1


def test_where_no_words_ask_for_it_no_clip_is_asked(cleaner):
    eyes = Eyes()
    trainer, *_ = cleaner(target=None, eyes=eyes)
    list(trainer.run())
    assert (eyes.shown, trainer.remarks) == ([], [])
