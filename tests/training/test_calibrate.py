"""Strength 1 is the least that answers nearly as well as the best; so is when it begins."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from spf_lora.adapters.attach import attach_trainable, trained_adapter
from spf_lora.adapters.format.card import from_metadata
from spf_lora.base.load import Base
from spf_lora.data.captions import full_prompt
from spf_lora.data.folder import Example
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training import calibrate, finish
from spf_lora.training.calibrate import PROMPTS, START_PROMPTS, answers, find_dose, find_start

PAIRS = [(f"a man {i}", f"a man {i}, a hat") for i in range(60)]


class BrightMeans:
    """A CLIP to which a bright picture is the asked one."""

    scale = 30.0

    def embed_text(self, texts):
        return torch.tensor([[1.0, 0.0] if "hat" in text else [0.0, 1.0] for text in texts])

    def embed_image(self, pixels):
        bright = pixels.mean(dim=(1, 2, 3)).clamp(0, 1)
        return torch.stack([bright, 1 - bright], dim=1)


def _alpha(unet) -> float:
    (alpha,) = {module.alpha for module in trained_adapter(unet, {}).modules.values()}
    return alpha


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [
        ({0.25: 0.2, 0.5: 0.94, 0.75: 0.97, 1.0: 1.0}, 0.75),
        ({0.25: 0.8, 0.5: 0.8, 0.75: 0.8, 1.0: 0.6}, 0.25),
        ({0.25: 0.0, 0.5: 0.1, 0.75: 0.3, 1.0: 0.4}, 1.0),
        ({0.25: 0.0, 0.5: 0.0, 0.75: 0.0, 1.0: 0.0}, 0.25),
    ],
)
def test_the_least_dose_that_answers_nearly_as_well_is_taken(
    tiny: Base, monkeypatch, answered, wanted
):
    attach_trainable(tiny.unet, preset="kv", rank=4, alpha=4.0, seed=0)

    def answer(base, clip, prompts):
        assert len(prompts) == PROMPTS
        return answered[_alpha(base.unet) / 4]

    monkeypatch.setattr(calibrate, "answers", answer)
    for _ in range(2):  # asked again it says the same: it starts from what was trained
        assert find_dose(tiny, BrightMeans(), PAIRS, alpha=4.0) == wanted
        assert _alpha(tiny.unet) == 4 * wanted


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [
        ({0.0: 0.8, 0.1: 0.8, 0.2: 0.77, 0.3: 0.7}, 0.2),
        ({0.0: 0.8, 0.1: 0.2}, 0.0),
        ({0.0: 0.8, 0.1: 0.75, 0.2: 0.8, 0.3: 0.8, 0.4: 0.8, 0.5: 0.8}, 0.5),
    ],
)
def test_an_adapter_may_begin_as_late_as_it_still_answers(
    tiny: Base, monkeypatch, answered, wanted
):
    attach_trainable(tiny.unet, preset="kv", rank=4, alpha=4.0, seed=0)

    def answer(base, clip, prompts, *, start_percent):
        assert len(prompts) == START_PROMPTS
        for t in (950, 850, 750, 650, 550, 450):
            base.unet(torch.zeros(1, 4, 8, 8), t, torch.zeros(1, 77, 24))
            late_enough = t < 1000 * (1 - start_percent)
            assert _alpha(base.unet) == (3.0 if late_enough else 0.0)
        return answered[start_percent]

    monkeypatch.setattr(calibrate, "answers", answer)
    calibrate.set_alpha(tiny.unet, 3.0)
    assert find_start(tiny, BrightMeans(), PAIRS, alpha=3.0) == wanted
    assert _alpha(tiny.unet) == 3.0


def test_a_smaller_alpha_acts_less(tiny: Base):
    parameters = attach_trainable(tiny.unet, preset="kv", rank=4, alpha=4.0, seed=0)
    states, latents = torch.randn(1, 77, 24), torch.randn(1, 4, 8, 8)

    def eps(alpha):
        calibrate.set_alpha(tiny.unet, alpha)
        with torch.no_grad():
            return tiny.unet(latents, 500, states).sample

    before = eps(4.0)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    moved = [(eps(alpha) - before).abs().mean().item() for alpha in (0.0, 1.0, 4.0)]
    assert moved[0] == 0
    assert 0 < moved[1] < 0.6 * moved[2]


@pytest.mark.parametrize(("grey", "wanted"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_an_answer_is_how_surely_pictures_show_what_was_asked(
    tiny: Base, monkeypatch, grey, wanted
):
    asked = []

    def drawn(base, prompts, late):
        asked.extend(prompts)
        assert late == [([without for without, _ in PAIRS[:3]], 0.2)]
        return torch.zeros(len(prompts), 4, 8, 8)

    monkeypatch.setattr(calibrate, "own_pictures", drawn)
    shown = SimpleNamespace(sample=torch.full((1, 3, 8, 8), grey))
    monkeypatch.setattr(tiny.vae, "decode", lambda latents: shown)
    found = answers(tiny, BrightMeans(), PAIRS[:3], start_percent=0.2)
    assert found == pytest.approx(wanted, abs=1e-6)
    assert asked == [asking for _, asking in PAIRS[:3]]


def test_a_finished_adapter_has_its_dose_and_says_so(tiny: Base, tmp_path, monkeypatch):
    examples = [Example(Image.new("RGB", (64, 64), c), "a man, a hat", c) for c in ("red", "blue")]
    recipe = load_recipe(find_recipe("hat"), ["training.base=x", "adapter.alpha=16"])
    seen = []

    def half(base, clip, prompts, *, alpha):
        seen.extend(prompts)
        calibrate.set_alpha(base.unet, alpha / 2)
        return 0.5

    def start(*_, alpha):
        return 0.3 if alpha == 8 else 0.1

    monkeypatch.setattr(finish, "find_dose", half)
    monkeypatch.setattr(finish, "find_start", start)
    attach_trainable(tiny.unet, preset="attention", rank=16, alpha=16.0, seed=0)
    assert finish.finished_adapter(recipe, tiny, examples).metadata["ss_network_alpha"] == "16"
    assert not seen, "without a CLIP nobody can tell"
    monkeypatch.setattr(finish, "brings_clip", lambda base, spec: True)
    monkeypatch.setattr(finish, "load_clip", lambda base, spec: BrightMeans())
    adapter = finish.finished_adapter(recipe, tiny, examples)
    assert adapter.metadata["ss_network_alpha"] == "8"
    assert _alpha(tiny.unet) == 8
    card = from_metadata(adapter.metadata)
    assert card is not None
    assert card.metrics == {"dose": 0.5, "start_percent": 0.3}
    assert "start_percent 0.3" in adapter.metadata["modelspec.usage_hint"]
    assert all(asking == full_prompt(without, recipe.attribute) for without, asking in seen)
    off = load_recipe(find_recipe("hat"), ["training.base=x", "training.calibrate=false"])
    seen.clear()
    finish.finished_adapter(off, tiny, examples)
    assert not seen
