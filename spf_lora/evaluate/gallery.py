"""Pictures by what they are made of: drawn once, found again by every later report.

A picture's key is the digest of all that decides it, so a second evaluation draws nothing and a
killed one goes on. Files are written beside and renamed: two processes can share a folder.
"""

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from spf_lora.atomic import write_bytes
from spf_lora.errors import MeasureError, OutputError

_FORMAT = 1  # raise it when the same recipe comes to draw another picture


@dataclass(frozen=True)
class Ingredients:
    """All that decides a drawn picture.

    Attributes:
        model: digest of the base with its VAE, and the side of its pictures.
        adapter: content id, "" for none.
        strength: of the adapter; 0 for none.
        prompt: what is asked for.
        negative: the prompt that guidance leads away from.
        seed: of the noise.
        sampler: its name.
        steps: how many.
        guidance: scale of classifier-free guidance.
        starts: share of the time steps before each adapter acts; none if all act from the first.
        before: other prompts, and the share of the time steps until which each is drawn.
        exact: the words that ask for each adapter, if it acts on them alone.
        within: the prompt whose picture this one leaves in the control map only.
        each: prompts that ask for one attribute each, whose maps are joined, and its start.
    """

    model: str
    adapter: str
    strength: float
    prompt: str
    negative: str
    seed: int
    sampler: str
    steps: int
    guidance: float
    starts: tuple[float, ...] = ()
    before: tuple[tuple[str, float], ...] = ()
    exact: tuple[str, ...] = ()
    within: str | None = None
    each: tuple[tuple[str, float], ...] = ()

    def key(self) -> str:
        """Return 40 hex digits; an adapter at strength 0 is no adapter."""
        parts = asdict(self)
        if not self.adapter or self.strength == 0:
            parts |= {
                "adapter": "",
                "strength": 0.0,
                "starts": (),
                "before": (),
                "exact": (),
                "within": None,
                "each": (),
            }
        for later in ("starts", "before", "exact", "within", "each"):
            if not parts[later]:  # pictures drawn before these were known keep their keys
                del parts[later]
        text = json.dumps([_FORMAT, parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


def cache_folder() -> Path:
    """Return where pictures are kept: `SPF_LORA_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("SPF_LORA_CACHE")
    if chosen:
        return Path(chosen) / "pictures"
    from platformdirs import user_cache_path

    return user_cache_path("spf-lora") / "pictures"


def picture_path(folder: Path, key: str) -> Path:
    """Return where a picture lies."""
    return folder / key[:2] / f"{key}.png"


def read_picture(folder: Path, key: str) -> Image.Image:
    """Read a picture.

    Raises:
        MeasureError: it is not there, or damaged.
    """
    try:
        with Image.open(picture_path(folder, key)) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise MeasureError(
            f"picture {key} is not in the cache {folder}, or damaged",
            hint="run spf-lora evaluate again with the same words: it draws what is missing",
        ) from error


def has_picture(folder: Path, key: str) -> bool:
    """Tell whether a whole picture is there; a damaged file counts as missing."""
    if not picture_path(folder, key).is_file():
        return False
    try:
        read_picture(folder, key)
    except MeasureError:
        return False
    return True


def write_picture(folder: Path, key: str, picture: Image.Image) -> None:
    """Keep a picture; whoever else wrote the same one wrote the same pixels.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    path = picture_path(folder, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the picture cache {folder} cannot be made: {error.strerror}",
            hint="set SPF_LORA_CACHE to a folder you can write",
        ) from error
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue(), overwrite=True)


def write_content(folder: Path, picture: Image.Image) -> str:
    """Keep a picture that was not drawn by the model, under the digest of its pixels."""
    shape = f"{picture.mode} {picture.size} "
    key = hashlib.sha256(shape.encode() + picture.tobytes()).hexdigest()[:40]
    if not has_picture(folder, key):
        write_picture(folder, key, picture)
    return key
