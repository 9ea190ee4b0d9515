"""Writes a safetensors container: canonical header, streamed tensors, renamed when whole."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spf_lora.adapters.module import Array, Shape
from spf_lora.adapters.number_formats import DTYPES
from spf_lora.atomic import replacing

HASH_KEYS = ("modelspec.hash_sha256", "sshs_model_hash")
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Planned:
    """A tensor to be written; its numbers are asked for when their turn comes."""

    name: str
    dtype: str
    shape: Shape
    load: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def write_container(
    path: Path,
    tensors: Iterable[Planned],
    metadata: Mapping[str, str],
    *,
    overwrite: bool,
    keep_order: bool = False,
    declare_hash: bool = True,
) -> str:
    """Write a file so that equal content gives equal bytes, whole or not at all.

    Tensors are ordered by item size (largest first, so each is aligned) and name, JSON keys by
    name. The two hash entries are computed here from the bytes written, never taken over.

    Args:
        path: the target; its folder must exist.
        tensors: what to write, in any order.
        metadata: text entries; hash entries in it are replaced.
        overwrite: replace an existing file instead of refusing.
        keep_order: leave the tensors in the order given, so that their hash stays as it was.
        declare_hash: write the hash entries; without them, and without metadata, the header has
            none.

    Returns:
        The sha256 of everything behind the header, as hex.
    """
    planned = list(tensors)
    if not keep_order:
        planned.sort(key=lambda one: (-DTYPES[one.dtype].itemsize, one.name))
    kept = {key: text for key, text in metadata.items() if key not in HASH_KEYS}
    blank = _with_hash(kept, _NO_HASH) if declare_hash else kept
    with replacing(path, overwrite=overwrite) as file:
        file.write(_header(planned, blank))
        digest = _write_tensors(file, planned)
        if declare_hash:
            file.seek(0)
            file.write(_header(planned, _with_hash(kept, digest)))
    return digest


def _write_tensors(file: BinaryIO, planned: list[Planned]) -> str:
    """Write the tensors' bytes and return their sha256, computed in a second thread."""
    digest = hashlib.sha256()
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(1) as hasher:
        for tensor in planned:
            data = np.ascontiguousarray(tensor.load()).reshape(-1).view(np.uint8).data
            assert len(data) == tensor.nbytes, tensor.name
            pending.append(hasher.submit(digest.update, data))
            file.write(data)
            if len(pending) > 2:
                pending.pop(0).result()
    return digest.hexdigest()


def _with_hash(metadata: Mapping[str, str], digest: str) -> dict[str, str]:
    return {**metadata, "modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}


def _header(planned: Iterable[Planned], metadata: Mapping[str, str]) -> bytes:
    table: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for tensor in planned:
        table[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    data = text.encode("utf-8")
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data
