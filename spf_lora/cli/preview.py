"""The picture beside a trained adapter: base | adapter | difference."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spf_lora.recipe import Recipe

if TYPE_CHECKING:
    from spf_lora.base.load import Base

_PREVIEWS, _PREVIEW_STEPS = 6, 25


def preview(settings: Recipe, base: "Base", examples: Any) -> Any:
    """Draw base | adapter | difference for held-out prompts, same noise in a row."""
    from PIL import ImageChops

    from spf_lora.adapters.attach import adapter_off
    from spf_lora.base.sample import contact_sheet, sample
    from spf_lora.data.captions import full_prompt
    from spf_lora.training.build import preview_prompts

    prompts = preview_prompts(settings, examples, _PREVIEWS)
    seeds = list(range(len(prompts)))
    with adapter_off(base.unet):
        before = sample(base, prompts, seeds, steps=_PREVIEW_STEPS)
    asked = [full_prompt(p, settings.attribute) for p in prompts]
    after = sample(base, asked, seeds, steps=_PREVIEW_STEPS)
    return contact_sheet(
        [(a, b, ImageChops.difference(a, b)) for a, b in zip(before, after, strict=True)]
    )


def write_png(picture: Any, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    from spf_lora.atomic import write_bytes

    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue(), overwrite=True)
