"""Reads an adapter of any known layout whole or not at all, and writes one. See docs/formats.md."""

from pathlib import Path

from spf_lora.adapters.format.reading import OpenAdapter, open_adapter
from spf_lora.adapters.format.writing import write_modules
from spf_lora.adapters.module import Adapter, Module

__all__ = ["Adapter", "Module", "OpenAdapter", "open_adapter", "read_adapter", "write_adapter"]


def read_adapter(path: str | Path) -> Adapter:
    """Read a whole adapter.

    Args:
        path: a .safetensors file, or a folder that peft saved.

    Returns:
        The adapter, modules sorted by canonical name; arrays keep the stored dtype except bf16,
        which becomes float32.

    Raises:
        AdapterFileError: anything about it is not as it should be.
    """
    with open_adapter(path) as opened:
        modules = {name: opened.load(name) for name in opened.specs}
        return Adapter(modules, dict(opened.metadata))


def write_adapter(
    adapter: Adapter,
    path: str | Path,
    *,
    layout: str = "kohya",
    dtype: str = "fp16",
    overwrite: bool = False,
) -> None:
    """Write an adapter so that every app reads it at the right strength.

    Equal adapters and metadata give equal bytes. All modules get one alpha; what is left of a
    scale moves into `up`. Hash entries are computed here, whatever the metadata says.

    Args:
        adapter: what to write.
        path: the target file, or for peft the target folder.
        layout: kohya, diffusers or peft.
        dtype: fp16, bf16 or fp32.
        overwrite: replace an existing file instead of refusing.

    Raises:
        AdapterFileError: there is nothing to write, a number does not fit the dtype, or the
            metadata holds a local path.
        OutputError: the target exists or cannot be written.
    """
    write_modules(
        {name: module.spec() for name, module in adapter.modules.items()},
        adapter.modules.__getitem__,
        adapter.metadata,
        Path(path),
        layout=layout,
        dtype=dtype,
        overwrite=overwrite,
    )
