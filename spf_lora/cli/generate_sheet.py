"""What `generate` draws: every picture of a sheet once, and what the PNG says about it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.base_match import refuse_other_base
from spf_lora.adapters.format.card import from_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base, load_base
from spf_lora.base.texts import cut_off
from spf_lora.cli import out
from spf_lora.cli.acting import check_local, starts_of
from spf_lora.cli.progress import drawing
from spf_lora.draw.act import Acting, acting, draw
from spf_lora.draw.grid import Cell, Line
from spf_lora.draw.parameters import How, infotext
from spf_lora.draw.prompts import Prompt, asking, taught, without_words, words_of
from spf_lora.draw.sample import Style
from spf_lora.draw.sheet import Row, lay_out
from spf_lora.errors import PromptError
from spf_lora.recipe.schema import Attribute

if TYPE_CHECKING:
    from PIL.Image import Image

_LEAST_PX = 800  # of a sheet with words on it


@dataclass(frozen=True)
class Request:
    """A whole sheet.

    Attributes:
        lines: its rows.
        columns: titles of the columns, or none.
        base: name of the base, and of its tokenizer.
        negative: what to lead away from.
        size: width and height of a picture in pixels, or None: the base's own.
        exact: whether adapters act on their words alone.
        local: whether they act in the control map alone.
    """

    lines: Sequence[Line]
    columns: Sequence[str]
    base: tuple[str, str | None]
    negative: str
    size: tuple[int, int] | None
    exact: bool
    local: bool


def draw_sheet(request: Request) -> "tuple[Image, str]":
    """Return a sheet, and the text that says how its first picture with adapters was drawn.

    Raises:
        SpfError: something of it cannot be drawn as asked; nothing is drawn then.
    """
    every = list(dict.fromkeys(cell for line in request.lines for cell in line.cells))
    adapters = {path: read_adapter(path) for cell in every for path, _ in cell.adapters}
    base = load_base(request.base[0], tokenizer=request.base[1])
    for path, adapter in adapters.items():
        refuse_other_base(from_metadata(adapter.metadata), path, base.id, of=base.name)
    for text in dict.fromkeys([*(cell.prompt for cell in every), request.negative]):
        if lost := cut_off(base.tokenizer, text):
            out.warn(f"the prompt is longer than 77 tokens; this was cut off: {lost!r}")
    size = _latents(request.size, base)
    _check_runtime(request, every, adapters)
    groups: dict[Cell, list[Cell]] = {}
    for cell in every:
        groups.setdefault(replace(cell, prompt="", seed=0), []).append(cell)
    acts = {alike: _acting(alike, adapters, request) for alike in groups}
    pictures: dict[Cell, Image] = {}
    with drawing("drawing") as tell:
        tell(0, len(every))
        for alike, cells in groups.items():

            def count(done: int, before: int = len(pictures)) -> None:
                tell(before + done, len(every))

            drawn = draw(
                base,
                [_asks(cell, adapters, acts[alike]) for cell in cells],
                [cell.seed for cell in cells],
                acts[alike],
                steps=alike.steps,
                guidance=alike.guidance,
                style=Style(alike.sampler, request.negative),
                size=size,
                on_batch=count,
            )
            pictures |= dict(zip(cells, drawn, strict=True))
    titled = bool(request.columns) or any(line.title for line in request.lines)
    rows = [Row([pictures[cell] for cell in line.cells], line.title) for line in request.lines]
    sheet = lay_out(rows, columns=request.columns, least_px=_LEAST_PX if titled else 0)
    first = next((cell for cell in every if cell.adapters), every[0])
    return sheet, infotext(first.prompt, _how(first, request), base).text()


def _latents(size: tuple[int, int] | None, base: Base) -> tuple[int, int] | None:
    """Return height and width of the latents."""
    if size is None:
        return None
    factor = 2 ** (len(base.vae.config.block_out_channels) - 1)
    if size[0] % factor or size[1] % factor:
        wanted = "x".join(str(max(1, round(side / factor)) * factor) for side in size)
        raise PromptError(
            f"{base.name} draws sides that are multiples of {factor} pixels, not "
            f"{size[0]}x{size[1]}",
            hint=f"the nearest is --size {wanted}",
        )
    return size[1] // factor, size[0] // factor


def _check_runtime(request: Request, cells: Sequence[Cell], adapters: dict[Path, Adapter]) -> None:
    """Refuse what --local cannot draw, and tell where a prompt asks for nothing."""
    if not request.local:
        return
    for attribute in (taught(adapter) for adapter in adapters.values()):
        if attribute is not None:
            check_local(attribute)
    adapted = [c for c in cells if c.adapters]
    for cell in adapted:
        if asking(cell.prompt, _attributes(cell, adapters), local=True).within == cell.prompt:
            out.warn("the prompt asks for no adapter: this is the base's picture")
            return


def _asks(cell: Cell, adapters: dict[Path, Adapter], acts: Acting) -> Prompt:
    if cell.unasked:
        return Prompt(without_words(cell.prompt, [taught(adapters[one]) for one in cell.unasked]))
    return asking(cell.prompt, _attributes(cell, adapters), acts.starts, local=acts.local)


def _attributes(cell: Cell, adapters: dict[Path, Adapter]) -> list[Attribute | None]:
    return [taught(adapters[path]) for path, _ in cell.adapters]


def _acting(cell: Cell, adapters: dict[Path, Adapter], request: Request) -> Acting:
    paths = [path for path, _ in cell.adapters]
    own = [adapters[path] for path in paths]
    starts = starts_of(cell.start, len(paths))
    for path, adapter, start in zip(paths, own, starts, strict=True):
        if start and taught(adapter) is None:
            out.warn(f"{path} does not say which words ask for it: they act from the first step")
    needed = zip(own, paths, strict=True) if request.exact or request.local else ()
    words = [words_of(adapter, str(path)) for adapter, path in needed]
    rows = [(one, strength) for one, (_, strength) in zip(own, cell.adapters, strict=True)]
    local = request.local and bool(rows)
    return acting(rows, start_percent=starts, words=words if request.exact else (), local=local)


def _how(cell: Cell, request: Request) -> How:
    named = (("exact", request.exact), ("local", request.local))
    return How(
        adapters=cell.adapters,
        seed=cell.seed,
        steps=cell.steps,
        guidance=cell.guidance,
        sampler=cell.sampler,
        negative=request.negative,
        size=request.size,
        start=cell.start,
        runtime=[name for name, on in named if on],
        columns=request.columns,
    )
