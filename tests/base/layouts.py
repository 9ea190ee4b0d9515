"""A random model with SD1.5's blocks, heads and groups at any width, in the layouts users have."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from spf_lora.base.load import EMBEDDED

SMALL = {"widths": (32, 32, 64, 64), "text": 24, "text_layers": 2, "vae": (32, 32, 32, 32)}
FULL = {
    "widths": (320, 640, 1280, 1280),
    "text": 768,
    "text_layers": 12,
    "vae": (128, 256, 512, 512),
}

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_models(folder, *, widths, text, text_layers, vae, vocabulary=None, channels=4, **unet):
    """Write unet, vae and text encoder with random weights that fp16 holds exactly."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    vocabulary = vocabulary or 3036  # the embedded tokenizer's
    with torch.device("meta"):
        models = {
            "unet": UNet2DConditionModel(
                sample_size=64,
                block_out_channels=widths,
                cross_attention_dim=text,
                attention_head_dim=8,
                in_channels=channels,
                **unet,
            ),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=vae,
                layers_per_block=2,
                latent_channels=4,
                sample_size=512,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=vocabulary,
                    hidden_size=text,
                    intermediate_size=4 * text,
                    num_hidden_layers=text_layers,
                    num_attention_heads=12,
                    projection_dim=text,
                    bos_token_id=vocabulary - 2,
                    eos_token_id=vocabulary - 1,
                )
            ),
        }
    for part, model in models.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        model.config.save_pretrained(folder / part) if part == "text_encoder" else (
            model.save_config(folder / part)
        )
        weights = {name: _random(name, p.shape) for name, p in model.named_parameters()}
        save_file(weights, folder / part / _file(part))
    return folder


def _file(part, variant=""):
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    return f"{stem}{variant}.safetensors"


def _random(name, shape):
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    noise = torch.empty(shape, dtype=torch.float32).uniform_(-0.06, 0.06, generator=generator)
    return (noise + ("norm" in name and name.endswith("weight"))).half()


def make_folder(folder: Path, **how) -> Path:
    """Write a whole base in diffusers layout, with the embedded base's tokenizer."""
    make_models(folder, **{**SMALL, **how})
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(EMBEDDED / part, folder / part)
    shutil.copy(EMBEDDED / "model_index.json", folder)
    return folder


def weights_of(folder: Path, part: str):
    return load_file(folder / part / _file(part))


def ldm_tensors(folder: Path):
    """Return a folder's tensors by CompVis' names, as a checkpoint has them."""
    unet, vae = weights_of(folder, "unet"), weights_of(folder, "vae")
    names = {f"model.diffusion_model.{ldm_unet(n)}": t for n, t in unet.items()}
    for name, tensor in vae.items():
        square = ".attentions." in name and tensor.dim() == 2
        names[f"first_stage_model.{ldm_vae(name)}"] = tensor[..., None, None] if square else tensor
    text = weights_of(folder, "text_encoder")
    return names | {f"cond_stage_model.transformer.text_model.{n}": t for n, t in text.items()}


def make_checkpoint(folder: Path, path: Path, *, dtype=torch.float16, extra=None) -> Path:
    tensors = {n: t.to(dtype).contiguous() for n, t in ldm_tensors(folder).items()}
    save_file(tensors | (extra or {}), path)
    return path


def _swap(text, pairs):
    for ours, theirs in pairs:
        text = text.replace(ours, theirs)
    return text


_RESNET = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
]
_ENDS = [
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
]


def ldm_unet(name):
    first, *rest = name.split(".")
    if first == "mid_block":
        at = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}[".".join(rest[:2])]
        tail = ".".join(rest[2:])
        return f"middle_block.{at}.{_swap(tail, _RESNET) if at != '1' else tail}"
    if first not in ("down_blocks", "up_blocks"):
        return _swap(name, _ENDS)
    level, room, layer = int(rest[0]), rest[1], int(rest[2])
    tail = ".".join(rest[3:])
    if room == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.op.{rest[-1]}"
    if room == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.conv.{rest[-1]}"
    side, start = ("input", 1) if first == "down_blocks" else ("output", 0)
    block = f"{side}_blocks.{3 * level + layer + start}"
    return f"{block}.0.{_swap(tail, _RESNET)}" if room == "resnets" else f"{block}.1.{tail}"


def ldm_vae(name):
    words = name.split(".")
    if len(words) > 4 and words[1] in ("down_blocks", "up_blocks"):
        level = int(words[2]) if words[1] == "down_blocks" else 3 - int(words[2])
        side = words[1].removesuffix("_blocks")
        if words[3] == "resnets":
            middle = f"block.{words[4]}.{'.'.join(words[5:])}"
        else:
            middle = f"{words[3].removesuffix('rs')}.conv.{words[-1]}"
        return f"{words[0]}.{side}.{level}.{middle}".replace("conv_shortcut", "nin_shortcut")
    attention = [
        ("mid_block.attentions.0", "mid.attn_1"),
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ]
    middle = [("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2")]
    ends = [("conv_norm_out", "norm_out")]
    return _swap(name, [*(attention if "attentions" in name else []), *middle, *ends])


def cached(cache: Path, repo: str, source: Path, *, skip: str = "\0") -> Path:
    """Lay a folder out as the hub's cache does: blobs, links to them, and the branch's commit."""
    room = cache / f"models--{repo.replace('/', '--')}"
    (room / "blobs").mkdir(parents=True)
    (room / "refs").mkdir()
    (room / "refs" / "main").write_text(COMMIT)
    for file in (p for p in source.rglob("*") if p.is_file() and skip not in p.name):
        link = room / "snapshots" / COMMIT / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = room / "blobs" / "-".join(file.relative_to(source).parts)
        shutil.copy(file, blob)
        link.symlink_to(blob)
    return room
