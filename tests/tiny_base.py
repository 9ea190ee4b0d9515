import copy
import io
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import torch

from spf_lora.adapters.module import Adapter
from spf_lora.base.load import EMBEDDED


class Mould:
    """Casts copies of models, which is faster than making them anew."""

    def __init__(self, pattern: Any) -> None:
        self._tensors: dict[int, torch.Tensor] = {}
        written = io.BytesIO()
        pickler = pickle.Pickler(written)
        pickler.persistent_id = self._number
        pickler.dump(pattern)
        self._pickled = written.getvalue()

    def _number(self, part: Any) -> int | None:
        if not isinstance(part, torch.Tensor):
            return None
        self._tensors[id(part)] = part
        return id(part)

    def cast(self) -> Any:
        """Return a copy of the pattern with tensors of its own."""
        copies = {number: copy.deepcopy(tensor) for number, tensor in self._tensors.items()}
        unpickler = pickle.Unpickler(io.BytesIO(self._pickled))
        unpickler.persistent_load = copies.__getitem__
        return unpickler.load()


def make_tiny_base(folder: Path, seed: int = 0) -> Path:
    """Write a random model of SD1.5's blocks, but few of them, in diffusers layout: 32 px."""
    import shutil

    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=2,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
    ).save_pretrained(folder / "vae")
    shutil.copytree(EMBEDDED / "tokenizer", folder / "tokenizer")
    from transformers import CLIPTokenizer

    vocabulary = len(CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    ).save_pretrained(folder / "text_encoder")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


def make_tiny_clip(folder: Path) -> Path:
    """Write a random CLIP in transformers layout, of 8 numbers a text or picture."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast

    tokenizer = CLIPTokenizerFast.from_pretrained(EMBEDDED / "tokenizer")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    words = small | {"num_attention_heads": 2, "vocab_size": len(tokenizer)}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    sight = small | {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=words | ends, vision_config=sight, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    return folder


@cache
def noisy_adapter(folder: Path) -> Adapter:
    """Random factors on every layer that an adapter of the tiny base can have; made once."""
    from spf_lora.adapters.attach import attach_trainable, trained_adapter
    from spf_lora.base.load import load_base

    unet = load_base(str(folder), device=torch.device("cpu")).unet
    parameters = attach_trainable(unet, preset="full", rank=2, alpha=2.0, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return trained_adapter(unet, {})


def text_adapter(folder: Path) -> Adapter:
    """Random factors on the text encoder of the tiny base alone."""
    from spf_lora.adapters.attach import adapter_of, attach_trainable_text
    from spf_lora.base.load import load_base

    base = load_base(str(folder), device=torch.device("cpu"))
    parts = attach_trainable_text(base.text_encoder, rank=2, alpha=2.0, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for part in parts.values():
            part.add_(torch.randn(part.shape))
    return adapter_of(parts, 2.0)
