"""Where an attribute may act: the region in which two drawings of one person differ."""

import numpy as np
from PIL import Image, ImageFilter

from spf_lora.data.worlds.world import SIZE

DILATION = 2  # pixels of 64 by which the renderer's region is widened
_CHANGED = 12  # of 255: smallest change of a colour that counts for the region


def changed_region(plain: Image.Image, right: Image.Image) -> Image.Image:
    """Return where two drawings differ, dilated, as a picture that is white there."""
    one, other = (np.asarray(picture, dtype=np.int16) for picture in (plain, right))
    mask = (np.abs(one - other).max(axis=2) > _CHANGED).astype(np.uint8) * 255
    reach = max(1, round(DILATION * plain.width / SIZE))
    return Image.fromarray(mask).filter(ImageFilter.MaxFilter(2 * reach + 1)).convert("RGB")
