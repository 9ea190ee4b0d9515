"""Portraits drawn once: another training of the same people reads them from the cache."""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image

from spf_lora.data.cache import TensorCache, content_key
from spf_lora.data.worlds.world import SIZE, Draw, Portrait, World

_DRAWN_BY = ("dicebear-core", "dicebear-styles", "resvg-py", "pillow")


def kept_in(cache: TensorCache | None, world: World) -> Draw:
    """Return what draws a world's portrait, or finds it by all that decides its pixels."""
    if cache is None:
        return world.render
    drawn_by = [f"{name} {version(name)}" for name in _DRAWN_BY]

    def draw(portrait: Portrait, attributes: Sequence[str] = ()) -> Image.Image:
        asked = sorted(world.drawing(portrait, attributes).items())

        def make() -> torch.Tensor:
            return torch.from_numpy(np.array(world.render(portrait, attributes)))

        key = content_key("portrait", *drawn_by, f"{world.style} {SIZE} {asked!r}")
        return Image.fromarray(cache.get(key, make).numpy())

    return draw
