"""Grids of pictures: what differs from column to column and from row to row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spf_lora.adapters.strength import HIGHEST, LOWEST, split_strength
from spf_lora.draw.schedulers import check_sampler
from spf_lora.errors import PromptError
from spf_lora.registry.names import resolve
from spf_lora.strict import did_you_mean

NO_ADAPTER = "none"
MOST_VALUES = 64  # of an axis


@dataclass(frozen=True)
class Cell:
    """All that decides one picture of a grid.

    Attributes:
        prompt: what is asked for.
        seed: of the noise.
        adapters: files and their strengths.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
        sampler: a name of `SAMPLERS`.
        start: share of the steps before adapters act.
        unasked: adapters whose words are left out of the prompt.
    """

    prompt: str
    seed: int
    adapters: tuple[tuple[Path, float], ...] = ()
    steps: int = 25
    guidance: float = 3.0
    sampler: str = "ddim"
    start: str = "0"
    unasked: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Axis:
    """What a grid varies.

    Attributes:
        name: a name of `AXES`.
        values: as the user wrote them, also the titles.
        cells: for each value, what makes a cell have it.
    """

    name: str
    values: tuple[str, ...]
    cells: tuple[Callable[[Cell], Cell], ...]

    def titles(self) -> tuple[str, ...]:
        """Return what stands above the columns or rows."""
        return tuple(
            value if self.name == "adapter" else f"{self.name} {value}" for value in self.values
        )


def _strength(text: str) -> Callable[[Cell], Cell]:
    value = _number(text, "strength", LOWEST, HIGHEST)
    return lambda cell: replace(cell, adapters=tuple((path, value) for path, _ in cell.adapters))


def _adapter(text: str) -> Callable[[Cell], Cell]:
    if text == NO_ADAPTER:
        return lambda cell: replace(cell, adapters=())
    name, strength = split_strength(text)
    path = resolve(name)
    return lambda cell: replace(cell, adapters=((path, strength),))


def _whole(key: str, low: int, high: int) -> Callable[[str], Callable[[Cell], Cell]]:
    def read(text: str) -> Callable[[Cell], Cell]:
        value = _number(text, key, low, high)
        if value != int(value):
            raise PromptError(f"{key} {text} is no whole number", hint=f"write it like {key}=1,2,3")
        return lambda cell: _with(cell, key, int(value))

    return read


def _guidance(text: str) -> Callable[[Cell], Cell]:
    value = _number(text, "guidance", 0, 50)
    return lambda cell: replace(cell, guidance=value)


def _sampler(text: str) -> Callable[[Cell], Cell]:
    check_sampler(text)
    return lambda cell: replace(cell, sampler=text)


def _start(text: str) -> Callable[[Cell], Cell]:
    _number(text, "start", 0, 0.999)
    return lambda cell: replace(cell, start=text)


AXES: dict[str, Callable[[str], Callable[[Cell], Cell]]] = {
    "strength": _strength,
    "adapter": _adapter,
    "seed": _whole("seed", 0, 2**63),
    "steps": _whole("steps", 1, 1000),
    "guidance": _guidance,
    "sampler": _sampler,
    "start": _start,
}


def parse_axis(text: str) -> Axis:
    """Read "strength=0,0.5,1".

    Raises:
        SpfError: it cannot be read, or a value is none of its axis.
    """
    name, equals, listed = text.partition("=")
    name, values = name.strip(), tuple(v.strip() for v in listed.split(",") if v.strip())
    if not equals or not values or len(values) > MOST_VALUES:
        raise PromptError(
            f"the grid {text!r} cannot be read", hint="write it like --grid strength=0,0.5,1"
        )
    if name not in AXES:
        raise PromptError(
            f"a grid cannot vary {name!r}{did_you_mean(name, AXES)}",
            hint=f"it varies one of: {', '.join(AXES)}",
        )
    return Axis(name, values, tuple(AXES[name](value) for value in values))


def parse_axes(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Read the axes of a grid: columns first, then rows.

    Raises:
        SpfError: one cannot be read, there are more than two, or two of the same.
    """
    axes = tuple(parse_axis(text) for text in texts)
    if len(axes) > 2 or len({axis.name for axis in axes}) < len(axes):
        raise PromptError(
            "a grid has columns and rows, which vary two different things",
            hint="write it like --grid strength=0,0.5,1 --grid adapter=beard,hat",
        )
    return axes


@dataclass(frozen=True)
class Line:
    """One row of a sheet: its title and its pictures."""

    title: str
    cells: tuple[Cell, ...]


COLUMNS = 8  # pictures side by side where nothing is varied


def lines_of(
    prompts: Sequence[str],
    cell: Cell,
    count: int,
    axes: Sequence[Axis] = (),
    *,
    compare: bool = False,
    local: bool = False,
) -> list[Line]:
    """Return the rows of a sheet.

    Args:
        prompts: each has rows of its own.
        cell: what all pictures share.
        count: pictures of each prompt, one seed each; of a grid, the first seed's alone.
        axes: what varies from column to column, and from row to row.
        compare: put the base's pictures above.
        local: these are of the prompts without the adapters' words, which local drawing keeps.
    """
    lines = []
    for prompt in prompts:
        named = prompt if len(prompts) > 1 else ""
        one = replace(cell, prompt=prompt)
        if axes:
            lines += _grid(one, named, axes, compare=compare, local=local)
            continue
        seeds = [replace(one, seed=one.seed + index) for index in range(count)]
        for start in range(0, count, COLUMNS):
            row = tuple(seeds[start : start + COLUMNS])
            lines += _compared(named, row, compare=compare, local=local)
    return lines


def _grid(
    cell: Cell, named: str, axes: Sequence[Axis], *, compare: bool, local: bool
) -> list[Line]:
    across, *rest = axes
    down = rest[0] if rest else None
    lines = []
    for place, title in enumerate(down.titles() if down else ("",)):
        own = [(down, place)] if down else []
        cells = tuple(
            _applied(cell, [(across, index), *own]) for index in range(len(across.values))
        )
        text = ": ".join(part for part in (named, title) if part)
        lines += _compared(text, cells, compare=compare and place == 0, local=local)
    return lines


def _applied(cell: Cell, chosen: Sequence[tuple[Axis, int]]) -> Cell:
    for axis, index in sorted(chosen, key=lambda one: one[0].name == "strength"):
        cell = axis.cells[index](cell)  # which adapter, before how strongly
    return cell


def _compared(title: str, cells: tuple[Cell, ...], *, compare: bool, local: bool) -> list[Line]:
    if not compare:
        return [Line(title, cells)]
    alone = tuple(
        replace(cell, adapters=(), unasked=tuple(path for path, _ in cell.adapters if local))
        for cell in cells
    )
    base, how = ("base, without the words", ", drawn locally") if local else ("base", "")
    named = cells[0].adapters
    adapters = " + ".join(f"{path.stem} {strength:g}" for path, strength in named) or "the same"
    of = f"{title}: " if title else ""
    return [Line(f"{of}{base}", alone), Line(title or f"with {adapters}{how}", cells)]


def _with(cell: Cell, key: str, value: Any) -> Cell:
    return replace(cell, **{key: value})


def _number(text: str, what: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise PromptError(
            f"{what} {text!r} is no number from {low:g} to {high:g}",
            hint=f"write it like --grid {what}=A,B,C",
        )
    return value
