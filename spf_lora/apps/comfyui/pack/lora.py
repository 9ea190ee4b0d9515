"""LoRA files as ComfyUI's weight hooks, and what a card of spf-lora says."""

import json
from typing import Any, NamedTuple

import comfy.hooks
import comfy.lora
import comfy.lora_convert
import comfy.utils
import folder_paths


class Lora(NamedTuple):
    """A file of `models/loras`.

    Attributes:
        name: as ComfyUI lists it.
        tensors: by the names of the file.
        card: what spf-lora wrote about it; empty if another program wrote the file.
    """

    name: str
    tensors: dict[str, Any]
    card: dict[str, Any]


class Words(NamedTuple):
    """What a card says about how to draw.

    Attributes:
        trigger: what asks for the LoRA.
        strength: that it was measured at.
        start_percent: share of the time steps that go without it.
    """

    trigger: str
    strength: float
    start_percent: float


def read_lora(name: str) -> Lora:
    """Read a file of `models/loras`; one that is there no more is named in the error."""
    path = folder_paths.get_full_path_or_raise("loras", name)
    tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    try:
        card = json.loads((metadata or {}).get("spf_lora", "{}"))
    except (ValueError, RecursionError):
        card = {}
    return Lora(name, tensors, card if isinstance(card, dict) else {})


def words_of(lora: Lora) -> Words:
    """Return what the card says; a `ValueError` tells that there is none."""
    trigger = lora.card.get("trigger")
    if not isinstance(trigger, str) or not trigger.strip():
        raise ValueError(
            f"{lora.name} has no card that says which words ask for it. Files that spf-lora "
            "trained have one; use LoraLoader or LoRA Local for others."
        )
    metrics = lora.card.get("metrics")
    return Words(
        trigger.strip(),
        _number(metrics, "strength", 1.0, -4.0, 4.0),
        _number(metrics, "start_percent", 0.0, 0.0, 0.99),
    )


def _number(table: Any, key: str, default: float, low: float, high: float) -> float:
    value = table.get(key) if isinstance(table, dict) else None
    return float(value) if isinstance(value, int | float) and low <= value <= high else default


def hook_of(lora: Lora, model: Any, strength: float) -> Any:
    """Return the U-Net part of a LoRA as hooks; a `ValueError` tells that it is for other models.

    Args:
        lora: the file.
        model: the MODEL that it is for.
        strength: of what it adds.
    """
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    tensors = comfy.lora_convert.convert_lora(lora.tensors)
    patches = comfy.lora.load_lora(tensors, keys, log_missing=False)
    weights = model.model_state_dict()
    wrong = [key for key, patch in patches.items() if not _fits(patch, key, weights)]
    if not patches or wrong:
        what = (
            f"its {wrong[0]} has another shape" if wrong else "it has none of the model's modules"
        )
        raise ValueError(
            f"{lora.name} is a LoRA for another family of models: {what}. Choose one that was "
            "made for this model."
        )
    hooks = comfy.hooks.create_hook_lora(patches, strength, 0.0)
    for hook in hooks.hooks:
        hook.need_weight_init = False  # the patches are ready
    return hooks


def _fits(patch: Any, key: Any, weights: dict[str, Any]) -> bool:
    """Tell whether a patch is for these weights; only plain LoRA on whole ones says its shape."""
    if isinstance(key, tuple):  # a part of a weight, such as the queries of a joint one
        return key[0] in weights
    weight = weights.get(key)
    if getattr(patch, "name", "") != "lora" or weight is None:
        return weight is not None
    up, down = patch.weights[:2]
    return bool(up.shape[0] == weight.shape[0] and down[0].numel() == weight[0].numel())
