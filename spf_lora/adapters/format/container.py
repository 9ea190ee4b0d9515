"""The safetensors container: a header checked before anything else is believed, then plain bytes.

Layout: 8 bytes little-endian header length, a JSON header, the tensors' bytes without holes.
Specification: https://huggingface.co/docs/safetensors. Reading is by position, never by memory
map, so a file that shrinks meanwhile is an error and no crash.
"""

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from spf_lora.adapters.module import Array, Shape
from spf_lora.adapters.number_formats import DTYPES, widen_bf16
from spf_lora.documents import is_unicode
from spf_lora.errors import AdapterFileError

MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 8192
MAX_DIMENSIONS = 8

# flags that not every system has
_NOT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

# first bytes -> what the file really is
_FOREIGN_MAGIC = {
    b"PK\x03\x04": "a zip or a PyTorch checkpoint",
    b"PK\x05\x06": "an empty zip",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy file",
    b"\x1f\x8b": "a gzip file",
    b"version https://git-lfs": "a git-lfs pointer",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
}
_PICKLE_HINT = "pickles can run code and are never opened; get the .safetensors version"
_FOREIGN_HINT = "get the .safetensors file itself"

# a string (an unclosed one runs to the end), or one structural character
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|([\[{])|([\]}])', re.DOTALL)


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: where its bytes lie and what they mean."""

    name: str
    dtype: str
    shape: Shape
    start: int
    nbytes: int


@dataclass(frozen=True)
class Container:
    """An open file with a header that has been checked whole.

    Attributes:
        path: where it was opened.
        size: bytes of the whole file.
        data_start: first byte behind the header.
        entries: the tensors by name, in file order.
        metadata: the header's text entries.
        file: the open file, without a buffer.
    """

    path: Path
    size: int
    data_start: int
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    file: FileIO

    def raw(self, name: str) -> Array:
        """Read one tensor's stored numbers; bf16 comes as uint16."""
        entry = self.entries[name]
        array = np.empty(entry.shape, DTYPES[entry.dtype])
        read_at(self.file, array.reshape(-1).view(np.uint8).data, entry.start, self.path)
        return array

    def read(self, name: str) -> Array:
        """Read one tensor; bf16 is widened to float32, every other dtype is kept."""
        array = self.raw(name)
        return widen_bf16(array) if self.entries[name].dtype == "BF16" else array


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Open a safetensors file and check its whole header.

    Raises:
        AdapterFileError: the file is missing, no safetensors file, or any part of it lies.
    """
    with open_regular(path) as (file, size):
        yield _read_header(file, size, path)


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[FileIO, int]]:
    """Open a regular file (or a link to one) and yield it with its size."""
    try:
        # without O_NONBLOCK, opening a FIFO would wait for a writer
        file = FileIO(path, opener=lambda name, flags: os.open(name, flags | _NOT_WAITING))
    except FileNotFoundError:
        _refuse(path, "does not exist", "check the path")
    except (OSError, ValueError) as error:
        _refuse(path, f"cannot be opened: {error}", "check the path and its permissions")
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            _refuse(path, "is no regular file", "name a .safetensors file")
        yield file, status.st_size


def read_at(file: FileIO, into: memoryview, start: int, path: Path) -> None:
    """Fill `into` with the file's bytes from `start` on."""
    try:
        file.seek(start)
        done = 0
        while done < len(into):
            count = file.readinto(into[done : done + (64 << 20)])
            if not count:
                _refuse(path, "became shorter while it was read", "wait until it is written whole")
            done += count
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror}", "check the disk")


