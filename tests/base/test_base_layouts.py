"""One model in every layout: the same weights, the same id, the same pictures."""

import json
import shutil

import pytest
import torch
from layouts import FULL, SMALL, ldm_tensors, make_checkpoint, make_folder, make_models, weights_of
from safetensors.torch import load_file, save_file

from spf_lora.base.ldm_names import unet_name, vae_name
from spf_lora.base.load import EMBEDDED, load_base
from spf_lora.draw.act import draw
from spf_lora.errors import BaseModelError

CPU = torch.device("cpu")


def load(path, **how):
    return load_base(str(path), device=CPU, **how)


@pytest.fixture(scope="module")
def original(sd15_folder):
    """The base of the folder; leave it as it is."""
    return load(sd15_folder)


@pytest.fixture
def copy(sd15_folder, tmp_path):
    return shutil.copytree(sd15_folder, tmp_path / "copy")


def test_a_checkpoint_is_the_same_base_as_its_folder(original, sd15_file):
    one, other = original, load(sd15_file, tokenizer="embedded")
    assert one.id == other.id
    for part in ("unet", "vae", "text_encoder"):
        mine, theirs = (getattr(base, part).state_dict() for base in (one, other))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert {t.dtype for t in theirs.values() if t.is_floating_point()} == {torch.float32}
    assert one.resolution == other.resolution == 512
    assert dict(one.scheduler.config) == dict(other.scheduler.config)


def test_a_checkpoint_draws_what_its_folder_draws(sd15_folder, sd15_file):
    bases = load(sd15_folder), load(sd15_file, tokenizer=str(sd15_folder))
    for base in bases:
        base.unet.register_to_config(sample_size=8)  # not the 512 px of the whole model
    pictures = [draw(base, ["a hat"], [3], steps=2)[0] for base in bases]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_diffusers_own_converter_names_a_checkpoints_tensors_as_we_do(sd15_folder, sd15_file):
    from diffusers.loaders import single_file_utils as theirs

    tensors = load_file(sd15_file)
    configs = {
        p: json.loads((sd15_folder / p / "config.json").read_text()) for p in ("unet", "vae")
    }
    unet = theirs.convert_ldm_unet_checkpoint(dict(tensors), dict(configs["unet"]))
    vae = theirs.convert_ldm_vae_checkpoint(dict(tensors), dict(configs["vae"]))
    ours = {
        unet_name(n.removeprefix("model.diffusion_model.")): t
        for n, t in tensors.items()
        if n.startswith("model.diffusion_model.")
    }
    assert unet.keys() == ours.keys() == weights_of(sd15_folder, "unet").keys()
    assert all(torch.equal(unet[name], ours[name]) for name in unet)
    names = {
        vae_name(n.removeprefix("first_stage_model."), levels=4)
        for n in tensors
        if n.startswith("first_stage_model.")
    }
    assert vae.keys() == names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_checkpoint_is_read_in_any_dtype_and_its_other_tensors_are_left_alone(
    dtype, original, sd15_folder, tmp_path
):
    extra = {
        "model_ema.decay": torch.ones(()),
        "alphas_cumprod": torch.ones(1000),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    path = make_checkpoint(sd15_folder, tmp_path / "m.safetensors", dtype=dtype, extra=extra)
    same = dtype is torch.float32  # bf16 rounds what fp16 holds
    assert (load(path, tokenizer="embedded").id == original.id) is same


def test_a_checkpoint_whose_text_encoder_has_novelais_names_is_read(
    original, sd15_folder, tmp_path
):
    short = {n.replace("text_model.", ""): t.clone() for n, t in ldm_tensors(sd15_folder).items()}
    save_file(short, tmp_path / "nai.safetensors")
    assert load(tmp_path / "nai.safetensors", tokenizer="embedded").id == original.id


def test_a_folder_with_the_names_of_older_libraries_is_the_same_base(copy, original):
    text = copy / "text_encoder" / "model.safetensors"
    old = {f"text_model.{n}": t for n, t in load_file(text).items()}
    save_file(old | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, text)
    vae = copy / "vae" / "diffusion_pytorch_model.safetensors"
    pairs = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = load_file(vae)
    for new, former in pairs.items():
        old = {n.replace(f".{new}.", f".{former}."): t for n, t in old.items()}
    assert old.keys() != load_file(vae).keys()
    save_file(old, vae)
    new, former = original, load(copy)
    assert new.id == former.id
    weights = former.vae.state_dict()
    assert all(torch.equal(t, weights[n]) for n, t in new.vae.state_dict().items())


def test_of_two_variants_the_exact_one_is_read_and_a_lone_one_suffices(copy, original):
    whole = copy / "unet" / "diffusion_pytorch_model.safetensors"
    half = whole.with_name("diffusion_pytorch_model.fp16.safetensors")
    save_file({n: t * 2 for n, t in load_file(whole).items()}, half)
    assert load(copy).id == original.id
    whole.unlink()
    assert load(copy).id != original.id
    text = copy / "text_encoder" / "model.safetensors"
    text.rename(text.with_name("model.fp16.safetensors"))
    config = text.with_name("config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float16"}))
    read = load(copy)
    dtypes = {p.dtype for m in (read.unet, read.text_encoder) for p in m.parameters()}
    assert dtypes == {torch.float32}


