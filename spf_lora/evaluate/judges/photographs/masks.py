"""Mask files: where an attribute may act on photographs, drawn by hand or by another program."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from PIL import Image

from spf_lora.data.pictures import open_picture
from spf_lora.errors import ScorerError

_HINT = "a mask is a grey PNG of the picture's shape: white where the attribute may act"


def read_masks(folder: Path, names: Sequence[str], side: int) -> torch.Tensor:
    """Return the region of every picture, (names, 1, side, side), 1 where the attribute may act.

    Args:
        folder: holds NAME.png for each name, or one `all.png` for every picture.
        names: what the pictures are called.
        side: side of the pictures in pixels; masks of another size are scaled.

    Raises:
        ScorerError: masks are missing, damaged, not square, or wholly black or white.
    """
    shared = folder / "all.png"
    if shared.is_file():
        return _read(shared, side).expand(len(names), -1, -1, -1)
    missing = [name for name in names if not (folder / f"{name}.png").is_file()]
    if missing:
        count = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ScorerError(
            f"{folder} holds no mask {missing[0]}.png{count}, and no all.png", hint=_HINT
        )
    return torch.stack([_read(folder / f"{name}.png", side) for name in names])


def _read(path: Path, side: int) -> torch.Tensor:
    try:
        picture = open_picture(path)
    except ValueError as error:
        raise ScorerError(f"{path} cannot be read as a picture ({error})", hint=_HINT) from error
    wide, high = picture.size
    if wide != high:
        raise ScorerError(f"{path} is {wide} x {high}, not square", hint=_HINT)
    grey = picture.image.convert("L")
    scaled = numpy.asarray(grey.resize((side, side), Image.Resampling.BOX))
    region = torch.from_numpy((scaled >= 128).astype("float32"))
    if region.min() == region.max():
        colour = "white" if region.max() else "black"
        raise ScorerError(f"{path} is wholly {colour}, so it marks nothing", hint=_HINT)
    return region[None]
