"""Several adapters as one in memory: the exact weighted sum of what they do to each weight."""

from collections.abc import Sequence

import numpy as np

from spf_lora.adapters.module import Adapter, Module
from spf_lora.errors import AdapterFileError


def combined(parts: Sequence[tuple[Adapter, float]]) -> Adapter:
    """Return one adapter that does what all parts do together at their strengths.

    Factors are put side by side in float32, so the rank of a module is the sum of the parts'. Parts
    of strength 0 are left out; metadata is not taken over. Files are merged by `spf_lora.merge`.

    Raises:
        AdapterFileError: two parts move a weight of different shapes.
    """
    having: dict[str, list[tuple[Module, float]]] = {}
    for adapter, strength in parts:
        for name, module in adapter.modules.items() if strength else ():
            having.setdefault(name, []).append((module, strength))
    return Adapter({name: _joined(name, having[name]) for name in sorted(having)})


def _joined(name: str, parts: list[tuple[Module, float]]) -> Module:
    shapes = {(one.down.shape[1:], one.up.shape[0]) for one, _ in parts}
    if len(shapes) > 1:
        raise AdapterFileError(
            f"the adapters move {name} of different shapes: {sorted(map(str, shapes))}",
            hint="they are for different base models and cannot be on together",
        )
    down = np.concatenate([np.asarray(one.down, np.float32) for one, _ in parts])
    up = np.concatenate(
        [np.asarray(one.up, np.float32) * np.float32(one.scale * w) for one, w in parts], axis=1
    )
    return Module(name, down, up, float(down.shape[0]))
