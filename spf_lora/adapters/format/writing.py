"""Writes modules that are loaded one at a time, in any layout we write."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from spf_lora.adapters import sd15
from spf_lora.adapters.format import keys, layouts, peft, scaling
from spf_lora.adapters.format.container_write import HASH_KEYS, Planned, write_container
from spf_lora.adapters.format.privacy import leaks
from spf_lora.adapters.module import Array, Module, Spec
from spf_lora.adapters.number_formats import FLAG_TO_DTYPE
from spf_lora.atomic import make_folder, write_text
from spf_lora.errors import AdapterFileError, OutputError, RecipeError

# entries that describe the bytes of one file and are made anew, or that belong to one layout
RESERVED = (*HASH_KEYS, "sshs_legacy_hash", peft.HEADER_KEY, "format")

T = TypeVar("T")
Load = Callable[[str], Module]


def write_modules(
    specs: Mapping[str, Spec],
    load: Load,
    metadata: Mapping[str, str],
    path: Path,
    *,
    layout: str,
    dtype: str,
    overwrite: bool = False,
) -> str:
    """Write modules; see `spf_lora.adapters.format.adapter_file.write_adapter`.

    Returns:
        The sha256 of the tensors' bytes (of the last file, for a folder of two).
    """
    row, stored = _choice(layout, layouts.WRITABLE), _choice(dtype, FLAG_TO_DTYPE)
    if not specs:
        raise AdapterFileError("the adapter has no modules", hint="train or choose another one")
    for name in specs:
        if not keys.is_module(name):
            raise AdapterFileError(
                f"{name[:100]!r} is no module of Stable Diffusion 1.5",
                hint="module names look like unet.mid_block.attentions.0.proj_in",
            )
    for key, text in metadata.items():
        for leak in leaks(text):
            raise AdapterFileError(
                f"metadata {key!r} holds a local path: {leak}",
                hint="remove it: a published file must not tell where it was made",
            )
    targets = row.targets(specs)
    kept = {key: text for key, text in metadata.items() if key not in RESERVED}
    kept = {**_defaults(specs), **kept, **_dimensions(targets)}
    if row.folder:
        return _write_folders(specs, load, kept, path, row, stored, overwrite)
    return write_container(
        path, _plan(row, specs, targets, stored, load), kept, overwrite=overwrite
    )


def _defaults(specs: Mapping[str, Spec]) -> dict[str, str]:
    """Return what every file for Stable Diffusion 1.5 says of itself, unless it says otherwise."""
    if any(sd15.misfit(spec) for spec in specs.values()):
        return {}
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_v2": "False",
    }


def _dimensions(targets: Mapping[str, scaling.Target]) -> dict[str, str]:
    """Return rank and alpha as kohya states them; a file of several has the largest."""
    return {
        "ss_network_dim": str(max(target.rank for target in targets.values())),
        "ss_network_alpha": f"{max(target.alpha for target in targets.values()):g}",
    }


def _write_folders(
    specs: Mapping[str, Spec],
    load: Load,
    metadata: Mapping[str, str],
    path: Path,
    row: layouts.Layout,
    dtype: str,
    overwrite: bool,
) -> str:
    """Write a peft folder, or one for each model inside `path` if the adapter moves two.

    The configuration goes last and, on overwriting, first away: a folder without it is refused by
    every reader, so a kill in between leaves nothing that looks whole.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, not a folder", hint="name a folder for peft")
    if path.exists() and any(path.iterdir()) and not overwrite:
        raise OutputError(
            f"folder {path} is not empty", hint="--force writes into it; or choose another name"
        )
    targets = row.targets(specs)
    components = sorted({name.partition(".")[0] for name in specs})
    folders = {one: path / one if len(components) > 1 else path for one in components}
    _remove_older(path, set(folders.values()))
    for component, folder in folders.items():
        make_folder(folder, parents=len(components) > 1)
        mine = {name: spec for name, spec in specs.items() if name.startswith(f"{component}.")}
        planned = _plan(row, mine, targets, dtype, load)
        digest = write_container(folder / peft.WEIGHTS_NAME, planned, metadata, overwrite=overwrite)
        written = {layouts.peft_path(name): _written(mine[name], targets[name]) for name in mine}
        table = peft.config_for(written)
        write_text(folder / peft.CONFIG_NAME, json.dumps(table, indent=2, sort_keys=True) + "\n")
    return digest


def _remove_older(path: Path, kept: set[Path]) -> None:
    """Remove every configuration, and what an older adapter has where the new one has no file.

    Readers would take it for a part of the new one.
    """
    for folder in peft.folders(path):
        (folder / peft.CONFIG_NAME).unlink(missing_ok=True)
    for folder in set(peft.folders(path)) - kept:
        (folder / peft.WEIGHTS_NAME).unlink(missing_ok=True)
        if folder != path:
            with suppress(OSError):  # it is not there, or holds something that is not ours
                folder.rmdir()


def _plan(
    row: layouts.Layout,
    specs: Mapping[str, Spec],
    targets: Mapping[str, scaling.Target],
    dtype: str,
    load: Load,
) -> Iterator[Planned]:
    @lru_cache(maxsize=1)  # the two factors of a module are written one after the other
    def factors(name: str) -> tuple[Array, Array]:
        return scaling.prepared(load(name), targets[name], dtype)

    for name, spec in specs.items():
        alpha = targets[name].alpha
        written = _written(spec, targets[name])
        yield Planned(row.down(name), dtype, written.down_shape, partial(_item, factors, name, 0))
        yield Planned(row.up(name), dtype, written.up_shape, partial(_item, factors, name, 1))
        if row.alpha is not None:
            yield Planned(row.alpha(name), "F32", (), partial(np.array, alpha, "<f4"))


def _item(factors: Callable[[str], tuple[Array, Array]], name: str, at: int) -> Array:
    return factors(name)[at]


def _written(spec: Spec, target: scaling.Target) -> Spec:
    """Return a module's shapes as they will be in the file."""
    down_shape = (target.rank, *spec.down_shape[1:])
    up_shape = (spec.up_shape[0], target.rank, *spec.up_shape[2:])
    return Spec(spec.name, down_shape, up_shape, target.alpha, spec.dtype)


def _choice(word: str, table: Mapping[str, T]) -> T:
    if word not in table:
        raise RecipeError(f"{word!r} is not known here", hint=f"choose {', '.join(table)}")
    return table[word]
