import shutil

import pytest
import torch

from spf_lora.base.identity import base_id, tensors_digest
from spf_lora.base.load import EMBEDDED, check_embedded, embedded_card, load_base
from spf_lora.base.texts import cut_off, encode
from spf_lora.base.towers import Clip, load_probe
from spf_lora.draw.act import draw
from spf_lora.draw.pixels import pixels_of
from spf_lora.errors import BaseModelError


def test_the_embedded_base_has_sd15s_block_layout(embedded):
    config = embedded.unet.config
    assert config.down_block_types == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"] or tuple(
        config.down_block_types
    ) == ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    assert config.layers_per_block == 2
    assert len(config.block_out_channels) == 4
    assert sum(n.endswith("attn2.to_k") for n, _ in embedded.unet.named_modules()) == 16
    assert embedded.scheduler.config.beta_schedule == "scaled_linear"
    assert embedded.scheduler.config.prediction_type == "epsilon"
    assert embedded.resolution == 64
    assert embedded.tokenizer.model_max_length == 77


def test_the_embedded_base_is_small_and_its_card_is_true(embedded):
    files = [p for p in EMBEDDED.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 40e6
    card = embedded_card()
    assert card["base_id"] == embedded.id
    assert set(card["sha256"]) == {str(p.relative_to(EMBEDDED)) for p in files} - {"card.json"}


def test_diffusers_own_pipeline_loads_the_embedded_base():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a portrait of a person, red hair", num_inference_steps=2).images[0]
    assert picture.size == (64, 64)


def test_our_sampler_draws_what_diffusers_pipeline_draws(embedded):
    import numpy as np
    from diffusers import StableDiffusionPipeline

    from spf_lora.draw.sample import start_noise

    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompt = "a portrait of a person, red hair, a hat"
    theirs = pipeline(
        prompt, num_inference_steps=4, guidance_scale=3.0, latents=start_noise(embedded, [7])
    ).images[0]
    ours = draw(embedded, [prompt], [7], steps=4, guidance=3.0)[0]
    difference = np.abs(np.asarray(theirs, dtype=int) - np.asarray(ours, dtype=int))
    assert difference.max() <= 1, "one step of 255 for rounding"


def test_a_damaged_file_of_the_embedded_base_is_named(tmp_path):
    copy = tmp_path / "embedded"
    shutil.copytree(EMBEDDED, copy)
    check_embedded(copy)
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BaseModelError, match="damaged: vae/diffusion_pytorch_model"):
        check_embedded(copy)
    weights.unlink()
    with pytest.raises(BaseModelError, match="incomplete: vae/diffusion_pytorch_model"):
        check_embedded(copy)
    (copy / "card.json").write_text("{")
    with pytest.raises(BaseModelError, match=r"card\.json cannot be read"):
        check_embedded(copy)


def test_a_folder_that_is_no_base_is_refused(tmp_path, tiny_folder):
    with pytest.raises(BaseModelError, match="no folder in diffusers layout"):
        load_base(str(tmp_path))
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    (broken / "unet" / "config.json").unlink()
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_base(str(broken))


def test_the_base_id_follows_the_weights_not_the_dtype_or_the_order(tiny):
    torch.manual_seed(0)
    tensors = {"a": torch.randn(3).half(), "b": torch.randn(2, 2).half()}
    turned = {k: tensors[k].float() for k in ("b", "a")}
    assert tensors_digest(tensors) == tensors_digest(turned)
    assert tensors_digest(tensors) != tensors_digest({**tensors, "a": tensors["a"] + 1})
    before = base_id(tiny.unet, tiny.text_encoder)
    assert before == tiny.id
    with torch.no_grad():
        next(tiny.text_encoder.parameters())[0] += 1
    assert base_id(tiny.unet, tiny.text_encoder) != before


def test_a_seed_draws_the_same_picture_whatever_else_is_in_the_batch(tiny):
    import numpy as np

    alone = draw(tiny, ["a hat"], [3], steps=2)[0]
    third = draw(tiny, ["x", "y", "a hat"], [1, 2, 3], steps=2)[2]
    difference = np.abs(np.asarray(alone, dtype=int) - np.asarray(third, dtype=int))
    assert difference.max() <= 1
    again = draw(tiny, ["a hat"], [3], steps=2)[0]
    assert alone.tobytes() == again.tobytes()


def test_what_a_long_prompt_loses_is_told(tiny):
    assert cut_off(tiny.tokenizer, "a portrait of a person") == ""
    fits = " ".join(["hair"] * 75)
    assert cut_off(tiny.tokenizer, fits) == ""
    assert cut_off(tiny.tokenizer, f"{fits}, blonde hair") == "blonde hair"
    assert encode(tiny, [fits + " hair"]).shape == (1, 77, 24)


def test_text_before_an_appended_target_has_the_same_states(embedded):
    """The causal mask: the doors for pollution are the target's own tokens and those behind it."""
    base = "a portrait of a person, pale skin, a bob"
    states = encode(embedded, [base, f"{base}, a beard"])
    tokens = len(embedded.tokenizer(base).input_ids) - 1
    torch.testing.assert_close(states[0, :tokens], states[1, :tokens], atol=1e-5, rtol=0)
    assert (states[0, tokens] - states[1, tokens]).abs().max() > 1e-2


def test_the_bases_own_clip_and_the_probe_know_a_beard_when_they_see_one(embedded):
    import random

    from spf_lora.data.worlds.portraits import render, unbiased

    rng = random.Random(1)
    people = [unbiased(rng) for _ in range(16)]
    pixels = torch.stack([pixels_of(render(p, a)) for a in ((), ("beard",)) for p in people])
    clip = Clip(embedded, EMBEDDED / "clip")
    score = (clip.embed_image(pixels) @ clip.embed_text(["a beard"]).T)[:, 0]
    assert (score[16:] > score[:16].max()).float().mean() >= 0.9
    shown = load_probe(EMBEDDED / "probe")(pixels)["beard"].argmax(1)
    assert shown.tolist() == [0] * 16 + [1] * 16


def test_the_adapter_checks_know_the_embedded_bases_shapes(embedded):
    from spf_lora.adapters import sd15

    shapes = sd15.weight_shapes(sd15.EMBEDDED)
    found = {
        f"unet.{n.removesuffix('.weight')}": tuple(p.shape)
        for n, p in embedded.unet.named_parameters()
        if n.endswith(".weight") and p.dim() > 1
    }
    assert found == {n: s for n, s in shapes.items() if n.startswith("unet.")}
