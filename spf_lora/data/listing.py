"""Which pictures, captions and masks a training folder holds, and which belong together.

Captions are `.txt` or `.caption` files of the picture's stem, or lines of a `metadata.jsonl` or
`metadata.csv` with `file_name` and `text`, as Hugging Face's imagefolder has them. A mask is a
PNG of the picture's stem in the folder `masks` beside it, white where the attribute is.
"""

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from spf_lora.data.faults import Fault
from spf_lora.data.pictures import SUFFIXES, UNREADABLE_SUFFIXES
from spf_lora.documents import parse_json, read_text
from spf_lora.errors import DataError

CAPTION_SUFFIXES = (".txt", ".caption")
METADATA_FILES = ("metadata.jsonl", "metadata.csv")
MASK_FOLDER = "masks"
_TEXT_COLUMNS = ("text", "caption")
LEAVES = "is a link to a file outside the folder, which is not followed; copy it: cp -L"
_LONGEST_NAME = 255
MOST_CAPTION_BYTES = 4 << 10  # ten times what the text encoder reads
_MOST_METADATA_BYTES = 16 << 20
_NO_ROW = {
    ".jsonl": 'is no JSON object such as {"file_name": ..., "text": ...}',
    ".csv": "begins a row that cannot be read; look for a quote that is never closed",
}


class Caption(NamedTuple):
    """A caption as it was written, and where: a file or a line of one."""

    text: str
    place: str


@dataclass(frozen=True)
class Listing:
    """A folder's contents.

    Attributes:
        pictures: name -> file, in the order of names; a name has folders for metadata's files only.
        captions: picture name -> caption; pictures without one are missing.
        masks: picture name -> mask.
        faults: what belongs to nothing or to two things.
        repeats: picture name -> how often it counts; pictures that count once may be missing.
        spared: names of pictures that have the folder's words for a caption.
        unread: folders inside that hold pictures and are not read.
    """

    pictures: dict[str, Path]
    captions: dict[str, Caption]
    masks: dict[str, Path]
    faults: list[Fault]
    repeats: dict[str, int] = field(default_factory=dict)
    spared: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def list_folder(folder: Path, *, spare: str = "") -> Listing:
    """Look at a folder; hidden files, and files of other kinds, are not looked at.

    Args:
        folder: holds pictures and captions.
        spare: the caption of pictures that have none.

    Raises:
        DataError: it cannot be read, or holds no pictures.
    """
    files = _files(folder)
    faults: list[Fault] = []
    rows = [row for p in files if p.name in METADATA_FILES for row in _metadata(p, faults)]
    pictures = {p.name: p for p in files if p.suffix.lower() in SUFFIXES}
    for name, caption in rows:
        if (folder / name).is_file():
            pictures.setdefault(name, folder / name)
        else:
            faults.append(Fault(caption.place, f"there is no picture {name}"))
    unreadable = {p.name for p in files if p.suffix.lower() in UNREADABLE_SUFFIXES}
    unreadable |= {name for name, path in pictures.items() if path.suffix.lower() not in SUFFIXES}
    text = "is a kind of picture that cannot be read; save it as PNG or JPEG"
    faults += [Fault(name, text) for name in unreadable]
    if not pictures and not faults:
        raise DataError(
            f"folder {folder} holds no pictures ({_known_suffixes()}){_deeper(folder)}",
            hint="give the folder that holds the pictures and their .txt captions",
        )
    pictures = {n: path for n, path in sorted(pictures.items()) if n not in unreadable}
    captions, without = _captions(files, pictures, rows, faults)
    if spare:
        captions |= {name: Caption(spare, f"{name} (its folder's name)") for name in without}
    else:
        faults += [Fault(name, "has no caption") for name in without]
    masks = _masks(folder, pictures, faults)
    inner = {Path(name).parts[0] for name in pictures if "/" in name} | {MASK_FOLDER}
    unread = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name not in inner and holds_pictures(path)
    ]
    return Listing(
        pictures, captions, masks, faults, spared=without if spare else [], unread=unread
    )


def holds_pictures(folder: Path) -> bool:
    """Tell whether there are pictures in a folder; one that cannot be read holds none."""
    try:
        return any(p.suffix.lower() in SUFFIXES and p.name[0] != "." for p in folder.iterdir())
    except OSError:
        return False


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not (p.name[0] == "." or p.is_dir()))
    except OSError as error:
        raise DataError(
            f"training folder {folder} cannot be read: {error.strerror}",
            hint="give a folder of pictures and captions; `spf-lora portraits export` makes one",
        ) from error


