"""Stage 7: fp16 weights in diffusers layout, with a card and a checksum of every file."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from embedded.clip import Clip
from spf_lora.base.identity import base_id


def write_folder(
    out: Path, *, clip: Clip, vae: Any, unet: Any, tokenizer: Any, scheduler: Any
) -> None:
    """Write the pipeline and CLIP's two heads."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    text_encoder = CLIPTextModel(clip.text.config)
    text_encoder.load_state_dict(clip.text.text_model.state_dict())
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    shutil.rmtree(out, ignore_errors=True)
    pipeline.save_pretrained(out)
    # transformers loads the dtype that config.json names; diffusers loads float32 by default.
    config = out / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    for name in ("vocab.json", "merges.txt"):
        source = Path(tokenizer.name_or_path) / name
        shutil.copy(source, out / "tokenizer" / name)
    (out / "clip").mkdir()
    heads = {f"image.{k}": v for k, v in clip.image.state_dict().items()}
    heads["text_projection.weight"] = clip.text.text_projection.weight
    save_file(
        {k: v.detach().half().contiguous() for k, v in heads.items()},
        out / "clip" / "model.safetensors",
    )


def replace_unet(start: Path, out: Path, unet: Any) -> None:
    """Write a packed base with another U-Net; its figures are no longer true, so they go."""
    if start.resolve() != out.resolve():
        shutil.copytree(start, out, dirs_exist_ok=True)
    unet.half().save_pretrained(out / "unet")
    facts = json.loads((start / "card.json").read_text())
    write_card(out, {k: v for k, v in facts.items() if k != "figures"})


def write_probe(out: Path, probe: torch.nn.Module, heads: dict[str, int]) -> None:
    """Write the probe and the sizes of its heads."""
    (out / "probe").mkdir(exist_ok=True)
    tensors = {k: v.detach().half().contiguous() for k, v in probe.state_dict().items()}
    save_file(tensors, out / "probe" / "model.safetensors")
    (out / "probe" / "heads.json").write_text(json.dumps(heads, indent=2) + "\n")


def write_card(out: Path, facts: dict[str, Any]) -> None:
    """Write `card.json`: how it was made, its id, and the sha256 of every other file."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    identity = base_id(
        UNet2DConditionModel.from_pretrained(out / "unet"),
        CLIPTextModel.from_pretrained(out / "text_encoder"),
    )
    files = sorted(p for p in out.rglob("*") if p.is_file() and p.name != "card.json")
    digests = {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    card = {**facts, "base_id": identity, "sha256": digests}
    (out / "card.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
