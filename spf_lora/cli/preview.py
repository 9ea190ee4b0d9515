"""The picture beside a trained adapter: base | adapter | difference."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.base.load import Base
    from spf_lora.data.folder import Example
    from spf_lora.evaluate.preview import Comparison, Preview
    from spf_lora.training.clean import Task

_PREVIEW_STEPS = 25


def preview(settings: Recipe, base: "Base", examples: "Sequence[Example]") -> "Preview":
    """Draw what the adapter that is attached to the base adds, and what else it changes."""
    from spf_lora.evaluate.preview import draw_preview

    return draw_preview(base, settings, examples, steps=_PREVIEW_STEPS)


def before_after(settings: Recipe, task: "Task", examples: "Sequence[Example]") -> "Comparison":
    """Draw what an adapter did, and what the cleaned one that is attached to the base does."""
    from spf_lora.evaluate.preview import draw_before_after

    return draw_before_after(
        task.base,
        settings,
        examples,
        task.teacher,
        wordless=task.wordless,
        steps=_PREVIEW_STEPS,
    )


def write_png(picture: Any, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    from spf_lora.atomic import write_bytes

    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue(), overwrite=True)
