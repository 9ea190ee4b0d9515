"""Load a base model: the embedded one, or a folder in diffusers layout."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from spf_lora.base.identity import base_id
from spf_lora.errors import BaseModelError

EMBEDDED = Path(__file__).parent / "embedded"
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen Stable Diffusion 1.x model.

    Attributes:
        id: digest of the U-Net's and text encoder's weights.
        name: what the user called it.
        folder: where it was read from.
        device: where its weights are.
        resolution: side of its pictures in pixels.
    """

    id: str
    name: str
    folder: Path
    device: torch.device
    unet: Any = field(repr=False)
    vae: Any = field(repr=False)
    text_encoder: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    scheduler: Any = field(repr=False)

    @property
    def resolution(self) -> int:
        """Side of the pictures it was trained on, in pixels."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(self.unet.config.sample_size * factor)


def default_device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_base(spec: str = "embedded", *, device: torch.device | None = None) -> Base:
    """Load a base model in float32, frozen, in evaluation mode.

    Args:
        spec: "embedded", or the path of a folder in diffusers layout.
        device: where to put it; a GPU if there is one.

    Raises:
        BaseModelError: there is no such model, or a file of it is missing or damaged.
    """
    folder = EMBEDDED if spec == "embedded" else Path(spec)
    if spec == "embedded":
        check_embedded(folder)
    elif not (folder / "model_index.json").is_file():
        raise BaseModelError(
            f"{spec} is no folder in diffusers layout: it has no model_index.json",
            hint="--base embedded needs no download; or name a folder that holds one",
        )
    device = device or default_device()
    try:
        parts = _load_parts(folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(
            f"the base in {folder} cannot be loaded: {str(error).splitlines()[0]}",
            hint=f"it needs the folders {', '.join(_PARTS)}, as diffusers writes them",
        ) from error
    for name in ("unet", "vae", "text_encoder"):
        parts[name].requires_grad_(False).eval().to(device)
    identity = base_id(parts["unet"], parts["text_encoder"])
    return Base(id=identity, name=spec, folder=folder, device=device, **parts)


def _load_parts(folder: Path) -> dict[str, Any]:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    def read(kind: Any, part: str, **how: Any) -> Any:
        return kind.from_pretrained(folder / part, local_files_only=True, **how)

    whole = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "use_safetensors": True}
    return {
        "unet": read(UNet2DConditionModel, "unet", **whole),
        "vae": read(AutoencoderKL, "vae", **whole),
        "text_encoder": read(CLIPTextModel, "text_encoder", dtype=torch.float32),
        "tokenizer": read(CLIPTokenizer, "tokenizer"),
        "scheduler": read(DDIMScheduler, "scheduler"),
    }


def embedded_card(folder: Path = EMBEDDED) -> dict[str, Any]:
    """Return the embedded base's card: figures, seeds, steps and the digest of every file."""
    try:
        card = json.loads((folder / "card.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"the embedded base's card.json cannot be read ({error})",
            hint="install spf-lora again, or run git checkout -- spf_lora/base/embedded",
        ) from error
    assert isinstance(card, dict)
    return card


def check_embedded(folder: Path = EMBEDDED) -> None:
    """Compare every file of the embedded base with its digest in the card.

    Raises:
        BaseModelError: a file is missing or damaged; it is named.
    """
    for name, wanted in embedded_card(folder)["sha256"].items():
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        if found != wanted:
            raise BaseModelError(
                f"the embedded base is {'damaged' if found else 'incomplete'}: {name}",
                hint="install spf-lora again, or run git checkout -- spf_lora/base/embedded",
            )
