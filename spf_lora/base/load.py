"""Load a base model: the embedded one, a diffusers folder, a single file or one from the hub."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from spf_lora.base.identity import base_id
from spf_lora.base.parts import Parts, check_tokenizer
from spf_lora.documents import read_json
from spf_lora.errors import BaseModelError

EMBEDDED = Path(__file__).parent / "embedded"
# what a base that draws a world has beside the pipeline
_BROUGHT = {"clip/model.safetensors", "probe/model.safetensors", "probe/heads.json"}


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen Stable Diffusion 1.x model.

    Attributes:
        id: digest of the U-Net's and text encoder's weights.
        name: what the user called it.
        origin: where anyone finds it again: "embedded", "owner/name@commit", or its id where it
            was a local file.
        folder: where it was read from.
        layout: "embedded", "folder", "file" or "hub".
        device: where its weights are.
        world: whose portraits it draws, a name of `spf_lora.data.worlds.WORLDS`; "" if of none.
            Such a base brings its own CLIP and probe, in `clip/` and `probe/` of its folder.
        resolution: side of its pictures in pixels.
    """

    id: str
    name: str
    origin: str
    folder: Path
    layout: str
    device: torch.device
    unet: Any = field(repr=False)
    vae: Any = field(repr=False)
    text_encoder: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    scheduler: Any = field(repr=False)
    world: str = ""

    @property
    def resolution(self) -> int:
        """Side of the pictures it was trained on, in pixels."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(self.unet.config.sample_size * factor)


def default_device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_base(
    spec: str = "embedded",
    *,
    tokenizer: str | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Base:
    """Load a base model, frozen, in evaluation mode.

    Args:
        spec: "embedded"; the path of a folder in diffusers layout or of a .safetensors checkpoint;
            or a hub id, as owner/name or owner/name@revision.
        tokenizer: a folder or hub id to take the tokenizer from; needed for a checkpoint if CLIP's
            is neither beside it nor to be had from the hub.
        device: where to put it; a GPU if there is one.
        dtype: of the weights once loaded, whatever they are stored in.

    Raises:
        BaseModelError: there is no such model, it is no Stable Diffusion 1.x, or a file of it is
            missing, pickled or damaged.
    """
    place = locate(spec)
    device = device or default_device()
    parts = _read(place, tokenizer)
    check_tokenizer(parts.tokenizer, parts.text_encoder, spec)
    identity = base_id(parts.unet, parts.text_encoder)
    for model in (parts.unet, parts.vae, parts.text_encoder):
        torch.nn.Module.to(model, device, dtype)  # diffusers' own `to` talks
    return Base(
        id=identity,
        name=spec,
        origin=place.origin or identity,
        folder=place.folder,
        layout=place.layout,
        device=device,
        unet=parts.unet,
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        scheduler=parts.scheduler,
        world=_world(place),
    )


@dataclass(frozen=True)
class BasePlace:
    """Where a base is: its layout, its path, and what it is called everywhere ("" if local)."""

    spec: str
    layout: str
    path: Path
    origin: str

    @property
    def folder(self) -> Path:
        """The folder that holds it."""
        return self.path.parent if self.layout == "file" else self.path


def locate(spec: str) -> BasePlace:
    """Find a base by what the user calls it; a base from the hub is fetched.

    Raises:
        BaseModelError: there is none.
    """
    from spf_lora.base.hub import fetch_base

    check_spec(spec)
    path = Path(spec)
    if spec == "embedded":
        check_embedded()
        return BasePlace(spec, "embedded", EMBEDDED, spec)
    if path.is_file():
        return BasePlace(spec, "file", path, "")
    if path.is_dir():
        return BasePlace(spec, "folder", path, "")
    folder, origin = fetch_base(spec)
    return BasePlace(spec, "hub", folder, origin)


def check_spec(spec: str) -> None:
    """Refuse what can be no base; nothing is fetched or read.

    Raises:
        BaseModelError: it is no file, no folder in diffusers layout and no hub id.
    """
    from spf_lora.base.hub import is_hub_id

    path = Path(spec)
    if spec == "embedded" or path.is_file() or (path / "model_index.json").is_file():
        return
    if not path.exists() and is_hub_id(spec):
        return
    fault = (
        "is no folder in diffusers layout: it has no model_index.json"
        if path.is_dir()
        else "does not exist"
    )
    raise BaseModelError(
        f"the base {spec} {fault}",
        hint="--base embedded needs no download; or name a folder in diffusers layout, a "
        ".safetensors checkpoint or a hub id, as owner/name",
    )


def _read(place: BasePlace, tokenizer: str | None) -> Parts:
    from spf_lora.base.folder import read_folder_base, read_tokenizer
    from spf_lora.base.single_file import check_file, read_single_file

    if place.layout == "file":
        check_file(place.path, place.spec)  # before a tokenizer is fetched for nothing
        words = read_tokenizer(_tokenizer_folder(place, tokenizer))
        return read_single_file(place.path, place.spec, words)
    other = _tokenizer_folder(place, tokenizer) if tokenizer else None
    return read_folder_base(place.path, place.spec, other)


def _tokenizer_folder(place: BasePlace, tokenizer: str | None) -> Path:
    from spf_lora.base.hub import fetch_tokenizer, is_hub_id

    if tokenizer == "embedded":
        return EMBEDDED
    if tokenizer and (Path(tokenizer).exists() or not is_hub_id(tokenizer)):
        return Path(tokenizer)
    if not tokenizer and (beside := place.folder / "tokenizer").is_dir():
        return beside
    try:
        return fetch_tokenizer(tokenizer) if tokenizer else fetch_tokenizer()
    except BaseModelError as error:
        raise BaseModelError(
            f"{place.spec} holds no tokenizer, and none is at hand: {error.message}",
            hint="--tokenizer names a folder with vocab.json and merges.txt, or any Stable "
            "Diffusion 1.x base in diffusers layout",
        ) from error


def _world(place: BasePlace) -> str:
    """Return the world that the card beside a base names.

    Raises:
        BaseModelError: a file of a base that has a world is missing or damaged.
    """
    if place.layout == "embedded":
        return "portraits"
    if place.layout == "file" or not (place.path / "card.json").is_file():
        return ""
    try:
        card = read_json(place.path / "card.json", most_bytes=1 << 20)
    except (OSError, ValueError):
        return ""  # another program's card
    if not isinstance(card, dict):
        return ""
    world, digests = card.get("world"), card.get("sha256")
    if not isinstance(world, str) or not isinstance(digests, dict) or _BROUGHT - digests.keys():
        return ""
    _check_digests(place.path, digests, f"the base {place.spec}", "copy its folder anew")
    return world


def embedded_card(folder: Path = EMBEDDED) -> dict[str, Any]:
    """Return the embedded base's card: figures, seeds, steps and the digest of every file."""
    try:
        card = read_json(folder / "card.json", most_bytes=1 << 20)
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"the embedded base's card.json cannot be read ({error})",
            hint="install spf-lora again, or run git checkout -- spf_lora/base/embedded",
        ) from error
    assert isinstance(card, dict)
    return card


def check_embedded(folder: Path = EMBEDDED) -> None:
    """Compare every file of the embedded base with its digest in the card.

    Raises:
        BaseModelError: a file is missing or damaged; it is named.
    """
    hint = "install spf-lora again, or run git checkout -- spf_lora/base/embedded"
    _check_digests(folder, embedded_card(folder)["sha256"], "the embedded base", hint)


def _check_digests(folder: Path, digests: Mapping[str, str], what: str, hint: str) -> None:
    for name, wanted in digests.items():
        path = folder / name
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        there = inside and os.path.isfile(path)  # noqa: PTH113 - too long a name is no file
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if there else None
        if digest != wanted:
            raise BaseModelError(
                f"{what} is {'damaged' if digest else 'incomplete'}: {name}", hint=hint
            )
