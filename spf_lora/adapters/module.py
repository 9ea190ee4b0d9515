"""One adapted module and one adapter, as numpy arrays: what every other part works with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from spf_lora.errors import AdapterFileError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_STORED_NAMES = {"float16": "F16", "float32": "F32", "float64": "F64"}


@dataclass(frozen=True)
class Spec:
    """What is known of a module without reading its numbers.

    Attributes:
        name: canonical name, such as `unet.mid_block.attentions.0.proj_in`.
        down_shape: (rank, in) or, for a convolution, (rank, in, height, width).
        up_shape: (out, rank) or (out, rank, 1, 1).
        alpha: numerator of the scale, rounded to float32 as files store it.
        dtype: how `up` is stored: F16, BF16, F32 or F64.
    """

    name: str
    down_shape: Shape
    up_shape: Shape
    alpha: float
    dtype: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", float(np.float32(self.alpha)))
        _check_shapes(self.name, self.down_shape, self.up_shape)

    @property
    def rank(self) -> int:
        """Width of the bottleneck between down and up."""
        return self.down_shape[0]

    @property
    def scale(self) -> float:
        """What `up @ down` is multiplied by."""
        return self.alpha / self.rank

    @property
    def kind(self) -> str:
        """`linear` or `conv`."""
        return "conv" if len(self.down_shape) == 4 else "linear"


@dataclass(frozen=True, eq=False)
class Module:
    """One adapted module: its weight moves by `scale * up @ down`.

    Attributes:
        name: canonical name, such as `unet.mid_block.attentions.0.proj_in`.
        down: (rank, in) or, for a convolution, (rank, in, height, width).
        up: (out, rank) or (out, rank, 1, 1).
        alpha: the delta's scale is `alpha / rank`.
        stored: dtype in the file; numpy knows no bf16, so such arrays are float32 here.
    """

    name: str
    down: Array
    up: Array
    alpha: float
    stored: str = ""

    def __post_init__(self) -> None:
        self.spec()

    def spec(self) -> Spec:
        """Return the module's shapes and scale."""
        stored = self.stored or _STORED_NAMES.get(self.up.dtype.name, "F32")
        return Spec(self.name, self.down.shape, self.up.shape, self.alpha, stored)

    @property
    def rank(self) -> int:
        """Width of the bottleneck between down and up."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """What `up @ down` is multiplied by."""
        return self.spec().scale

    @property
    def kind(self) -> str:
        """`linear` or `conv`."""
        return self.spec().kind


@dataclass(frozen=True, eq=False)
class Adapter:
    """A whole adapter in memory.

    Attributes:
        modules: the adapted modules by canonical name.
        metadata: the file's text entries, all strings.
    """

    modules: Mapping[str, Module]
    metadata: Mapping[str, str] = field(default_factory=dict)


def _check_shapes(name: str, down: Shape, up: Shape) -> None:
    linear = len(down) == 2 and len(up) == 2
    conv = len(down) == 4 and len(up) == 4 and up[2:] == (1, 1)
    if not (linear or conv) or 0 in (*down, *up):
        raise AdapterFileError(
            f"{name}: down {down} and up {up} are no LoRA pair",
            hint="a linear pair is (rank, in) and (out, rank); a convolution pair is "
            "(rank, in, h, w) and (out, rank, 1, 1)",
        )
    if down[0] != up[1]:
        raise AdapterFileError(
            f"{name}: down has rank {down[0]} but up has rank {up[1]}",
            hint="the file is damaged; get it again from where it came",
        )
