"""Pictures as a pretrained vision model wants them, with torch alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from spf_lora.documents import read_json
from spf_lora.errors import ScorerError

_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as the files hold them


@dataclass(frozen=True)
class Preparation:
    """What `preprocessor_config.json` asks for.

    Attributes:
        size: (height, width) to stretch to, or the length of the shorter side.
        crop: side of the square cut from the middle; None cuts nothing.
        mean: subtracted from each colour in [0, 1].
        std: divided by, after that.
        mode: how `torch.nn.functional.interpolate` calls the filter.
    """

    size: tuple[int, int] | int
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (batch, 3, height, width) for the model, from pixels in [-1, 1]."""
        unit = (pixels.float() + 1) / 2
        unit = functional.interpolate(
            unit, self._target(unit), mode=self.mode, align_corners=False, antialias=True
        ).clamp(0, 1)
        if self.crop is not None:
            top, left = ((side - self.crop) // 2 for side in unit.shape[-2:])
            unit = unit[..., top : top + self.crop, left : left + self.crop]
        mean = torch.tensor(self.mean, device=unit.device)[:, None, None]
        std = torch.tensor(self.std, device=unit.device)[:, None, None]
        return (unit - mean) / std

    def _target(self, unit: torch.Tensor) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        height, width = unit.shape[-2:]
        scale = self.size / min(height, width)
        return round(height * scale), round(width * scale)


def read_preparation(folder: Path) -> Preparation:
    """Read `preprocessor_config.json` as transformers writes it.

    Raises:
        ScorerError: it cannot be read, or asks for something unknown.
    """
    path = folder / "preprocessor_config.json"
    try:
        config = read_json(path, most_bytes=1 << 20)
        crop = _crop(config.get("crop_size")) if config.get("do_center_crop") else None
        return Preparation(
            size=_size(config["size"]),
            crop=crop,
            mean=_colour(config["image_mean"]),
            std=_colour(config["image_std"]),
            mode=_FILTERS[config.get("resample", 2)],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScorerError(
            f"{path} does not say how pictures are prepared ({error!r})",
            hint="fetch the model again, with this file",
        ) from error


def _size(raw: Any) -> tuple[int, int] | int:
    if isinstance(raw, int):
        return raw
    if "shortest_edge" in raw:
        return int(raw["shortest_edge"])
    return int(raw["height"]), int(raw["width"])


def _crop(raw: Any) -> int:
    return int(raw) if isinstance(raw, int) else int(raw["height"])


def _colour(raw: Any) -> tuple[float, ...]:
    red, green, blue = map(float, raw)
    return red, green, blue


def read_pretrained(kind: Any, folder: Path, what: str) -> Any:
    """Load a model that transformers wrote, whole and frozen.

    Args:
        kind: the model's class.
        folder: holds `config.json` and `model.safetensors`.
        what: a few words for the error.

    Raises:
        ScorerError: the files are damaged, or hold another model: transformers would leave what
            is missing random and only warn.
    """
    from safetensors import SafetensorError

    try:
        model, loading = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise not_loaded(folder, what, str(error).splitlines()[0]) from error
    if loading["missing_keys"]:
        raise not_loaded(folder, what, f"it lacks {sorted(loading['missing_keys'])[0]}")
    return model.float().requires_grad_(False).eval()


def not_loaded(folder: Path, what: str, reason: str) -> ScorerError:
    """Return the error for files that are there but hold no such model."""
    return ScorerError(
        f"{folder} cannot be loaded as {what}: {reason}",
        hint="fetch the model again, or name another folder",
    )
