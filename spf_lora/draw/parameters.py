"""What a PNG says of how it was drawn, in A1111's words where it has some."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from spf_lora import __version__
from spf_lora.adapters.format.hashes import autov3
from spf_lora.base.load import Base
from spf_lora.draw.infotext import ENTRY, Infotext
from spf_lora.draw.sample import GUIDANCE, STEPS
from spf_lora.draw.schedulers import DDIM, SAMPLERS


@dataclass(frozen=True, kw_only=True)
class How:
    """How pictures are drawn.

    Attributes:
        adapters: files and their strengths.
        seed: of the first picture.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
        sampler: a name of `SAMPLERS`.
        negative: what to lead away from.
        size: width and height in pixels, or None: the base's own.
        start: share of the time steps before adapters act, as written.
        runtime: "exact", "local", where no other app draws so.
        columns: titles of a sheet's columns.
    """

    adapters: Sequence[tuple[Path, float]] = ()
    seed: int = 1
    steps: int = STEPS
    guidance: float = GUIDANCE
    sampler: str = DDIM
    negative: str = ""
    size: tuple[int, int] | None = None
    start: str = "0"
    runtime: Sequence[str] = ()
    columns: Sequence[str] = ()


def infotext(prompt: str, how: How, base: Base) -> Infotext:
    """Return what `spf-lora inspect` and A1111 read from a picture."""
    width, height = how.size or (base.resolution, base.resolution)
    settings = {
        "Steps": str(how.steps),
        "Sampler": SAMPLERS[how.sampler].title,
        "CFG scale": f"{how.guidance:g}",
        "Seed": str(how.seed),
        "Size": f"{width}x{height}",
        "Model": base.name if base.layout in ("embedded", "hub") else Path(base.name).stem,
    }
    if how.adapters:
        hashes = ", ".join(f"{path.stem}: {autov3(path)}" for path, _ in how.adapters)
        settings["Lora hashes"] = hashes
    if how.runtime:
        settings["Runtime"] = ", ".join(how.runtime)
    if how.start != "0":
        settings["Start percent"] = how.start
    if how.columns:
        settings["Columns"] = ", ".join(how.columns)
    settings["Version"] = f"spf-lora {__version__}"
    tags = [(path.stem, strength) for path, strength in how.adapters]
    return Infotext(prompt, how.negative, tags, settings)


def png(picture: Image.Image, text: str = "") -> bytes:
    """Return a PNG, with what `Infotext.text` says where it says something."""
    info = PngInfo()
    if text:
        info.add_text(ENTRY, text) if text.isascii() else info.add_itxt(ENTRY, text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