def _read_header(file: FileIO, size: int, path: Path) -> Container:
    head = file.read(32)
    length = int.from_bytes(head[:8], "little")
    # The length of a good header may begin with the bytes of a pickle (0x80 0x02: 640).
    good = length <= size - 8 and head[8:9] == b"{"
    for magic, kind in _FOREIGN_MAGIC.items():
        if not good and head.startswith(magic):
            hint = _PICKLE_HINT if "pickle" in kind or "PyTorch" in kind else _FOREIGN_HINT
            _refuse(path, f"is {kind}, not a safetensors file", hint)
    if size < 10:
        _refuse(path, f"holds only {size} bytes, too few for a header", "get the file again")
    if length > size - 8:
        _refuse(
            path,
            f"declares a header of {length} bytes but only {size - 8} follow",
            "it is cut short or no safetensors file; get it again",
        )
    if length > MAX_HEADER_BYTES:
        _refuse(
            path,
            f"declares a header of {length} bytes; the limit is {MAX_HEADER_BYTES}",
            "a LoRA's header is some 100 kB; strip its metadata with another tool, or distrust it",
        )
    text = bytearray(length)
    read_at(file, memoryview(text), 8, path)
    header = _parse(bytes(text), path)
    metadata = _metadata(header.pop("__metadata__", {}), path)
    entries = _entries(header, 8 + length, size, path)
    return Container(path, size, 8 + length, entries, metadata, file)


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    """Parse the header's JSON after bounding how much memory that can take."""
    if not text.startswith(b"{"):
        _refuse(path, "is no safetensors file: its header is no JSON object", "check the file")
    depth = opened = 0
    for token in _TOKEN.finditer(text):
        depth += (token[1] is not None) - (token[2] is not None)
        opened += token[1] is not None
        if depth > 3 or opened > 3 * MAX_TENSORS + 2:
            _refuse(
                path,
                "has a header that nests too deep"
                if depth > 3
                else f"lists more than {MAX_TENSORS} tensors",
                "no LoRA file looks like this; distrust it",
            )
    try:
        header = json.loads(
            text.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        _refuse(path, f"has a header that is no valid JSON: {_short(error)}", "get the file again")
    if not isinstance(header, dict):
        _refuse(path, "has a header that is no JSON object", "get the file again")
    if len(header) > MAX_TENSORS + 1:
        _refuse(path, f"lists more than {MAX_TENSORS} tensors", "distrust it")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:80]!r} appears twice")
    return table


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not allowed")


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _refuse(path, "has metadata that is not all text", "get the file again")
    if not all(is_unicode(key) and is_unicode(text) for key, text in value.items()):
        _refuse(path, "has metadata with broken characters", "get the file again")
    return value


def _entries(
    header: dict[str, Any], data_start: int, size: int, path: Path
) -> dict[str, TensorEntry]:
    entries = [_entry(name, value, data_start, path) for name, value in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.nbytes))
    expected = data_start
    for entry in entries:
        if entry.start != expected:
            word = "overlaps" if entry.start < expected else "leaves a hole before"
            _refuse(path, f"{word} tensor {_short(entry.name)}", "it is damaged or forged")
        expected = entry.start + entry.nbytes
    if expected != size:
        _refuse(
            path,
            f"should be {expected} bytes by its header but is {size}",
            "it is cut short or has something appended; get it again",
        )
    return {entry.name: entry for entry in entries}


def _entry(name: str, value: Any, data_start: int, path: Path) -> TensorEntry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"describes tensor {_short(name)} wrongly", "it is damaged or forged")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        _refuse(
            path,
            f"stores tensor {_short(name)} as {_short(dtype)}",
            f"only {', '.join(DTYPES)} are read; convert it with the tool that wrote it",
        )
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        _refuse(path, f"gives tensor {_short(name)} an impossible shape", "it is damaged or forged")
    if not _naturals(offsets) or len(offsets) != 2:
        _refuse(path, f"gives tensor {_short(name)} impossible offsets", "it is damaged or forged")
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != nbytes:
        _refuse(
            path,
            f"gives tensor {_short(name)} {offsets[1] - offsets[0]} bytes where its shape needs "
            f"{_short(nbytes)}",
            "it is damaged or forged",
        )
    return TensorEntry(name, dtype, tuple(shape), data_start + offsets[0], nbytes)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(number) is int and 0 <= number < 1 << 48 for number in value
    )


def _short(value: Any) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _refuse(path: Path, what: str, hint: str) -> NoReturn:
    raise AdapterFileError(f"{path} {what}", hint=hint)
