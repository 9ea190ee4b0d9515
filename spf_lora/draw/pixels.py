"""Pictures as tensors and back."""

import numpy as np
import torch
from PIL import Image


def pixels_of(picture: Image.Image) -> torch.Tensor:
    """Return (3, height, width) in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def pictures_of(pixels: torch.Tensor) -> list[Image.Image]:
    """Return the pictures of (batch, 3, height, width) in [-1, 1]; what is beyond is clipped."""
    eight_bit = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    rows: np.ndarray = eight_bit.permute(0, 2, 3, 1).cpu().numpy()  # (batch, h, w, 3)
    return [Image.fromarray(row) for row in rows]
