"""What a base asks of pictures and prompts, read from its configs: no weights, no network."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spf_lora.base.texts import cut_off
from spf_lora.documents import read_json

_SD15_RESOLUTION, _SD15_STEP = 512, 64
_LARGEST, _MOST_BYTES = 8192, 1 << 20  # pixels of a side; bytes of a config
_ROOM = 75  # tokens of a prompt beside start and end
# CLIP's own split into words; most English words are one token, so a count of them is a floor.
_WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d|[^\s\w]+", re.IGNORECASE)


@dataclass(frozen=True)
class Outline:
    """Facts of a base that need no weights.

    Attributes:
        resolution: side of the pictures it was trained on, in pixels.
        step: sides of pictures must be multiples of it, in pixels.
        cut_off: returns the end of a prompt that its text encoder does not read, or "".
        counts_tokens: whether `cut_off` counts tokens, or words for want of a tokenizer.
    """

    resolution: int
    step: int
    cut_off: Callable[[str], str]
    counts_tokens: bool


def picture_step(vae_blocks: int, unet_blocks: int) -> int:
    """Return what sides of pictures must be multiples of: every level but the first halves."""
    return int(2 ** (vae_blocks - 1) * 2 ** (unet_blocks - 1))


def read_outline(folder: Path) -> Outline:
    """Read a base's outline; what is no folder in diffusers layout is taken for SD1.5's.

    Args:
        folder: the base's folder, its checkpoint file, or anything else that names it.
    """
    try:
        unet, vae = (_config(folder / part) for part in ("unet", "vae"))
        step = picture_step(len(vae["block_out_channels"]), len(unet["block_out_channels"]))
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        resolution = int(unet["sample_size"]) * factor
        if not 1 <= resolution <= _LARGEST or not 1 <= step <= _LARGEST:
            raise ValueError("no picture has such sides")
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        resolution, step = _SD15_RESOLUTION, _SD15_STEP
    beside = next(
        (p for p in (folder / "tokenizer", folder.parent / "tokenizer") if p.is_dir()), None
    )
    if beside is None:
        return Outline(resolution, step, words_cut_off, counts_tokens=False)
    from spf_lora.base.folder import read_tokenizer

    tokenizer = read_tokenizer(beside)
    return Outline(resolution, step, lambda text: cut_off(tokenizer, text), counts_tokens=True)


def words_cut_off(prompt: str) -> str:
    """Return the end of a prompt that surely does not fit into 77 tokens, counted in words."""
    words = list(_WORDS.finditer(prompt))
    return prompt[words[_ROOM].start() :].strip(" ,") if len(words) > _ROOM else ""


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json", most_bytes=_MOST_BYTES)
    if not isinstance(config, dict):
        raise TypeError("a config is a JSON object")
    return config
