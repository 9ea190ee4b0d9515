"""Block weights: one factor for each block of the U-Net, in the lists of 17 or 26 that users know.

The names are those of the original Stable Diffusion code: IN00 to IN11, M00, OUT00 to OUT11, and
BASE for the text encoder. The list of 17 names only the blocks that hold attention. Lists and
presets as in https://github.com/hako-mikan/sd-webui-lora-block-weight.
"""

import math
from collections.abc import Iterable, Mapping

from spf_lora.errors import RecipeError

BLOCKS_26 = (
    "BASE",
    *(f"IN{at:02}" for at in range(12)),
    "M00",
    *(f"OUT{at:02}" for at in range(12)),
)
_WITHOUT_ATTENTION = {"IN00", "IN03", "IN06", "IN09", "IN10", "IN11", "OUT00", "OUT01", "OUT02"}
BLOCKS_17 = tuple(one for one in BLOCKS_26 if one not in _WITHOUT_ATTENTION)
_STRONGEST = 1e3
_LISTS = {17: BLOCKS_17, 26: BLOCKS_26}

PRESETS: dict[str, tuple[float, ...]] = {
    "NONE": (0.0,) * 17,
    "ALL": (1.0,) * 17,
    "INS": (1.0,) * 4 + (0.0,) * 13,
    "IND": (1.0,) + (0.0,) * 3 + (1.0,) * 3 + (0.0,) * 10,
    "INALL": (1.0,) * 7 + (0.0,) * 10,
    "MIDD": (1.0,) + (0.0,) * 3 + (1.0,) * 8 + (0.0,) * 5,
    "OUTD": (1.0,) + (0.0,) * 7 + (1.0,) * 4 + (0.0,) * 5,
    "OUTS": (1.0,) + (0.0,) * 11 + (1.0,) * 5,
    "OUTALL": (1.0,) + (0.0,) * 7 + (1.0,) * 9,
    "ALL0.5": (0.5,) * 17,
}


def parse(text: str) -> dict[str, float]:
    """Read a preset's name, or 17 or 26 numbers with commas between them.

    Returns:
        Block -> factor.

    Raises:
        RecipeError: it is neither.
    """
    values = PRESETS.get(text.upper())
    if values is None:
        values = tuple(_number(word) for word in text.split(","))
    names = _LISTS.get(len(values))
    if names is None or not all(abs(value) <= _STRONGEST for value in values):
        raise RecipeError(
            f"block weights {text[:100]!r} are neither a preset nor 17 or 26 numbers up to "
            f"{_STRONGEST:g}",
            hint=f"choose {', '.join(PRESETS)}, or write 17 numbers: {', '.join(BLOCKS_17[:3])}...",
        )
    return dict(zip(names, values, strict=True))


def check(weights: Mapping[str, float], modules: Iterable[str]) -> None:
    """Refuse a list that says nothing of a block that an adapter moves.

    Raises:
        RecipeError: there is such a block.
    """
    missing = sorted({block_of(name) for name in modules} - weights.keys())
    if missing:
        raise RecipeError(
            f"the adapter moves {', '.join(missing)}, which a list of 17 does not name",
            hint=f"write 26 numbers: {', '.join(BLOCKS_26[:3])}...",
        )


def block_of(module: str) -> str:
    """Return the block that a module lies in; what lies in none of the U-Net's goes to BASE."""
    component, _, path = module.partition(".")
    words = path.split(".")
    if component != "unet" or words[0] in ("time_embedding", "conv_out"):
        return "BASE"
    if words[0] == "conv_in":
        return "IN00"
    if words[0] == "mid_block":
        return "M00"
    level, kind, layer = int(words[1]), words[2], int(words[3])
    if words[0] == "down_blocks":
        return f"IN{3 * level + (3 if kind == 'downsamplers' else layer + 1):02}"
    return f"OUT{3 * level + (2 if kind == 'upsamplers' else layer):02}"


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
