"""Pictures laid out on one sheet with words: what a column shows, what a row was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_GAP, _LETTER, _SMALL = 8, 16, 13  # pixels
_INK, _GREY = (25, 25, 25), (90, 90, 90)
_TONES = {"": _GREY, "good": (20, 110, 50), "bad": (180, 20, 20)}
_BAD_FRAME = 4  # pixels of the frame around a row that failed
_MOST_LINES = 3


@dataclass(frozen=True)
class Row:
    """Pictures side by side.

    Attributes:
        pictures: equally large.
        title: above them, such as the prompt.
        note: below the title, such as a verdict.
        tone: "good" or "bad" colours the note; "bad" also frames the row.
    """

    pictures: Sequence[Image.Image]
    title: str = ""
    note: str = ""
    tone: str = ""


def lay_out(
    rows: Sequence[Row], *, columns: Sequence[str] = (), title: str = "", least_px: int = 0
) -> Image.Image:
    """Return one picture of all rows.

    Small pictures are enlarged by a whole number, pixel by pixel, so that nothing is made up.

    Args:
        rows: at least one, with as many pictures as there are columns, or fewer.
        columns: titles of the columns.
        title: above all.
        least_px: least width of the sheet.
    """
    across = max(len(row.pictures) for row in rows)
    width, height = rows[0].pictures[0].size
    scale = 1
    while across * (width * scale + _GAP) + _GAP < least_px:
        scale += 1
    cell = (width * scale, height * scale)
    wide = across * (cell[0] + _GAP) + _GAP
    room = wide - 2 * _GAP
    heads = [_wrapped(title, _LETTER, room)] if title else []
    texts = [(_wrapped(r.title, _SMALL, room), _wrapped(r.note, _SMALL, room)) for r in rows]
    high = _GAP + sum(_height(lines, _LETTER) for lines in heads)
    high += _columns_height(columns, cell[0])
    high += sum(_height([*a, *b], _SMALL) + cell[1] + 2 * _GAP for a, b in texts)
    out = Image.new("RGB", (wide, high), "white")
    pen = ImageDraw.Draw(out)
    y = _GAP
    for lines in heads:
        y = _write(pen, lines, _GAP, y, _LETTER, _INK)
    y = _write_columns(pen, columns, cell[0], y)
    for row, (names, notes) in zip(rows, texts, strict=True):
        y = _write(pen, names, _GAP, y, _SMALL, _INK)
        y = _write(pen, notes, _GAP, y, _SMALL, _TONES[row.tone])
        if row.tone == "bad":
            right = len(row.pictures) * (cell[0] + _GAP) + _GAP - 1
            pen.rectangle((0, y, right, y + cell[1] + 2 * _GAP - 1), fill=_TONES["bad"])
            inside = (_BAD_FRAME, y + _BAD_FRAME, right - _BAD_FRAME)
            pen.rectangle((*inside, y + cell[1] + 2 * _GAP - 1 - _BAD_FRAME), fill="white")
        for place, picture in enumerate(row.pictures):
            large = picture.convert("RGB").resize(cell, Image.Resampling.NEAREST)
            out.paste(large, (_GAP + place * (cell[0] + _GAP), y + _GAP))
        y += cell[1] + 2 * _GAP
    return out


def _write_columns(pen: ImageDraw.ImageDraw, columns: Sequence[str], cell: int, y: int) -> int:
    for place, column in enumerate(columns):
        lines = _wrapped(column, _LETTER, cell)
        _write(pen, lines, _GAP + place * (cell + _GAP), y, _LETTER, _INK)
    return y + _columns_height(columns, cell)


def _columns_height(columns: Sequence[str], cell: int) -> int:
    return max((_height(_wrapped(column, _LETTER, cell), _LETTER) for column in columns), default=0)


def _write(
    pen: ImageDraw.ImageDraw,
    lines: Sequence[str],
    x: int,
    y: int,
    size: int,
    colour: tuple[int, int, int],
) -> int:
    for line in lines:
        pen.text((x, y), line, fill=colour, font=ImageFont.load_default(size))
        y += _height([line], size)
    return y


def _height(lines: Sequence[str], size: int) -> int:
    return len(lines) * (size + size // 3)


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of a width, at most three; what is too long ends in dots."""
    font = ImageFont.load_default(size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"{lines[_MOST_LINES - 1]} ..."]
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while len(line) > 4 and font.getlength(line) > width:
        line = f"{line[:-4].rstrip('.')}..."
    return line
