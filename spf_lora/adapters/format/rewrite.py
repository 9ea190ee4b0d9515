"""Reads an adapter module by module and writes it anew: other layout, number format or rank."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spf_lora.adapters import factors
from spf_lora.adapters.format import card, hashes
from spf_lora.adapters.format.privacy import without_leaks
from spf_lora.adapters.format.reading import OpenAdapter, open_adapter
from spf_lora.adapters.format.writing import write_modules
from spf_lora.adapters.module import Module
from spf_lora.adapters.number_formats import FLAG_TO_DTYPE
from spf_lora.adapters.sd15 import block, natural

_AS_STORED = {"F64": "fp32", **{stored: flag for flag, stored in FLAG_TO_DTYPE.items()}}


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        source_layout: the naming that was read.
        dtype: fp16, bf16 or fp32.
        modules: how many modules.
        digest: sha256 of the tensors' bytes.
        cleaned: metadata entries that held a local path.
    """

    source_layout: str
    dtype: str
    modules: int
    digest: str
    cleaned: tuple[str, ...]


@dataclass(frozen=True)
class Shrunk(Converted):
    """What was written, and what was cut off.

    Attributes:
        ranks: the new ranks with how many modules have each.
        blocks: block -> (norm before, norm cut off, lowest new rank, highest new rank).
    """

    ranks: dict[int, int]
    blocks: dict[str, tuple[float, float, int, int]]

    @property
    def relative_error(self) -> float:
        """Norm cut off over norm before, over the whole adapter."""
        norm = float(np.hypot.reduce([one[0] for one in self.blocks.values()]))
        error = float(np.hypot.reduce([one[1] for one in self.blocks.values()]))
        return error / norm if norm else 0.0


def convert(
    source: Path, target: Path, *, layout: str, dtype: str | None, overwrite: bool
) -> Converted:
    """Write an adapter in another layout or dtype; one module is in memory at a time.

    Args:
        source: a .safetensors file or a peft folder.
        target: where to write.
        layout: kohya, diffusers or peft.
        dtype: fp16, bf16, fp32, or None for the one it has.
        overwrite: replace an existing target.
    """
    with open_adapter(source) as opened:
        chosen = dtype or _stored(opened)
        metadata, cleaned = _clean(opened)
        digest = write_modules(
            opened.specs,
            opened.load_stored,
            metadata,
            target,
            layout=layout,
            dtype=chosen,
            overwrite=overwrite,
        )
        return Converted(opened.layout, chosen, len(opened.specs), digest, cleaned)


def resize(
    source: Path,
    target: Path,
    *,
    rank: int | None,
    energy: float | None,
    layout: str,
    dtype: str | None,
    overwrite: bool,
) -> Shrunk:
    """Write an adapter with every module truncated; the card's parent becomes the source.

    Args:
        source: a .safetensors file or a peft folder.
        target: where to write.
        rank: directions to keep in each module, or None.
        energy: share of each module's squared norm to keep, or None.
        layout: kohya, diffusers or peft.
        dtype: fp16, bf16, fp32, or None for the one it has.
        overwrite: replace an existing target.
    """
    factors.check_resize(rank, energy)
    with open_adapter(source) as opened:
        done = {
            name: factors.resize(opened.load(name), alpha=1.0, rank=rank, energy=energy)
            for name in opened.specs
        }
        chosen = dtype or _stored(opened)
        metadata, cleaned = _clean(opened)
        metadata = _with_parent(metadata, opened)
        alpha = float(max(one.module.rank for one in done.values()))
        modules = {name: _with_alpha(one.module, alpha) for name, one in done.items()}
        digest = write_modules(
            {name: module.spec() for name, module in modules.items()},
            modules.__getitem__,
            metadata,
            target,
            layout=layout,
            dtype=chosen,
            overwrite=overwrite,
        )
        ranks = dict(sorted(Counter(module.rank for module in modules.values()).items()))
        return Shrunk(opened.layout, chosen, len(modules), digest, cleaned, ranks, _by_block(done))


def _by_block(done: dict[str, factors.Resized]) -> dict[str, tuple[float, float, int, int]]:
    blocks: dict[str, tuple[float, float, int, int]] = {}
    for name, one in done.items():
        rank = one.module.rank
        norm, error, low, high = blocks.get(block(name), (0.0, 0.0, rank, rank))
        blocks[block(name)] = (
            float(np.hypot(norm, one.norm)),
            float(np.hypot(error, one.error)),
            min(low, rank),
            max(high, rank),
        )
    return {at: blocks[at] for at in sorted(blocks, key=natural)}


def _with_alpha(module: Module, alpha: float) -> Module:
    """Return the same change with another alpha; one alpha for all needs no folding later."""
    up = np.asarray(module.up, np.float64) * (module.alpha / alpha)
    return Module(module.name, module.down, up.astype(np.float32), alpha)


def _with_parent(metadata: dict[str, str], opened: OpenAdapter) -> dict[str, str]:
    parent_card = card.from_metadata(metadata)
    if parent_card is None:
        return metadata
    parent = hashes.content_id_of(opened.specs, opened.load)
    child = dataclasses.replace(parent_card, parents=(parent,), metrics={})
    return {**metadata, card.KEY: card.to_json(child)}


def _stored(opened: OpenAdapter) -> str:
    """Return the flag of the dtype a file has; for a mixed one the one that loses nothing."""
    dtypes = {spec.dtype for spec in opened.specs.values()}
    return _AS_STORED[dtypes.pop()] if len(dtypes) == 1 else "fp32"


def _clean(opened: OpenAdapter) -> tuple[dict[str, str], tuple[str, ...]]:
    clean = {key: without_leaks(text) for key, text in opened.metadata.items()}
    return clean, tuple(key for key, text in opened.metadata.items() if clean[key] != text)
