"""How a picture was drawn, as the text in a PNG that A1111 and its heirs write and read back.

It is the entry `parameters`: the prompt with its LoRAs, the negative prompt, then one line of
settings with commas between them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spf_lora.data.decoding import opened
from spf_lora.documents import parse_json
from spf_lora.errors import PictureError

ENTRY = "parameters"
_NEGATIVE = "Negative prompt: "
# bounded and possessive, so that no text takes the square of its length
_TAG = re.compile(r"(?<!\s)\s*+<lora:([^:>]{1,300}+):(-?[0-9.]{1,20}+)(?::[^>]{0,300}+)?>")
_SETTING = re.compile(
    r'(?<![\w /+-])\s*+([\w /+-]{1,100}+):\s*+("(?:\\.|[^"\\]){0,5000}+"|[^,]{0,5000}+)(?:,|$)'
)
_FEWEST_SETTINGS = 3  # a last line with fewer is a part of the prompt
_LONGEST = 1 << 16  # characters


@dataclass(frozen=True)
class Infotext:
    """What a PNG says about how it was drawn.

    Attributes:
        prompt: without the tags of its LoRAs.
        negative: the negative prompt.
        adapters: name and strength of each LoRA.
        settings: "Steps" and so on, as written.
    """

    prompt: str
    negative: str = ""
    adapters: Sequence[tuple[str, float]] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return it as A1111 writes it."""
        tags = "".join(f" <lora:{_name(name)}:{weight:g}>" for name, weight in self.adapters)
        negative = f"\n{_NEGATIVE}{self.negative}" if self.negative else ""
        settings = ", ".join(f"{name}: {_quoted(value)}" for name, value in self.settings.items())
        return f"{self.prompt}{tags}{negative}\n{settings}"


def parse(text: str) -> Infotext:
    """Read what `Infotext.text` or A1111 wrote; what is no setting is prompt."""
    lines = text.strip().splitlines()
    settings: dict[str, str] = {}
    if lines:
        entries = {name.strip(): _unquoted(value) for name, value in _SETTING.findall(lines[-1])}
        if len(entries) >= _FEWEST_SETTINGS:
            settings, lines = entries, lines[:-1]
    start = next((i for i, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    prompt, negative = "\n".join(lines[:start]), "\n".join(lines[start:])
    return Infotext(
        _TAG.sub("", prompt).strip(),
        negative.removeprefix(_NEGATIVE).strip(),
        tuple((name, float(weight)) for name, weight in _TAG.findall(prompt) if _number(weight)),
        settings,
    )


def read_infotext(path: Path) -> Infotext | None:
    """Read what a PNG says about how it was drawn, or None if it says nothing.

    Raises:
        PictureError: it cannot be read as a picture.
    """
    try:
        with opened(path) as (picture, _):
            picture.load()  # the text may stand behind the pixels
            text = picture.info.get(ENTRY)
    # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, struct.error.
    except Exception as error:
        raise PictureError(
            f"{path} cannot be read as a picture: {error}", hint="give a PNG that an app has drawn"
        ) from error
    return parse(text[:_LONGEST]) if isinstance(text, str) else None


def _name(name: str) -> str:
    return re.sub(r"[:<>]", "_", name)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value.strip()
    try:
        return str(parse_json(value))
    except ValueError:
        return value.strip('"')


def _number(text: str) -> bool:
    return re.fullmatch(r"-?(?:\d{1,9}\.?\d{0,9}|\.\d{1,9})", text) is not None
