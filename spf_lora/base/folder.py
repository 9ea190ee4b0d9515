"""A base in diffusers layout: one folder a part, each with its config."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from spf_lora import documents
from spf_lora.base import families
from spf_lora.base.ldm_names import text_name, vae_attention
from spf_lora.base.parts import Parts, make_scheduler
from spf_lora.base.tensors import Tensors, fill, read_tensors
from spf_lora.errors import BaseModelError

MODELS = ("unet", "vae", "text_encoder")
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>\w+))?(?:-\d{5}-of-\d{5})?\.safetensors"
)
_MOST_BYTES = 1 << 20  # of a config
_BEST_FIRST = ("", "fp32", "fp16", "bf16")


@contextmanager
def from_configs(name: str) -> Iterator[None]:
    """Refuse a base when something cannot be made from its configs.

    Raises:
        BaseModelError: the block failed; diffusers and transformers raise almost anything there.
    """
    try:
        yield
    except Exception as error:
        missing = isinstance(error, KeyError)
        what = f"{error} is missing" if missing else _first_line(error)
        raise BaseModelError(
            f"the base {name} cannot be made from its configs: {what}",
            hint="fetch the folder again, whole",
        ) from error


def read_folder_base(folder: Path, name: str, tokenizer: Path | None = None) -> Parts:
    """Read a folder in diffusers layout.

    Args:
        folder: holds model_index.json.
        name: what the user called it.
        tokenizer: another tokenizer than the folder's own.

    Raises:
        BaseModelError: it is another family's, pickled, incomplete or damaged.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    families.check_class(name, read_json(folder / "model_index.json", name))
    config = read_json(folder / "unet" / "config.json", name)
    check_unet_config(name, config)
    schedule = read_json(folder / "scheduler" / "scheduler_config.json", name)
    families.check_prediction(name, schedule.get("prediction_type", "epsilon"))
    vae_config = read_json(folder / "vae" / "config.json", name)
    text = read_json(folder / "text_encoder" / "config.json", name)
    with from_configs(name):
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config)
            vae = AutoencoderKL.from_config(vae_config)
        encoder = CLIPTextModel(CLIPTextConfig(**text))
        scheduler = make_scheduler(schedule)
        if not isinstance(unet.config.sample_size, int):
            raise TypeError("the U-Net's sample_size is no whole number")
    return Parts(
        unet=fill(unet, _part(folder, "unet", name), "U-Net"),
        vae=fill(vae, {vae_attention(k): v for k, v in _part(folder, "vae", name).items()}, "VAE"),
        text_encoder=fill(
            encoder, text_tensors(_part(folder, "text_encoder", name)), "text encoder"
        ),
        tokenizer=read_tokenizer(tokenizer or folder / "tokenizer"),
        scheduler=scheduler,
    )


def check_unet_config(name: str, config: dict[str, Any]) -> None:
    """Refuse the U-Net of another family by its config.

    Raises:
        BaseModelError: it is one.
    """
    families.check_unet(
        name,
        channels=config.get("in_channels", 4),
        text_width=config.get("cross_attention_dim", 0),
        distilled=config.get("time_cond_proj_dim") is not None,
    )


def text_tensors(tensors: Tensors) -> Tensors:
    """Return a text encoder's tensors by transformers 5's names, without the position numbers."""
    return {text_name(k): v for k, v in tensors.items() if not k.endswith("position_ids")}


def weight_files(names: Iterable[str], part: str) -> list[str]:
    """Return which of a folder's files hold a part's weights, the most exact variant first.

    Args:
        names: relative to the folder, with forward slashes.
        part: such as "unet".

    Returns:
        One file, or all shards of one; empty if there is none.
    """
    variants: dict[str, list[str]] = {}
    for path in sorted(names):
        room, _, file = path.rpartition("/")
        if room == part and (match := _WEIGHTS.fullmatch(file)):
            variants.setdefault(match["variant"] or "", []).append(path)
    ranked = sorted(variants, key=lambda v: (_BEST_FIRST.index(v) if v in _BEST_FIRST else 9, v))
    return variants[ranked[0]] if ranked else []


def _part(folder: Path, part: str, name: str) -> Tensors:
    names = [f"{part}/{p.name}" for p in (folder / part).glob("*") if p.is_file()]
    files = weight_files(names, part)
    if not files and any(n.endswith(families.PICKLES) for n in names):
        raise families.pickled(f"{name}, part {part},", "there only as a pickle")
    if not files:
        raise BaseModelError(
            f"the base {name} has no weights of the {part}: {folder / part} holds no "
            "diffusion_pytorch_model.safetensors or model.safetensors",
            hint="fetch the folder again, whole",
        )
    return read_tensors(folder / file for file in files)


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read one config.

    Raises:
        BaseModelError: it is missing or damaged.
    """
    try:
        table = documents.read_json(path, most_bytes=_MOST_BYTES)
        if not isinstance(table, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"the base {name} cannot be loaded: {path} is missing or damaged",
            hint="it needs model_index.json and the folders unet, vae, text_encoder, tokenizer and "
            "scheduler, as diffusers writes them",
        ) from error
    return table


def read_tokenizer(folder: Path) -> Any:
    """Read a CLIP tokenizer from a folder, or from the `tokenizer` folder inside it.

    Raises:
        BaseModelError: there is none.
    """
    from transformers import CLIPTokenizer

    inner = folder / "tokenizer"
    place = inner if inner.is_dir() else folder
    try:
        if not any((place / n).is_file() for n in ("vocab.json", "tokenizer.json")):
            raise OSError("it holds neither vocab.json nor tokenizer.json")
        return CLIPTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing more special
        raise BaseModelError(
            f"no tokenizer can be read from {folder}: {_first_line(error)}",
            hint="--tokenizer names a folder with vocab.json and merges.txt, or tokenizer.json, or "
            "a base that has one",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
