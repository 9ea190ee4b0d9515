"""Scale: one alpha for a whole file, every rounding but one exact.

Some apps scale by the first alpha they meet, so a file gets one alpha and the rest of each scale
moves into `up`. Every step but one (rounding `scale * up` to the stored dtype) is a power of two
or a padding with zeros, so the product is rounded once whichever layout is written. That is what
lets one adapter keep one content id in every layout.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spf_lora.adapters.module import Array, Module, Spec
from spf_lora.adapters.number_formats import scaled, to_stored


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
        up = scaled(up, module.scale, dtype, module.name, 1 / written_scale)
    more = target.rank - module.rank
    if more:
        down = np.pad(down, [(0, more)] + [(0, 0)] * (down.ndim - 1))
        up = np.pad(up, [(0, 0), (0, more)] + [(0, 0)] * (up.ndim - 2))
    return down, up


def _odd_part(rank: int) -> int:
    return rank // (rank & -rank)


def _padded(rank: int, odd: int) -> int:
    return odd << max(0, math.ceil(math.log2(rank / odd)))
