"""Runs the real ComfyUI's main.py: `python comfyui_main.py MAIN.PY [its words]`."""

import importlib.util
import runpy
import sys
import types
from pathlib import Path
from typing import Any


def stand_in_for_torchvision() -> None:
    """ComfyUI imports torchvision, and for what we run uses none of it."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    from importlib.machinery import ModuleSpec

    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything(name)

        def __call__(self, *_: Any, **__: Any) -> "Anything":
            return self

    for name in ("torchvision", "torchvision.transforms"):
        module = Anything(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None), []
        sys.modules[name] = module


if __name__ == "__main__":
    import transformers  # noqa: F401  # it must not see the torchvision that stands in

    stand_in_for_torchvision()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
