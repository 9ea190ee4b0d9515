"""A base in one .safetensors file, as the web UIs keep them.

The file says nothing of a model's settings: sizes follow from the shapes, and what shapes do not
show (8 and 12 attention heads, groups of 32) is as in Stable Diffusion 1.5.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spf_lora.base import families
from spf_lora.base.folder import text_tensors
from spf_lora.base.ldm_names import TEXT, UNET, VAE, unet_name, vae_name
from spf_lora.base.parts import Parts, make_scheduler
from spf_lora.base.tensors import Tensors, fill, read_shapes, read_tensors
from spf_lora.errors import BaseModelError

_UNET_HEADS, _TEXT_HEADS, _LATENT_SIDE = 8, 12, 64
_FIRST = f"{UNET}input_blocks.0.0.weight"
_TEXT_STATES = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_SCALE = 0.18215  # of SD1.5's latents (arXiv 2112.10752, appendix G)

Shapes = Mapping[str, tuple[int, ...]]


def check_file(path: Path, name: str) -> Shapes:
    """Refuse what is no Stable Diffusion 1.x checkpoint by its header; return its shapes.

    Raises:
        BaseModelError: it is something else, which is named.
    """
    if path.suffix in families.PICKLES:
        raise families.pickled(name)
    shapes = read_shapes(path)
    families.check_names(name, shapes)
    families.check_unet(
        name,
        channels=shapes.get(_FIRST, (0, 4))[1],
        text_width=shapes.get(_TEXT_STATES, (0, 0))[1],
        distilled=any("cond_proj" in n for n in shapes),
    )
    return shapes


def read_single_file(path: Path, name: str, tokenizer: Any) -> Parts:
    """Read a checkpoint with CompVis' names; other tensors in it, such as averages, are left alone.

    Args:
        path: the file.
        name: what the user called it.
        tokenizer: no checkpoint holds one.

    Raises:
        BaseModelError: it is another family's, pickled, incomplete or damaged.
    """
    check_file(path, name)
    unet = {unet_name(k): v for k, v in _under(path, UNET).items()}
    vae = _under(path, VAE)
    levels = 1 + max(
        (int(k.split(".")[2]) for k in vae if k.startswith("encoder.down.")), default=0
    )
    vae = {vae_name(k, levels=levels): v for k, v in vae.items() if not k.startswith("loss.")}
    text = text_tensors(_under(path, TEXT))
    try:
        models = _unet(unet), _vae(_as_linear(vae), levels), _text_encoder(text)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise BaseModelError(
            f"{name} is no Stable Diffusion 1.x checkpoint: {str(error).splitlines()[0]}",
            hint="fetch it again, or name another base",
        ) from error
    return Parts(*models, tokenizer=tokenizer, scheduler=make_scheduler({}))


def _under(path: Path, prefix: str) -> Tensors:
    tensors = read_tensors([path], lambda name: name.startswith(prefix))
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _as_linear(vae: Tensors) -> Tensors:
    """Turn the attention's 1x1 convolutions (out, in, 1, 1) into matrices (out, in)."""
    return {
        name: tensor[:, :, 0, 0] if ".attentions." in name and tensor.dim() == 4 else tensor
        for name, tensor in vae.items()
    }


def _unet(tensors: Tensors) -> Any:
    from diffusers import UNet2DConditionModel

    widths = [tensors[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(4)]
    states = tensors["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    with torch.device("meta"):
        model = UNet2DConditionModel(
            sample_size=_LATENT_SIDE,
            block_out_channels=widths,
            cross_attention_dim=states,
            attention_head_dim=_UNET_HEADS,
        )
    return fill(model, tensors, "U-Net")


def _vae(tensors: Tensors, levels: int) -> Any:
    from diffusers import AutoencoderKL

    first = [f"encoder.down_blocks.{level}.resnets.0.conv1.weight" for level in range(levels)]
    layers = {n.split(".")[4] for n in tensors if n.startswith("encoder.down_blocks.0.resnets.")}
    with torch.device("meta"):
        model = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=[tensors[name].shape[0] for name in first],
            layers_per_block=len(layers),
            latent_channels=4,
            scaling_factor=_SCALE,
            sample_size=_LATENT_SIDE * 2 ** (levels - 1),
        )
    return fill(model, tensors, "VAE")


def _text_encoder(tensors: Tensors) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    tokens, width = tensors["embeddings.token_embedding.weight"].shape
    layers = {n.split(".")[2] for n in tensors if n.startswith("encoder.layers.")}
    config = CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=width,
        num_hidden_layers=len(layers),
        intermediate_size=tensors["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_attention_heads=_TEXT_HEADS,
        projection_dim=width,
        max_position_embeddings=tensors["embeddings.position_embedding.weight"].shape[0],
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
    )
    return fill(CLIPTextModel(config), tensors, "text encoder")
