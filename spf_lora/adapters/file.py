"""Reads an adapter file of any known layout whole or not at all, and writes one.

The reader checks the container, gives every tensor its canonical module, pairs the factors and
refuses the rest; nothing is skipped. See docs/formats.md.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spf_lora.adapters import keys, layouts, scaling
from spf_lora.adapters.container import Container, Entry, open_container
from spf_lora.adapters.container_write import HASH_KEYS, Planned, write_container
from spf_lora.adapters.module import Adapter, Array, Module, Spec
from spf_lora.errors import AdapterFileError

__all__ = [
    "Adapter",
    "Module",
    "OpenAdapter",
    "Spec",
    "open_adapter",
    "read_adapter",
    "write_adapter",
]

_FACTOR_DTYPES = ("F16", "BF16", "F32", "F64")
_OTHER_WIDTHS = {1024: "Stable Diffusion 2", 1280: "SDXL", 2048: "SDXL"}
_RESERVED = (*HASH_KEYS, "sshs_legacy_hash", "lora_adapter_metadata", "format")


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter file whose header is read and checked, and whose numbers are not yet.

    Attributes:
        layout: the naming found: kohya, kohya-ldm, diffusers, diffusers-old, peft or mixed.
        specs: the modules' shapes and scales by canonical name, sorted.
        metadata: the header's text entries.
        load: reads one module's numbers; refuses NaN and inf.
    """

    layout: str
    specs: Mapping[str, Spec]
    metadata: Mapping[str, str]
    load: Callable[[str], Module]


def read_adapter(path: str | Path) -> Adapter:
    """Read a whole adapter.

    Args:
        path: a .safetensors file.

    Returns:
        The adapter, modules sorted by canonical name; arrays keep the stored dtype except bf16,
        which becomes float32.

    Raises:
        AdapterFileError: anything about the file is not as it should be.
    """
    with open_adapter(path) as opened:
        modules = {name: opened.load(name) for name in opened.specs}
        return Adapter(modules, dict(opened.metadata))


@contextmanager
def open_adapter(path: str | Path) -> Iterator[OpenAdapter]:
    """Open an adapter and check everything but its numbers.

    Raises:
        AdapterFileError: as `read_adapter`.
    """
    with open_container(Path(path)) as container:
        parts, layout = _pair(container)
        specs = {name: _spec(container, name, found) for name, found in sorted(parts.items())}
        _refuse_other_families(container.path, specs)

        def load(name: str) -> Module:
            return _load(container, specs[name], parts[name])

        yield OpenAdapter(layout, specs, container.metadata, load)


def write_adapter(
    adapter: Adapter,
    path: str | Path,
    *,
    layout: str = "kohya",
    dtype: str = "fp16",
    overwrite: bool = False,
) -> None:
    """Write an adapter so that every app reads it at the right strength.

    Args:
        adapter: what to write.
        path: the target file.
        layout: kohya, diffusers or peft.
        dtype: fp16, bf16 or fp32.
        overwrite: replace an existing file instead of refusing.

    Raises:
        AdapterFileError: there is nothing to write, or a number does not fit the dtype.
        OutputError: the target exists or cannot be written.
    """
    specs = {name: module.spec() for name, module in adapter.modules.items()}
    write_modules(
        specs,
        adapter.modules.__getitem__,
        adapter.metadata,
        Path(path),
        layout=layout,
        dtype=dtype,
        overwrite=overwrite,
    )


def write_modules(
    specs: Mapping[str, Spec],
    load: Callable[[str], Module],
    metadata: Mapping[str, str],
    path: Path,
    *,
    layout: str,
    dtype: str,
    overwrite: bool = False,
) -> None:
    """Write modules that are loaded one at a time; see `write_adapter`."""
    if not specs:
        raise AdapterFileError("the adapter has no modules", hint="train or choose another one")
    row = layouts.WRITABLE[layout]
    stored = scaling.FLAG_TO_DTYPE[dtype]
    targets = row.targets(specs)
    planned: list[Planned] = []
    for name, spec in specs.items():
        planned += _planned(row, spec, targets[name], stored, load)
    kept = {key: text for key, text in metadata.items() if key not in _RESERVED}
    write_container(path, planned, kept, overwrite=overwrite)


