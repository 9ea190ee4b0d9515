"""Scale and number format: one alpha for a whole file, rounding in one place.

Some apps scale by the first alpha they meet, so a file gets one alpha and the rest of each scale
moves into `up`. Every step but one (rounding `scale * up` to the stored dtype) is a power of two
or a padding with zeros, so the product is rounded once whichever layout is written. That is what
lets one adapter keep one content id in every layout.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from spf_lora.adapters.container import DTYPES, all_finite, widen_bf16
from spf_lora.adapters.module import Array, Module, Spec
from spf_lora.errors import AdapterFileError

Values = npt.NDArray[np.float32]

# numpy widens the indices of a look-up to 64 bits; so many of them stay in the cache
_CHUNK = 1 << 15

FLAG_TO_DTYPE = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}


@dataclass(frozen=True)
class Target:
    """How one module is to be written.

    Attributes:
        rank: the rank in the file, at least the module's own; the rest is zeros.
        alpha: the alpha that a reader will use.
    """

    rank: int
    alpha: float


def one_alpha(specs: Mapping[str, Spec]) -> dict[str, Target]:
    """Choose one alpha for all modules and the rank of each, so that folding is exact.

    Equal alphas stay as they are. Otherwise every written scale is a power of two: ranks are
    padded to `odd * 2**k`, with the odd number that pads least (equal ranks need none).
    """
    if len({spec.alpha for spec in specs.values()}) == 1:
        return {name: Target(spec.rank, spec.alpha) for name, spec in specs.items()}
    ranks = [spec.rank for spec in specs.values()]
    odd = min(
        sorted({1, *(_odd_part(rank) for rank in ranks)}),
        key=lambda one: sum(_padded(rank, one) for rank in ranks),
    )
    alpha = float(min(_padded(rank, odd) for rank in ranks))
    return {name: Target(_padded(spec.rank, odd), alpha) for name, spec in specs.items()}


def scale_one(specs: Mapping[str, Spec]) -> dict[str, Target]:
    """Give every module scale 1, for layouts that carry no alpha."""
    return {name: Target(spec.rank, float(spec.rank)) for name, spec in specs.items()}


def prepared(module: Module, target: Target, dtype: str) -> tuple[Array, Array]:
    """Return (down, up) as stored: rounded to `dtype`, scale folded, rank padded.

    Raises:
        AdapterFileError: a number is too large for the dtype.
    """
    down = to_stored(module.down, dtype, module.name)
    up = to_stored(module.up, dtype, module.name)
    written_scale = target.alpha / target.rank
    if module.scale != written_scale:
        up = _scaled(up, module.scale, dtype, 1 / written_scale)
        _check_finite(up, dtype, module.name)
    more = target.rank - module.rank
    if more:
        down = np.pad(down, [(0, more)] + [(0, 0)] * (down.ndim - 1))
        up = np.pad(up, [(0, 0), (0, more)] + [(0, 0)] * (up.ndim - 2))
    return down, up


def effective_up(module: Module) -> Values:
    """Return `scale * up` rounded to the dtype that `up` is stored in."""
    dtype = module.spec().dtype
    if module.scale == 1:
        return np.asarray(module.up, np.float32)
    up = _scaled(to_stored(module.up, dtype, module.name), module.scale, dtype, 1.0)
    _check_finite(up, dtype, module.name)
    return up_values(up, dtype)


def _scaled(stored: Array, scale: float, dtype: str, then: float) -> Array:
    """Return stored numbers times `scale`, rounded to their dtype, times a power of two.

    A 16-bit number has 65,536 values only, so those are looked up instead of computed.
    """
    if DTYPES[dtype].itemsize != 2:
        return _multiplied(stored, scale, dtype, then)
    table = _table(scale, dtype, then)
    flat = stored.reshape(-1).view(np.uint16)
    scaled = np.empty(flat.shape, table.dtype)
    for at in range(0, len(flat), _CHUNK):
        # every index is in range; "clip" only spares numpy the copy that its check would need
        np.take(table, flat[at : at + _CHUNK], out=scaled[at : at + _CHUNK], mode="clip")
    return scaled.reshape(stored.shape)


@lru_cache(maxsize=64)
def _table(scale: float, dtype: str, then: float) -> Array:
    every = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype])
    return _multiplied(every, scale, dtype, then)


def _multiplied(stored: Array, scale: float, dtype: str, then: float) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        once = _rounded(up_values(stored, dtype) * np.float32(scale), dtype)
        return once if then == 1 else _rounded(up_values(once, dtype) * np.float32(then), dtype)


def up_values(stored: Array, dtype: str) -> Values:
    """Return stored numbers as float32."""
    return np.asarray(widen_bf16(stored) if dtype == "BF16" else stored, np.float32)


def to_stored(values: Array, dtype: str, name: str) -> Array:
    """Round numbers to a dtype, to nearest even; bf16 is its bits, given or returned.

    Raises:
        AdapterFileError: a number is not finite, or becomes so.
    """
    if values.dtype == DTYPES[dtype]:
        return values
    if values.dtype == DTYPES["BF16"]:
        values = widen_bf16(values)
    with np.errstate(over="ignore", invalid="ignore"):
        stored = _rounded(values, dtype)
    _check_finite(stored, dtype, name)
    return stored


def _check_finite(stored: Array, dtype: str, name: str) -> None:
    if not all_finite(stored, dtype):
        raise AdapterFileError(
            f"{name}: a number does not fit {dtype}", hint="write it with --dtype fp32 or bf16"
        )


def _rounded(values: Array, dtype: str) -> Array:
    return _to_bf16(values) if dtype == "BF16" else values.astype(DTYPES[dtype])


def _to_bf16(values: Array) -> Array:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + rounding) >> np.uint32(16)).astype(np.uint16)


def _odd_part(rank: int) -> int:
    return rank // (rank & -rank)


def _padded(rank: int, odd: int) -> int:
    return odd << max(0, math.ceil(math.log2(rank / odd)))
