"""The layouts we write, one row each: how a module's tensors are named and scaled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spf_lora.adapters import keys, scaling
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
    """

    down: Callable[[str], str]
    up: Callable[[str], str]
    alpha: Callable[[str], str] | None
    targets: Callable[[Mapping[str, Spec]], dict[str, scaling.Target]]


def _peft_body(module: str) -> str:
    return f"base_model.model.{module.removeprefix(UNET).removeprefix(TEXT_ENCODER)}"


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
        down=lambda module: f"{_peft_body(module)}.lora_A.weight",
        up=lambda module: f"{_peft_body(module)}.lora_B.weight",
        alpha=None,
        targets=scaling.one_alpha,
    ),
}
