"""Randomly initialised scorers in the on-disk layout of the real ones."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from spf_lora.base.load import EMBEDDED
from spf_lora.evaluate.judges.photographs.faces import FaceNet

PART_NAMES = [
    "background",
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
]


def preparation(folder: Path, **changes) -> None:
    table = {
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        **changes,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(table))


def trunk(kind: str) -> nn.Sequential:
    """Return `features` of torchvision's VGG-16 or AlexNet, layer for layer."""
    layers: list[nn.Module] = []
    if kind == "alex":
        sizes = [
            (3, 64, 11, 4, 2),
            (64, 192, 5, 1, 2),
            (192, 384, 3, 1, 1),
            (384, 256, 3, 1, 1),
            (256, 256, 3, 1, 1),
        ]
        for number, (channels, width, kernel, stride, padding) in enumerate(sizes):
            layers += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
            layers += [nn.MaxPool2d(3, 2)] if number in (0, 1, 4) else []
        return nn.Sequential(*layers)
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def make_trunk(folder: Path, kind: str) -> nn.Sequential:
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    net = trunk(kind).requires_grad_(False)
    save_file({f"features.{k}": v for k, v in net.state_dict().items()}, folder / _WEIGHTS)
    return net


def make_clip(folder: Path, seed: int = 0) -> Path:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    text = {
        "vocab_size": 3036,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": 3034,
        "eos_token_id": 3035,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    shutil.copytree(EMBEDDED / "tokenizer", folder, dirs_exist_ok=True)
    preparation(folder)
    return folder


def make_dinov2(folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    Dinov2Model(config).save_pretrained(folder)
    preparation(folder)
    return folder


def make_parser(folder: Path) -> Path:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8] * 4,
        num_attention_heads=[1] * 4,
        mlp_ratios=[1] * 4,
        decoder_hidden_size=8,
        id2label=dict(enumerate(PART_NAMES)),
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    preparation(folder, do_center_crop=False, size={"height": 64, "width": 64}, resample=2)
    return folder


def make_face(folder: Path, prefix: str = "model.net.") -> FaceNet:
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    net = FaceNet(8, (8, 8, 12, 12, 16), dim=6).eval()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
    save_file({prefix + k: v for k, v in net.state_dict().items()}, folder / _WEIGHTS)
    return net


_WEIGHTS = "model.safetensors"
