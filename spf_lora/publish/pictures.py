"""The pictures of a model card: of a report, of the user, or the preview beside the adapter."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from spf_lora.data.decoding import opened
from spf_lora.draw.infotext import read_infotext
from spf_lora.draw.sheet import Row, lay_out
from spf_lora.errors import MeasureError, PictureError
from spf_lora.evaluate.gallery import read_picture
from spf_lora.evaluate.result import Draw, Result
from spf_lora.publish.subject import Subject
from spf_lora.registry.names import PICTURE

MOST = 4
_LEAST_PX, _MOST_PX = 512, 2048
COLUMNS = ("base, not asked", "adapter, asked")


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture of a card.

    Attributes:
        picture: as it is published, without any entry of its file.
        prompt: what it was drawn from, "" if that is not known.
        alone: the adapter's own picture, for a manager's list.
    """

    picture: Image.Image
    prompt: str
    alone: Image.Image


def pairs(result: Result) -> list[Shown]:
    """Return base beside adapter for the first prompts of a report: none is chosen.

    Raises:
        MeasureError: a picture is no longer in the cache, or the report does not name it.
    """
    assert result.gallery is not None
    first = {draw.case: draw for draw in reversed(result.at(result.main))}
    shown = []
    for case in sorted(first)[:MOST]:
        before, after = (
            read_picture(result.gallery, _key(first[case], which)) for which in ("I0", "I1")
        )
        sheet = lay_out([Row([before, after])], columns=COLUMNS, least_px=_LEAST_PX)
        alone = lay_out([Row([after])], least_px=_LEAST_PX)
        shown.append(Shown(sheet, result.cases[case].prompt, alone))
    return shown


def _key(draw: Draw, which: str) -> str:
    """Return a picture's key; a report may come from others, and no name in it is a path."""
    key = draw.pictures.get(which, "")
    if not re.fullmatch("[0-9a-f]{40}", key):
        raise MeasureError(
            f"the report does not name its picture {which}",
            hint="make it again with spf-lora evaluate; its pictures are in the cache",
        )
    return key


def given(paths: Sequence[Path]) -> list[Shown]:
    """Return the user's pictures; a PNG of A1111 or ComfyUI's kind says its prompt.

    Raises:
        PictureError: one is no picture, or too large.
    """
    shown = []
    for path in paths:
        try:
            with opened(path) as (picture, _):
                picture.thumbnail((_MOST_PX, _MOST_PX))
                # a new picture: what the file says besides its pixels stays behind
                pixels = Image.new("RGB", picture.size, "white")
                pixels.paste(picture.convert("RGB"))
        # Pillow's decoders raise almost anything on damaged files.
        except Exception as error:
            raise PictureError(
                f"{path} cannot be read as a picture: {error}", hint="give a PNG or JPEG"
            ) from error
        infotext = read_infotext(path)
        shown.append(Shown(pixels, infotext.prompt if infotext else "", pixels))
    return shown


def pictures_of(subject: Subject, result: Result | None, paths: Sequence[Path]) -> list[Shown]:
    """Return what the card shows: of the report, else the user's, else what lies beside.

    Raises:
        PictureError: there is none.
    """
    shown = pairs(result) if result is not None else []
    beside = subject.path.with_suffix(PICTURE)
    more = list(paths) or ([beside] if beside.is_file() and not shown else [])
    if not shown and not more:
        raise PictureError(
            f"there are no pictures of {subject.name}",
            hint=f"spf-lora evaluate {subject.name}, then --report out/reports/{subject.name}/"
            "report.json; or --picture FILE",
        )
    return [*shown, *given(more)]
