"""The picture beside a trained adapter: base | adapter | difference."""

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.base.load import Base
    from spf_lora.data.folder import Example

_PREVIEWS, _PREVIEW_STEPS = 6, 25


def preview(settings: Recipe, base: "Base", examples: "Sequence[Example]") -> Any:
    """Draw base | adapter | difference for held-out prompts, same noise in a row."""
    from PIL import ImageChops

    from spf_lora.adapters.attach import adapter_off
    from spf_lora.data.captions import full_prompt
    from spf_lora.draw.act import draw
    from spf_lora.draw.sample import contact_sheet

    prompts = _prompts(settings, examples)
    seeds = list(range(len(prompts)))
    with adapter_off(base.unet):
        before = draw(base, prompts, seeds, steps=_PREVIEW_STEPS)
    full_prompts = [full_prompt(p, settings.attribute) for p in prompts]
    after = draw(base, full_prompts, seeds, steps=_PREVIEW_STEPS)
    return contact_sheet(
        [(a, b, ImageChops.difference(a, b)) for a, b in zip(before, after, strict=True)]
    )


def _prompts(settings: Recipe, examples: "Sequence[Example]") -> list[str]:
    """Return held-out portraits' captions, or the data's own base prompts."""
    from spf_lora.data.captions import base_prompt
    from spf_lora.data.worlds.portraits import caption, unbiased

    if settings.training.base == "embedded":
        rng = random.Random(f"held-out {settings.attribute.name}")
        return [caption(unbiased(rng)) for _ in range(_PREVIEWS)]
    return [base_prompt(e.caption, settings.attribute) for e in examples[:_PREVIEWS]]


def write_png(picture: Any, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    from spf_lora.atomic import write_bytes

    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue(), overwrite=True)
