"""Adapters of other methods as teachers: what each does to a weight, multiplied out.

LoHa (arXiv 2108.06098), LoKr (2212.10650), LoCon with a Tucker core, DoRA (2402.09353) and OFT
(2306.07280), in the keys of LyCORIS and kohya. Whatever the method, a weight moves by one matrix,
and a plain module of full rank holds any matrix. It is large: for drawing, not for a file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spf_lora.adapters.format.container import Container, open_container
from spf_lora.adapters.format.keys import multiplied_method, parse_factors
from spf_lora.adapters.format.reading import finite
from spf_lora.adapters.module import Adapter, Module
from spf_lora.adapters.number_formats import up_values
from spf_lora.errors import AdapterFileError

Matrix = npt.NDArray[np.float32]
WeightOf = Callable[[str], Matrix]
_Factors = Mapping[str, Matrix]


def method_of(path: Path) -> str | None:
    """Return the method of a file that must be multiplied out, such as LoHa; None for any other.

    Raises:
        AdapterFileError: it is no safetensors file.
    """
    if path.is_dir():  # peft's
        return None
    with open_container(path) as container:
        return multiplied_method(container.entries)


def read_multiplied(path: Path, weight_of: WeightOf) -> Adapter:
    """Read an adapter of one of the methods as a plain one of full rank.

    Args:
        path: a .safetensors file.
        weight_of: canonical name of a module -> the base's weight, which DoRA and OFT turn.

    Raises:
        AdapterFileError: anything about it is not as it should be.
    """
    with open_container(path) as container:
        modules = {}
        for name, keys in sorted(parse_factors(container.entries).items()):
            factors = {factor: _numbers(container, key) for factor, key in keys.items()}
            weight = weight_of(name)
            try:
                modules[name] = _plain(name, _checked(factors, weight))
            except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
                raise AdapterFileError(
                    f"{path}: the factors {', '.join(sorted(factors))} of {name} do not fit a "
                    f"weight of shape {weight.shape}",
                    hint="it is damaged, or for another base: name that one with --base",
                ) from error
        return Adapter(modules, dict(container.metadata))


def _numbers(container: Container, key: str) -> Matrix:
    entry = container.entries[key]
    if entry.dtype not in ("F16", "BF16", "F32", "F64"):
        raise AdapterFileError(
            f"{container.path} stores {key!r} as {entry.dtype}, not as floating point",
            hint="quantised files are not read; get the fp16 version",
        )
    return up_values(finite(container, entry), entry.dtype)


def _plain(name: str, moved: Matrix) -> Module:
    """Return a module that moves a weight by any matrix: one factor is that, the other is one."""
    out = len(moved)
    if moved.ndim == 4:
        return Module(name, moved, np.eye(out, dtype=np.float32)[:, :, None, None], float(out))
    rank = min(moved.shape)
    one = np.eye(rank, dtype=np.float32)
    down, up = (moved, one) if rank == out else (one, moved)
    return Module(name, down, up, float(rank))


def _checked(factors: _Factors, weight: Matrix) -> Matrix:
    """Return what is added to a weight, as large as that; a `ValueError` says it is not."""
    longest = max(len(weight), weight.size // len(weight))
    if any(max(one.shape, default=1) > longest for one in factors.values()):
        raise ValueError("a factor is larger than the weight")
    with np.errstate(all="ignore"):
        moved = _moved(factors, weight).reshape(weight.shape)
    if not np.isfinite(moved).all():
        raise ValueError("its product is not finite")
    return moved


def _moved(factors: _Factors, weight: Matrix) -> Matrix:
    """Return what is added to a weight."""
    if "oft_blocks" in factors:
        return _rotated(factors, weight)
    if "hada_w1_a" in factors:
        moved = _half(factors, "hada_w1", "hada_t1") * _half(factors, "hada_w2", "hada_t2")
        rank: int | None = len(factors["hada_w1_b"])
    elif "lora_down.weight" in factors:
        moved, rank = _low_rank(factors), len(factors["lora_down.weight"])
    else:
        moved, rank = _kronecker(factors)
    alpha = float(factors["alpha"].reshape(())) if "alpha" in factors else rank
    moved = moved.reshape(weight.shape) * np.float32(1 if rank is None else (alpha or 0) / rank)
    return _decomposed(moved, weight, factors["dora_scale"]) if "dora_scale" in factors else moved


def _half(factors: _Factors, name: str, core: str) -> Matrix:
    """Return a @ b, or with a core t the sum over i, j of a[i] b[j] t[i, j]."""
    a, b = factors[f"{name}_a"], factors[f"{name}_b"]
    half: Matrix = (
        np.einsum("ij...,ip,jr->pr...", factors[core], a, b) if core in factors else a @ b
    )
    return half


def _low_rank(factors: _Factors) -> Matrix:
    up, down = (factors[f"lora_{one}.weight"] for one in ("up", "down"))
    up, flat = up.reshape(len(up), -1), down.reshape(len(down), -1)
    if "lora_mid.weight" not in factors:
        flat_moved: Matrix = up @ flat
        return flat_moved
    moved: Matrix = np.einsum("mn...,im,nj->ij...", factors["lora_mid.weight"], up, flat)
    return moved


def _kronecker(factors: _Factors) -> tuple[Matrix, int | None]:
    """Return w1 (x) w2, each whole or a product, and the rank; None where both are whole."""
    w1 = factors["lokr_w1"] if "lokr_w1" in factors else _half(factors, "lokr_w1", "")
    w2 = factors["lokr_w2"] if "lokr_w2" in factors else _half(factors, "lokr_w2", "lokr_t2")
    low = [factors[one] for one in ("lokr_w1_b", "lokr_w2_b") if one in factors]
    return np.kron(w1, w2.reshape(len(w2), -1)), len(low[0]) if low else None


def _decomposed(moved: Matrix, weight: Matrix, scale: Matrix) -> Matrix:
    """Return DoRA's update: the moved weight, each row or column as long as `scale` says."""
    new = weight + moved
    by_row = scale.size == len(weight)
    axes = tuple(range(1, new.ndim)) if by_row else (0, *range(2, new.ndim))
    length = np.sqrt(np.square(new).sum(axis=axes, keepdims=True)) + np.finfo(np.float32).eps
    update: Matrix = new * (scale.reshape(length.shape) / length) - weight
    return update


def _rotated(factors: _Factors, weight: Matrix) -> Matrix:
    """Return OFT's update: blocks of rows are turned by (1 + q) / (1 - q), q skew-symmetric."""
    blocks = factors["oft_blocks"]
    q = blocks - blocks.transpose(0, 2, 1)
    longest = float(factors["alpha"].reshape(())) * len(weight) if "alpha" in factors else 0.0
    length = float(np.sqrt(np.square(q).sum()))
    if 0 < longest < length:
        q = q * np.float32(longest / length)
    one = np.eye(blocks.shape[1], dtype=np.float32)
    turn = (one + q) @ np.linalg.inv(one - q) - one
    rows = weight.reshape(len(blocks), blocks.shape[1], -1)
    moved: Matrix = np.einsum("knm,knp->kmp", turn, rows).reshape(weight.shape)
    if "rescale" not in factors:
        return moved
    rescale = factors["rescale"].reshape(len(weight), *[1] * (weight.ndim - 1))
    turned: Matrix = rescale * (weight + moved) - weight
    return turned
