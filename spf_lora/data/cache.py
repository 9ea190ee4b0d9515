"""Keeps what is computed from a picture or a prompt, found again by a digest of its content.

One safetensors file an entry, shared between runs and processes. An entry is written beside and
renamed, so two processes never see half of one; each carries a digest of its numbers, so a damaged
one is noticed and made again. A disk that cannot be written costs time and nothing else.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from spf_lora.atomic import write_bytes
from spf_lora.errors import OutputError

VARIABLE = "SPF_LORA_CACHE"
_FORMAT = "1"  # part of every key: another way to compute or store makes other entries


def cache_folder() -> Path:
    """Return the folder of the cache: `SPF_LORA_CACHE`, or the user's cache folder."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("spf-lora") / "encoded"


def content_key(*parts: bytes | str) -> str:
    """Return a digest of all parts, in order; no two splits of the same bytes look the same."""
    whole = hashlib.sha256()
    for part in (_FORMAT, *parts):
        data = part.encode() if isinstance(part, str) else part
        whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()


@dataclass
class TensorCache:
    """Tensors on disk by key.

    Attributes:
        folder: where; made when the first entry is written.
        found: entries that were read.
        made: entries that were computed.
        damaged: files that were read but not as they were written; made again.
        trouble: why nothing is written any more, or None.
    """

    folder: Path
    found: int = 0
    made: int = 0
    damaged: list[Path] = field(default_factory=list)
    trouble: str | None = None

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the tensor of a key, on the CPU: from disk, or made now and kept."""
        path = self.path(key)
        kept = self._read(path, key)
        if kept is not None:
            self.found += 1
            return kept
        self.made += 1
        tensor = make().detach().cpu().contiguous()
        self._write(path, key, tensor)
        return tensor

    def _read(self, path: Path, key: str) -> torch.Tensor | None:
        try:
            with safe_open(path, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor("value")
                wanted = (file.metadata() or {}).get("sha256")
        except (SafetensorError, OSError, ValueError):
            if path.exists():
                self.damaged.append(path)
            return None
        if _digest(key, tensor) != wanted:
            self.damaged.append(path)
            return None
        return tensor

    def _write(self, path: Path, key: str, tensor: torch.Tensor) -> None:
        if self.trouble is not None:
            return
        data = save({"value": tensor}, {"sha256": _digest(key, tensor)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data, overwrite=True, durable=False)
        except OutputError as error:
            self.trouble = error.message
        except OSError as error:
            self.trouble = f"{path.parent} could not be made: {error.strerror}"


def cache_size(folder: Path) -> tuple[int, int]:
    """Return how many entries a cache holds, and their bytes."""
    sizes = [path.stat().st_size for path in folder.glob("??/*.safetensors")]
    return len(sizes), sum(sizes)


def clear_cache(folder: Path) -> None:
    """Remove a cache's entries, and what killed runs left half-written; nothing else."""
    for inner in folder.glob("[0-9a-f][0-9a-f]"):
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner, ignore_errors=True)


def _digest(key: str, tensor: torch.Tensor) -> str:
    shape = f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode()
    flat = tensor.contiguous().view(torch.uint8) if tensor.ndim else tensor.reshape(1)
    return hashlib.sha256(shape + flat.numpy().tobytes()).hexdigest()
