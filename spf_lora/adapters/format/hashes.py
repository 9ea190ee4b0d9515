"""Identities: of an adapter's numbers, and of a file as the apps count it. None is ever trusted."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from spf_lora.adapters.format.container import open_container, open_regular, read_at
from spf_lora.adapters.module import Adapter, Module, Spec
from spf_lora.adapters.number_formats import effective_up

_CHUNK = 1 << 20


def content_id(adapter: Adapter) -> str:
    """Return the digest of an adapter's canonical form: 64 hex digits.

    Canonical form: modules by name, down as it is, `up` times scale, both as float32, zero
    components dropped. Layout, tensor order, how the scale is stored and metadata do not count.
    """
    specs = {name: module.spec() for name, module in adapter.modules.items()}
    return content_id_of(specs, adapter.modules.__getitem__)


def content_id_of(specs: Mapping[str, Spec], load: Callable[[str], Module]) -> str:
    """Return the content id of modules that are loaded one at a time."""
    digest = hashlib.sha256(b"spf-lora content 1\n")
    for name in sorted(specs):
        module = load(name)
        down = np.asarray(module.down, "<f4").reshape(module.rank, -1)
        up = np.asarray(effective_up(module), "<f4").reshape(-1, module.rank)
        used = down.any(axis=1) | up.any(axis=0)
        if not used.all():
            down, up = down[used], up[:, used]
        taps = specs[name].down_shape[2:]
        shape = (*down.shape, up.shape[0], *(taps if taps != (1, 1) else ()))
        digest.update(f"{name} {shape}\n".encode())
        digest.update(np.ascontiguousarray(down + np.float32(0)).data)
        digest.update(np.ascontiguousarray(up + np.float32(0)).data)
    return digest.hexdigest()


def autov2(path: str | Path) -> str:
    """Return the AutoV2 hash: sha256 of the whole file, first 10 hex digits."""
    return file_sha256(Path(path), 0)[:10]


def autov3(path: str | Path) -> str:
    """Return the AutoV3 hash: sha256 of everything behind the header, first 12 hex digits."""
    return tensor_sha256(path)[:12]


def tensor_sha256(path: str | Path) -> str:
    """Return the sha256 of everything behind the header (`sshs_model_hash`)."""
    with open_container(Path(path)) as container:
        return file_sha256(container.path, container.data_start)


def file_sha256(path: Path, start: int) -> str:
    """Return the sha256 of a file from byte `start` on."""
    digest = hashlib.sha256()
    with open_regular(path) as (file, size):
        buffer = memoryview(bytearray(min(_CHUNK, max(size - start, 1))))
        for at in range(start, size, len(buffer)):
            chunk = buffer[: size - at]
            read_at(file, chunk, at, path)
            digest.update(chunk)
    return digest.hexdigest()
