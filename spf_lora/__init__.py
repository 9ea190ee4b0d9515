"""Train, measure, stack and merge attribute LoRAs for Stable Diffusion 1.5.

The names in `__all__` are the library; docs/python.md has an example of each. Everything else is
private and may change in any version. A name is imported when it is first used, so that importing
the library takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load_base": "spf_lora.base.load",
    "read_adapter": "spf_lora.adapters.format.adapter_file",
    "write_adapter": "spf_lora.adapters.format.adapter_file",
    "find_adapter": "spf_lora.registry.names",
    "load_recipe": "spf_lora.api",
    "draw_pictures": "spf_lora.api",
    "train_adapter": "spf_lora.api",
    "evaluate_adapter": "spf_lora.api",
    "merge_adapters": "spf_lora.api",
    "verify_adapter": "spf_lora.adapters.check.checks",
}
_OTHER_NAMES = {"find_adapter": "resolve", "verify_adapter": "verify"}
__all__ = [
    "draw_pictures",
    "evaluate_adapter",
    "find_adapter",
    "load_base",
    "load_recipe",
    "merge_adapters",
    "read_adapter",
    "train_adapter",
    "verify_adapter",
    "write_adapter",
]

if TYPE_CHECKING:
    from spf_lora.adapters.check.checks import verify as verify_adapter
    from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
    from spf_lora.api import (
        draw_pictures,
        evaluate_adapter,
        load_recipe,
        merge_adapters,
        train_adapter,
    )
    from spf_lora.base.load import load_base
    from spf_lora.registry.names import resolve as find_adapter


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"spf_lora has no {name!r}; it has {', '.join(_HOMES)}")
    return getattr(import_module(_HOMES[name]), _OTHER_NAMES.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