def test_a_folder_in_shards_is_read_whole(copy, original):
    whole = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    for shard in (1, 2):
        part = {n: t for i, (n, t) in enumerate(tensors.items()) if i % 2 == shard - 1}
        save_file(
            part, whole.with_name(f"diffusion_pytorch_model-0000{shard}-of-00002.safetensors")
        )
    whole.unlink()
    assert load(copy).id == original.id


def test_a_folder_made_for_another_sampler_keeps_only_its_noise_schedule(copy, sd15_folder):
    path = copy / "scheduler" / "scheduler_config.json"
    table = {"_class_name": "DPMSolverMultistepScheduler", "beta_start": 0.001, "beta_end": 0.012}
    path.write_text(
        json.dumps({**table, "beta_schedule": "scaled_linear", "use_karras_sigmas": True})
    )
    config = load(copy).scheduler.config
    assert config.beta_start == 0.001
    assert not config.clip_sample  # DDIM's default would clip latents
    assert config.steps_offset == 1


def test_the_tokenizer_beside_a_checkpoint_is_found(original, sd15_file, tmp_path):
    file = shutil.copy(sd15_file, tmp_path)
    shutil.copytree(EMBEDDED / "tokenizer", tmp_path / "tokenizer")
    base = load(file)
    assert base.layout == "file"
    assert base.origin == base.id, "a card names no local path"
    assert base.tokenizer("a hat").input_ids == original.tokenizer("a hat").input_ids


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    small = make_models(tmp_path / "m", **SMALL, vocabulary=100)
    path = make_checkpoint(small, tmp_path / "m.safetensors")
    with pytest.raises(BaseModelError, match="has 3036 tokens, the text encoder 100"):
        load(path, tokenizer="embedded")
    with pytest.raises(BaseModelError, match=r"no tokenizer can be read from .*unet: it holds"):
        load(path, tokenizer=str(small / "unet"))


def test_weights_in_half_precision_are_the_same_base(original, sd15_folder):
    half = load(sd15_folder, dtype=torch.bfloat16)
    assert half.id == original.id
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in half.unet.parameters())


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_folder_whose_weights_are_cut_short_is_refused_not_filled_with_noise(part, copy):
    path = next((copy / part).glob("*.safetensors"))
    tensors = load_file(path)
    gone = sorted(tensors)[0]
    save_file({n: t for n, t in tensors.items() if n != gone}, path)
    with pytest.raises(BaseModelError, match=f"lacks {gone}"):
        load(copy)
    path.unlink()
    with pytest.raises(BaseModelError, match=f"has no weights of the {part}"):
        load(copy)


def test_weights_that_do_not_fit_are_refused_by_what_is_wrong(copy):
    path = next((copy / "unet").glob("*.safetensors"))
    tensors = load_file(path)
    save_file(tensors | {"stranger": torch.zeros(1)}, path)
    with pytest.raises(BaseModelError, match="does not know stranger"):
        load(copy)
    first = sorted(tensors)[0]
    save_file(tensors | {first: torch.zeros(7)}, path)
    with pytest.raises(BaseModelError, match=f"has in another shape {first}"):
        load(copy)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match="cannot be read as safetensors"):
        load(copy)


def test_a_checkpoint_without_a_block_is_refused(sd15_folder, tmp_path):
    tensors = ldm_tensors(sd15_folder)
    kept = {n: t.clone() for n, t in tensors.items() if ".input_blocks.11." not in n}
    save_file(kept, tmp_path / "m.safetensors")
    with pytest.raises(BaseModelError, match=r"the U-Net lacks down_blocks\.3"):
        load(tmp_path / "m.safetensors", tokenizer="embedded")
    kept = {n: t.clone() for n, t in tensors.items() if ".input_blocks.10." not in n}
    save_file(kept, tmp_path / "m.safetensors")
    with pytest.raises(BaseModelError, match=r"no Stable Diffusion 1.x checkpoint: .*conv1"):
        load(tmp_path / "m.safetensors", tokenizer="embedded")


@pytest.mark.slow
def test_the_full_model_of_859_million_weights_is_one_base_in_both_layouts(tmp_path):
    folder = make_folder(tmp_path / "full", **FULL, vocabulary=49408)
    file = make_checkpoint(folder, tmp_path / "full.safetensors")
    base = load(folder, dtype=torch.float16)
    assert sum(p.numel() for p in base.unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in base.text_encoder.parameters()) == 123_060_480
    identity = base.id
    del base
    assert load(file, tokenizer="embedded", dtype=torch.float16).id == identity
