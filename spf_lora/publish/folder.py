"""The folder that is published: adapter, pictures, sidecars, what they are, and the card last."""

import json
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spf_lora.adapters.format.hashes import content_id_of
from spf_lora.adapters.format.privacy import leaks
from spf_lora.adapters.format.reading import open_adapter
from spf_lora.atomic import make_folder, unwritable, write_bytes, write_text
from spf_lora.data.export import png_bytes
from spf_lora.documents import read_json, read_text
from spf_lora.errors import OutputError
from spf_lora.publish.model_card import FOLDER, picture_name
from spf_lora.publish.pictures import Shown
from spf_lora.publish.sidecars import INFO, WORDS, civitai_info
from spf_lora.publish.subject import Subject, refuse_unsound
from spf_lora.registry.edit import copy_clean
from spf_lora.registry.names import PICTURE, SUFFIX, check_name

CARD, MANIFEST = "README.md", "spf-lora.json"
FORMAT, VERSION = "spf-lora publication", 1
MOST_TEXT = 1 << 20  # bytes of a card or a manifest
_TEXTS = (".md", ".json", INFO, WORDS)
_LICENSE = re.compile(r"^license: +\S", re.MULTILINE)


@dataclass(frozen=True)
class Manifest:
    """What a published folder says it holds.

    Attributes:
        name: of the adapter, without an ending.
        content_id: of its numbers.
    """

    name: str
    content_id: str

    def to_json(self) -> str:
        """Return the text of `spf-lora.json`."""
        table = {"format": FORMAT, "version": VERSION, **vars(self)}
        return json.dumps(table, indent=1) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read what a folder says it holds; a stranger may have written it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no manifest.
        RegistryError: its name is no name.
    """
    table = read_json(path, most_bytes=MOST_TEXT)
    if not isinstance(table, dict) or (table.get("format"), table.get("version")) != (
        FORMAT,
        VERSION,
    ):
        raise ValueError("it is no manifest of this version")
    name, identity = table.get("name"), table.get("content_id")
    if not isinstance(name, str) or not isinstance(identity, str):
        raise ValueError("its name or content_id is no text")
    if not re.fullmatch("[0-9a-f]{64}", identity):
        raise ValueError("its content_id is none")
    return Manifest(check_name(name), identity)


def write_folder(
    folder: Path, subject: Subject, card: str, pictures: Sequence[Shown], *, sidecars: bool
) -> None:
    """Write what is published beside and move it in, the card last: without it nothing is pushed.

    Args:
        folder: made if it is missing; an older card in it is replaced, other files stay.
        subject: the adapter.
        card: README.md.
        pictures: at least one.
        sidecars: also what managers read.

    Raises:
        OutputError: something cannot be written; what was there is as it was.
    """
    make_folder(folder.parent)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        (beside / FOLDER).mkdir(parents=True)
        adapter = beside / f"{subject.name}{SUFFIX}"
        copy_clean(subject.path, adapter, subject.rewritten)
        for index, one in enumerate(pictures):
            write_bytes(beside / picture_name(index), png_bytes(one.picture))
        if sidecars:
            write_text(beside / f"{subject.name}{INFO}", civitai_info(subject, adapter))
            write_text(beside / f"{subject.name}{WORDS}", f"{subject.trigger}\n")
            write_bytes(beside / f"{subject.name}{PICTURE}", png_bytes(pictures[0].alone))
        manifest = Manifest(subject.name, subject.content_id)
        write_text(beside / MANIFEST, manifest.to_json())
        write_text(beside / CARD, card)
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        for old in (folder / CARD, *folder.glob(f"{FOLDER}/[0-9]*.png")):
            old.unlink(missing_ok=True)
        for file in sorted(beside.rglob("*"), key=lambda file: file.name == CARD):
            if file.is_file():
                file.replace(folder / file.relative_to(beside))
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def ready_files(folder: Path, path: Path) -> dict[str, Path]:
    """Return what is to be uploaded, name in the repository -> file, once all of it is sound.

    Args:
        folder: as `write_folder` left it; texts and pictures may have been changed since.
        path: the adapter as it is now.

    Raises:
        OutputError: there is no card, it is of another adapter, has no licence, or tells a path.
        CheckFailedError: the adapter in it is damaged.
    """
    again = f"spf-lora card {path.stem} --license ID -o {folder} --force"
    try:
        manifest = read_manifest(folder / MANIFEST)
        card = read_text(folder / CARD, most_bytes=MOST_TEXT)
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder} holds no model card ({error})", hint=again) from error
    start, *header = card.replace("\r\n", "\n").split("---\n", 2)
    if start or not header or not _LICENSE.search(header[0]):
        raise OutputError(f"the card in {folder} says no licence", hint=again)
    adapter = folder / f"{manifest.name}{SUFFIX}"
    refuse_unsound(adapter, manifest.name)
    if not manifest.content_id == content_id_at(adapter) == content_id_at(path):
        raise OutputError(
            f"{path.stem} changed after its card was written: the content id is another", hint=again
        )
    files = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        if file.is_dir() and not file.is_symlink():
            continue
        if file.is_symlink() or not file.is_file():
            raise OutputError(f"{file} is no regular file", hint="remove it from the folder")
        if file.name.endswith(_TEXTS):
            _refuse_leaks(file)
        files[name.as_posix()] = file
    return files


def content_id_at(path: Path) -> str:
    """Return the content id of a file; its modules are read one at a time.

    Raises:
        AdapterFileError: it is no adapter.
    """
    with open_adapter(path) as opened:
        return content_id_of(opened.specs, opened.load)


def _refuse_leaks(file: Path) -> None:
    try:
        told = leaks(read_text(file, most_bytes=MOST_TEXT))
    except ValueError as error:
        raise OutputError(f"{file}: {error}", hint="remove it from the folder") from error
    if told:
        raise OutputError(
            f"{file} tells a path of this machine: {told[0]}", hint="take it out of the text"
        )