def _planned(
    row: layouts.Layout,
    spec: Spec,
    target: scaling.Target,
    dtype: str,
    load: Callable[[str], Module],
) -> Iterator[Planned]:
    name = spec.name
    assert keys.is_module(name), name
    down_shape = (target.rank, *spec.down_shape[1:])
    up_shape = (spec.up_shape[0], target.rank, *spec.up_shape[2:])
    yield Planned(
        row.down(name), dtype, down_shape, lambda: scaling.prepared(load(name), target, dtype)[0]
    )
    yield Planned(
        row.up(name), dtype, up_shape, lambda: scaling.prepared(load(name), target, dtype)[1]
    )
    if row.alpha is not None:
        yield Planned(row.alpha(name), "F32", (), lambda: np.array(target.alpha, "<f4"))


def _pair(container: Container) -> tuple[dict[str, dict[str, Entry]], str]:
    """Give each tensor its module and factor; refuse strangers, twins and orphans."""
    parts: dict[str, dict[str, Entry]] = {}
    found: set[str] = set()
    for entry in container.entries.values():
        key = keys.parse_key(entry.name)
        factors = parts.setdefault(key.module, {})
        if key.factor in factors:
            raise AdapterFileError(
                f"{container.path} names {key.factor} of {key.module} twice",
                hint="it mixes two layouts; get the file again or strip one of them",
            )
        factors[key.factor] = entry
        if key.factor != "alpha":
            found.add(key.layout)
    for module, factors in parts.items():
        for factor in ("down", "up"):
            if factor not in factors:
                raise AdapterFileError(
                    f"{container.path} has no {factor} factor for {module}",
                    hint="the file is incomplete; get it again",
                )
    if not parts:
        raise AdapterFileError(f"{container.path} holds no tensors", hint="get the file again")
    if found == {"kohya", "kohya-ldm"}:
        return parts, "kohya-ldm"
    return parts, found.pop() if len(found) == 1 else "mixed"


def _spec(container: Container, name: str, factors: Mapping[str, Entry]) -> Spec:
    down, up = factors["down"], factors["up"]
    for entry in (down, up):
        if entry.dtype not in _FACTOR_DTYPES:
            raise AdapterFileError(
                f"{container.path} stores {name} as {entry.dtype}, not as floating point",
                hint="quantised LoRA files are not read; get the fp16 version",
            )
    rank = down.shape[0] if down.shape else 0
    alpha = _alpha(container, factors["alpha"]) if "alpha" in factors else float(rank)
    return Spec(name, down.shape, up.shape, alpha, up.dtype)


def _alpha(container: Container, entry: Entry) -> float:
    if entry.shape not in ((), (1,)):
        raise AdapterFileError(
            f"{container.path} has an alpha {entry.name!r} of shape {entry.shape}, not one number",
            hint="the file is damaged; get it again",
        )
    value = float(container.read(entry.name).reshape(-1)[0])
    if not np.isfinite(np.float32(value)):
        raise AdapterFileError(
            f"{container.path} has an alpha {entry.name!r} that is {value}",
            hint="the file is damaged; get it again",
        )
    return value


def _load(container: Container, spec: Spec, factors: Mapping[str, Entry]) -> Module:
    down, up = (_finite(container, factors[factor]) for factor in ("down", "up"))
    return Module(spec.name, down, up, spec.alpha, spec.dtype)


def _finite(container: Container, entry: Entry) -> Array:
    array = container.read(entry.name)
    if not np.isfinite(array).all():
        raise AdapterFileError(
            f"{container.path} holds NaN or inf in {entry.name!r}",
            hint="the training broke down; use an earlier checkpoint",
        )
    return array


def _refuse_other_families(path: Path, specs: Mapping[str, Spec]) -> None:
    for name, spec in specs.items():
        width = spec.down_shape[1]
        if name.endswith(("attn2.to_k", "attn2.to_v")) and width in _OTHER_WIDTHS:
            raise AdapterFileError(
                f"{path} is for {_OTHER_WIDTHS[width]}: its text states are {width} wide, not 768",
                hint="choose an adapter made for Stable Diffusion 1.5",
            )
