"""Sound files of every kind that is read, to be made hostile."""

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from root import ROOT

from spf_lora.draw.infotext import ENTRY, Infotext
from spf_lora.evaluate.result import Draw, Figure, PromptPair, Result, SelfTest
from spf_lora.publish import submission as rules
from spf_lora.recipe.digest import table_hash

CARD = json.dumps(
    {
        "attribute": "beard",
        "target_text": "a beard",
        "trigger": "a beard",
        "base_id": "sd15:1",
        "recipe": {
            "attribute": {"name": "beard", "aliases": ["bearded"], "scope": "local"},
            "onto": [{"name": "hat", "content_id": "ab" * 32, "strength": 1.0}],
        },
        "recipe_hash": "",
        "parents": ["ab" * 32],
        "dataset_digest": "cd" * 32,
        "metrics": {"start_percent": 0.2},
        "versions": {"torch": "2"},
        "seed": 7,
        "format_version": 1,
    }
)


def true_card() -> bytes:
    table = json.loads(CARD)
    return json.dumps(table | {"recipe_hash": table_hash(table["recipe"])}).encode()


def other_methods() -> bytes:
    """A LoHa, a LoKr, a DoRA and an OFT module, for weights of shape (8, 6)."""
    from safetensors.numpy import save

    rng, body = np.random.default_rng(0), "lora_unet_mid_block_attentions_0_transformer_blocks_0"
    shapes = {
        "attn2_to_k": {"hada_w1_a": (8, 2), "hada_w1_b": (2, 6)}
        | {"hada_w2_a": (8, 2), "hada_w2_b": (2, 6)},
        "attn2_to_v": {"lokr_w1": (2, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 3)},
        "attn2_to_q": {"lora_up.weight": (8, 2), "lora_down.weight": (2, 6), "dora_scale": (8, 1)},
        "attn1_to_q": {"oft_blocks": (2, 4, 4)},
    }
    tensors = {
        f"{body}_{module}.{factor}": rng.normal(size=shape).astype(np.float16)
        for module, factors in shapes.items()
        for factor, shape in factors.items()
    }
    tensors |= {f"{body}_{module}.alpha": np.array(1, np.float16) for module in shapes}
    return bytes(save(tensors))


def submission() -> bytes:
    figures = {name: Figure(0.5, 0.4, 0.6, rules.COUNT) for name in rules.FIGURES}
    made = rules.Submission(
        protocol=rules.PROTOCOL,
        attribute="beard",
        adapter="mine",
        adapter_id="ab" * 32,
        base_id=rules.BASE,
        judge=rules.JUDGE,
        prompts=rules.PROMPTS["beard"],
        sampler=dict(rules.SAMPLER),
        strengths=rules.STRENGTHS,
        figures=figures,
        checks={"same picture": True},
        versions={"torch": "2"},
    )
    return made.to_json().encode()


def small_report() -> bytes:
    draws = tuple(
        Draw(0, 7, strength, {"I0": "aa", "I1": "bb"}, {"P": 0.1 + strength})
        for strength in (0.0, 1.0)
    )
    numbers = {"P@1": Figure(1.05, 1.0, 1.1, 2), "sps": Figure(None, None, None, 2, 0.25)}
    result = Result(
        attribute="beard",
        target_text="a beard",
        adapter="mine",
        adapter_id="c0ffee",
        base="embedded",
        base_id="1234",
        judge="world",
        sampler={"name": "ddim", "steps": 25},
        strengths=(0.0, 1.0),
        main=1.0,
        cases=(PromptPair("a man, a beard", "a man", (7,)),),
        draws=draws,
        numbers=numbers,
        selftests=(SelfTest("same", "P is 0", 0.0, True),),
        remarks=("one prompt is few",),
        versions={"torch": "2"},
    )
    return result.to_json().encode()


STACK = f"""# learned one after another
format_version = 1
base_id = "sd15:0123"
[[adapters]]
name = "beard"
content_id = "{"ab" * 32}"
strength = 1.0
[[adapters]]
name = "hat"
content_id = "{"cd" * 32}"
"""
CAPTIONS = {
    "phrases": b"a portrait of a man, brown hair, pale skin, a blue shirt, a beard",
    "sentence": b"a bearded man with a long grey beard and a hat in the street",
    "jsonl": b'{"file_name": "a.png", "text": "a man, a beard"}\n{"file_name": "b.png"}\n',
    "csv": b'file_name,text\na.png,"a man,\n a beard"\n',
}


def pictures() -> Mapping[str, bytes]:
    return {
        "jpeg": saved("JPEG"),
        "progressive": saved("JPEG", progressive=True),
        "cmyk": saved("JPEG", "CMYK"),
        "png": saved("PNG"),
        "alpha": saved("PNG", "RGBA"),
        "deep": saved("PNG", "I;16"),
        "palette": saved("PNG", "P"),
        "bmp": saved("BMP"),
        "gif": animated("GIF"),
        "apng": animated("PNG"),
        "tiff": saved("TIFF"),
        "lzw": saved("TIFF", compression="tiff_lzw"),
        "tiff8": saved("TIFF", compression="jpeg"),
        "float": saved("TIFF", "F"),
        "webp": animated("WEBP"),
        "avif": saved("AVIF"),
    }


PEFT = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "rank_pattern": {"attn2.to_k": 4},
    "alpha_pattern": {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": 2},
    "use_rslora": False,
    "bias": "none",
    "target_modules": ["to_k"],
}
BASE = ROOT / "spf_lora" / "base" / "embedded"
RECIPES = ("recipes/beard.toml", "recipes/sd15/beard.toml")


def demo(name: str) -> bytes:
    return (ROOT / "adapters" / "demo" / f"{name}.safetensors").read_bytes()


def saved(kind: str, mode: str = "RGB", **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((60, 40), 60).convert(mode).save(buffer, kind, **how)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.effect_noise((20, 20), 60) for _ in range(3)]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def drawn() -> Mapping[str, bytes]:
    text = Infotext(
        "a woman, a beard",
        "blurred",
        (("beard", 0.8),),
        {"Steps": "25", "Sampler": "DDIM", "Seed": "7"},
    ).text()
    info = PngInfo()
    info.add_text(ENTRY, text)
    return {"drawn": saved("PNG", pnginfo=info), "bare": saved("PNG")}


def saved_checkpoint() -> bytes:
    import torch

    from spf_lora.training.checkpoint import save_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c"
        save_checkpoint(path, {"adapter": {"x": torch.arange(9.0)}}, {"step": 3, "run_id": "a"})
        return path.read_bytes()
