"""What is no Stable Diffusion 1.x is refused by name, with the way out, before it is read."""

import json
import shutil

import pytest
import torch
from layouts import SMALL, make_checkpoint, make_models
from safetensors.torch import save_file

from spf_lora.base.load import load_base
from spf_lora.errors import BaseModelError

INPUT = "model.diffusion_model.input_blocks.0.0.weight"
STATES = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
PARTS = ("first_stage_model.x", "cond_stage_model.transformer.text_model.x")


def refusal(path):
    with pytest.raises(BaseModelError) as caught:
        load_base(str(path), device=torch.device("cpu"))
    assert caught.value.hint
    return caught.value


def file_of(path, shapes):
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    save_file({**{n: torch.zeros(1) for n in PARTS}, **tensors}, path)
    return path


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ({INPUT: (2, 9, 3, 3), STATES: (2, 768)}, "an inpainting model"),
        ({INPUT: (2, 8, 3, 3), STATES: (2, 768)}, "an InstructPix2Pix model"),
        ({INPUT: (2, 5, 3, 3), STATES: (2, 768)}, "a depth-guided model"),
        ({INPUT: (2, 6, 3, 3), STATES: (2, 768)}, "a model with 6 input channels"),
        ({INPUT: (2, 4, 3, 3), STATES: (2, 1024)}, "Stable Diffusion 2"),
        ({INPUT: (2, 4, 3, 3), "cond_stage_model.model.x": (1,)}, "Stable Diffusion 2"),
        ({INPUT: (2, 4, 3, 3), "conditioner.embedders.0.x": (1,)}, "Stable Diffusion XL"),
        ({"model.diffusion_model.joint_blocks.0.x": (1,)}, "Stable Diffusion 3"),
        ({"model.diffusion_model.double_blocks.0.x": (1,)}, "Flux"),
        ({"double_blocks.0.x": (1,)}, "Flux"),
        ({INPUT: (2, 4, 3, 3), "v_pred": (1,)}, "a model that predicts velocity"),
        (
            {INPUT: (2, 4, 3, 3), "model.diffusion_model.time_embed.cond_proj.weight": (1,)},
            "a latent consistency model",
        ),
        ({"lora_unet_x.lora_down.weight": (1,)}, "an adapter"),
    ],
)
def test_another_family_in_one_file_is_refused_by_name(shapes, what, tmp_path):
    told = refusal(file_of(tmp_path / "m.safetensors", shapes))
    assert told.message.endswith(f"m.safetensors is {what}, not Stable Diffusion 1.x")


def test_a_part_of_a_model_is_no_base(tmp_path):
    save_file({"down_blocks.0.x": torch.zeros(1)}, tmp_path / "unet.safetensors")
    told = refusal(tmp_path / "unet.safetensors")
    assert "holds no U-Net, no VAE, no text encoder under the names" in told.message
    save_file({INPUT: torch.zeros(2, 4, 3, 3)}, tmp_path / "unet.safetensors")
    assert "holds no VAE, no text encoder" in refusal(tmp_path / "unet.safetensors").message


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
def test_a_pickle_is_refused_unopened(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x80\x02cos\nsystem\n(S'false'\ntR.")
    told = refusal(path)
    assert "which spf-lora never opens" in told.message
    assert "get the .safetensors file of the same model" in told.hint


def test_a_pickle_does_not_become_safetensors_by_its_name(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    assert "cannot be read as safetensors" in refusal(path).message


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("StableDiffusionXLPipeline", "Stable Diffusion XL"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("FluxPipeline", "Flux"),
        ("AudioLDMPipeline", "a AudioLDMPipeline"),
        (None, "a model of no known kind"),
    ],
)
def test_another_family_in_a_folder_is_refused_by_its_class(name, what, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name} if name else {}))
    assert f" is {what}, not Stable" in refusal(tmp_path).message


@pytest.mark.parametrize(
    ("part", "key", "value", "what"),
    [
        ("unet", "in_channels", 9, "an inpainting model"),
        ("unet", "cross_attention_dim", 1024, "Stable Diffusion 2"),
        ("unet", "time_cond_proj_dim", 256, "a latent consistency model"),
        ("scheduler", "prediction_type", "v_prediction", "a model that predicts v_prediction"),
    ],
)
def test_another_kind_of_unet_in_a_folder_is_refused_by_its_config(
    part, key, value, what, sd15_folder, tmp_path
):
    folder = shutil.copytree(sd15_folder, tmp_path / "copy")
    path = next((folder / part).glob("*config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert f" is {what}" in refusal(folder).message


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "sample_size", "64"),
        ("unet", "block_out_channels", [10**12] * 4),
        ("vae", "block_out_channels", None),
        ("text_encoder", "hidden_size", "wide"),
        ("text_encoder", "vocab_size", -3),
        ("scheduler", "num_train_timesteps", 0),
    ],
)
def test_a_folder_with_an_odd_config_is_refused(part, key, value, sd15_folder, tmp_path):
    folder = shutil.copytree(sd15_folder, tmp_path / "copy")
    path = next((folder / part).glob("*config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert "cannot be made from its configs: " in refusal(folder).message


@pytest.mark.parametrize("text", ["[]", "[" * 99_999, "\0"])
def test_a_folder_whose_index_is_no_table_is_refused(text, tmp_path):
    (tmp_path / "model_index.json").write_text(text)
    assert "model_index.json is missing or damaged" in refusal(tmp_path).message


def test_a_damaged_vocabulary_is_refused(sd15_folder, tmp_path):
    folder = shutil.copytree(sd15_folder, tmp_path / "copy")
    for old in (folder / "tokenizer").iterdir():
        old.unlink()
    (folder / "tokenizer" / "vocab.json").write_text("[]")
    (folder / "tokenizer" / "merges.txt").write_text("x")
    assert "no tokenizer can be read from" in refusal(folder).message


def test_a_whole_inpainting_checkpoint_is_refused_with_the_plain_model_as_the_way_out(tmp_path):
    folder = make_models(tmp_path / "m", **SMALL, channels=9)
    told = refusal(make_checkpoint(folder, tmp_path / "m.safetensors"))
    assert "is an inpainting model" in told.message
    assert "name the plain model it was made from" in told.hint


def test_a_folder_with_pickled_weights_only_is_refused(sd15_folder, tmp_path):
    folder = shutil.copytree(sd15_folder, tmp_path / "copy")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    told = refusal(folder)
    assert "part unet, is there only as a pickle, which spf-lora never opens" in told.message


def test_a_folder_without_a_tokenizer_says_how_to_name_one(sd15_folder, tmp_path):
    folder = shutil.copytree(sd15_folder, tmp_path / "copy")
    shutil.rmtree(folder / "tokenizer")
    assert "--tokenizer names a folder" in refusal(folder).hint
    base = load_base(str(folder), tokenizer="embedded", device=torch.device("cpu"))
    assert len(base.tokenizer) == 3036
