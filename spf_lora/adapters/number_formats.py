"""Numbers as files store them: precision, scale, rounding in one place."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from spf_lora.adapters.module import Array, Module
from spf_lora.errors import AdapterFileError

Values = npt.NDArray[np.float32]

# numpy widens the indices of a look-up to 64 bits; so many of them stay in the cache
_CHUNK = 1 << 15

FLAG_TO_DTYPE = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}

# name -> numpy dtype of the stored bytes; bf16 is read as its 16 bits
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}


def widen_bf16(bits: Array) -> Array:
    """Return float32 numbers from bf16 bits (exact)."""
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)


# dtype -> signed and unsigned integers of its size, pattern of +inf, pattern of -inf
_INFINITE: dict[str, tuple[Any, Any, int, int]] = {
    "F16": (np.int16, np.uint16, 0x7C00, 0xFC00),
    "BF16": (np.int16, np.uint16, 0x7F80, 0xFF80),
    "F32": (np.int32, np.uint32, 0x7F80_0000, 0xFF80_0000),
    "F64": (np.int64, np.uint64, 0x7FF0_0000_0000_0000, 0xFFF0_0000_0000_0000),
}


LARGEST_WEIGHT = 1e6  # real ones stay below 100; larger ones overflow in what is made of them
# dtype -> patterns of the first numbers beyond it
_BEYOND = {
    "F16": (0x7C00, 0xFC00),  # all finite ones are smaller
    "BF16": (0x4975, 0xC975),
    "F32": (0x4974_2401, 0xC974_2401),
    "F64": (0x412E_8480_0000_0001, 0xC12E_8480_0000_0001),
}


def all_finite(stored: Array, dtype: str) -> bool:
    """Tell whether stored numbers hold no NaN and no inf."""
    return _all_below(stored, dtype, _INFINITE[dtype][2:])


def all_in_range(stored: Array, dtype: str) -> bool:
    """Tell whether stored numbers are finite and none is larger than `LARGEST_WEIGHT`."""
    return _all_below(stored, dtype, _BEYOND[dtype])


def _all_below(stored: Array, dtype: str, beyond: tuple[int, int]) -> bool:
    """Compare numbers by their bits.

    As integers, positive numbers sort as they are and stay below a positive bound; with the sign
    bit counted as the highest, negative ones stay below a negative one. NaN lies beyond all. Two
    maxima are ten times faster than isfinite.
    """
    if stored.size == 0:
        return True
    signed, unsigned = _INFINITE[dtype][:2]
    return (
        int(stored.view(signed).max()) < beyond[0] and int(stored.view(unsigned).max()) < beyond[1]
    )


def effective_up(module: Module) -> Values:
    """Return `scale * up` rounded to the dtype that `up` is stored in."""
    dtype = module.spec().dtype
    if module.scale == 1:
        return np.asarray(module.up, np.float32)
    up = scaled(to_stored(module.up, dtype, module.name), module.scale, dtype, module.name)
    return up_values(up, dtype)


def scaled(stored: Array, scale: float, dtype: str, name: str, then: float = 1.0) -> Array:
    """Return stored numbers times `scale`, rounded to their dtype, times a power of two.

    A 16-bit number has 65,536 values only, so those are looked up instead of computed.

    Raises:
        AdapterFileError: a number of the module `name` is too large for the dtype.
    """
    product = _scaled(stored, scale, dtype, then)
    _check_finite(product, dtype, name)
    return product


def _scaled(stored: Array, scale: float, dtype: str, then: float) -> Array:
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
