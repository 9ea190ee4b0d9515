"""The layouts we write, one row each: how a module's tensors are named and scaled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spf_lora.adapters.format import keys, scaling
from spf_lora.adapters.module import Spec

TEXT_ENCODER = "text_encoder."
UNET = "unet."


@dataclass(frozen=True)
class Layout:
    """How one family of apps wants an adapter.

    Attributes:
        down: module name -> key of its down factor.
        up: module name -> key of its up factor.
        alpha: module name -> key of its alpha, or None where the layout has none.
        targets: chooses rank and alpha of each module.
        folder: the layout is a folder with a configuration, not one file.
    """

    down: Callable[[str], str]
    up: Callable[[str], str]
    alpha: Callable[[str], str] | None
    targets: Callable[[Mapping[str, Spec]], dict[str, scaling.Target]]
    folder: bool = False


def peft_path(module: str) -> str:
    """Return a module's path inside its own model, as transformers 5 and diffusers name it."""
    for component in (UNET, f"{TEXT_ENCODER}text_model."):
        module = module.removeprefix(component)
    return module


WRITABLE: dict[str, Layout] = {
    "kohya": Layout(
        down=lambda module: f"{keys.kohya_body(module)}.lora_down.weight",
        up=lambda module: f"{keys.kohya_body(module)}.lora_up.weight",
        alpha=lambda module: f"{keys.kohya_body(module)}.alpha",
        targets=scaling.one_alpha,
    ),
    "diffusers": Layout(
        down=lambda module: f"{module}.lora_A.weight",
        up=lambda module: f"{module}.lora_B.weight",
        alpha=None,
        targets=scaling.scale_one,
    ),
    "peft": Layout(
        down=lambda module: f"base_model.model.{peft_path(module)}.lora_A.weight",
        up=lambda module: f"base_model.model.{peft_path(module)}.lora_B.weight",
        alpha=None,
        targets=scaling.one_alpha,
        folder=True,
    ),
}