def _captions(
    files: list[Path],
    pictures: Mapping[str, Path],
    rows: list[tuple[str, Caption]],
    faults: list[Fault],
) -> tuple[dict[str, Caption], list[str]]:
    """Give each picture its caption, and name those that have none.

    A second caption, or one without a picture, is a fault.
    """
    captions: dict[str, Caption] = {}
    for name, caption in rows:
        if name in captions:
            faults.append(Fault(caption.place, f"{name} has a second caption here"))
        captions.setdefault(name, caption)
    stems: dict[str, list[str]] = {}
    for name in pictures:
        if "/" not in name:
            stems.setdefault(Path(name).stem, []).append(name)
    unreadable = {p.stem for p in files if p.suffix.lower() in UNREADABLE_SUFFIXES}
    caption_files = _caption_files(files)
    for stem, (path, *more) in caption_files.items():
        named = stems.get(stem, [])
        if named:
            faults += [Fault(path.name, f"{other.name} is a second caption") for other in more]
            _caption_of(path, named, captions, faults)
        elif stem not in unreadable:  # which is told already
            text = "has no picture of a kind that can be read"
            faults += [Fault(other.name, text) for other in (path, *more)]
    without = [
        name
        for name in pictures
        if name not in captions and ("/" in name or Path(name).stem not in caption_files)
    ]
    return captions, without


def _caption_of(
    path: Path, named: list[str], captions: dict[str, Caption], faults: list[Fault]
) -> None:
    """Put down a caption file for the pictures of its stem, of which there should be one."""
    if len(named) > 1:
        faults.append(Fault(named[0], f"shares its caption with {', '.join(named[1:])}"))
    text = _read_text(path, faults, MOST_CAPTION_BYTES)
    for name in named:
        if name in captions:
            place = captions[name].place
            faults.append(Fault(path.name, f"{place} holds a second caption of {name}"))
        elif text is not None:
            captions[name] = Caption(text, path.name)


def _caption_files(files: list[Path]) -> dict[str, list[Path]]:
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() in CAPTION_SUFFIXES:
            by_stem.setdefault(path.stem, []).append(path)
    return by_stem


def leaves(path: Path, folder: Path) -> bool:
    """Tell whether a path is, or goes through, a link to what is not in the folder."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _read_text(path: Path, faults: list[Fault], most_bytes: int) -> str | None:
    if leaves(path, path.parent):
        faults.append(Fault(path.name, LEAVES))
        return None
    try:
        return read_text(path, most_bytes=most_bytes)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        faults.append(Fault(path.name, f"cannot be read as a caption ({cause})"))
        return None


def _metadata(path: Path, faults: list[Fault]) -> Iterator[tuple[str, Caption]]:
    """Yield picture name and caption of every good line; the others become faults."""
    whole = _read_text(path, faults, _MOST_METADATA_BYTES)
    if whole is None:
        return
    rows = _json_rows if path.suffix == ".jsonl" else _csv_rows
    for number, row in rows(whole):
        place = f"{path.name} line {number}"
        if not isinstance(row, dict):
            why = f" ({row})" if isinstance(row, ValueError) else ""
            faults.append(Fault(place, _NO_ROW[path.suffix] + why))
            continue
        name, text = row.get("file_name"), next((row[c] for c in _TEXT_COLUMNS if row.get(c)), None)
        if not isinstance(name, str) or not name.strip():
            faults.append(Fault(place, "has no file_name"))
        elif not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
            faults.append(Fault(place, "file_name is no name of a file"))
        elif _leaves_folder(name):
            faults.append(Fault(place, f"file_name {name} is not inside the folder"))
        elif not isinstance(text, str):
            faults.append(Fault(place, "has no text"))
        elif len(text.encode()) > MOST_CAPTION_BYTES:
            faults.append(Fault(place, f"text is longer than {MOST_CAPTION_BYTES} bytes"))
        else:
            yield PurePosixPath(name.strip()).as_posix(), Caption(text, place)


def _json_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Yield number and content of each line, or in its place what is wrong with it."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                yield number, error


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(text.splitlines(keepends=True))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error:
        yield reader.line_num, None


def _leaves_folder(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]


def _masks(folder: Path, pictures: Mapping[str, Path], faults: list[Fault]) -> dict[str, Path]:
    masks = {
        name: mask
        for name, path in pictures.items()
        if os.path.lexists(mask := path.parent / MASK_FOLDER / f"{path.stem}.png")
    }
    used = set(masks.values())
    for beside in {path.parent / MASK_FOLDER for path in (*pictures.values(), folder / "x")}:
        if beside.is_dir():
            others = (p for p in beside.iterdir() if not (p.name[0] == "." or p.is_dir()))
            faults += [
                Fault(p.relative_to(folder).as_posix(), "is the mask of no picture (STEM.png is)")
                for p in others
                if p not in used
            ]
    return masks


def _known_suffixes() -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in SUFFIXES))


def _deeper(folder: Path) -> str:
    """Name a folder inside that does hold pictures."""
    inner = next((p for p in sorted(folder.iterdir()) if p.is_dir() and holds_pictures(p)), None)
    return f"; but {inner} does" if inner else ""
