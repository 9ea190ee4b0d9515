"""Writes adapters as other tools do, with the safetensors library and no code of ours."""

import json

import numpy as np
from naming import ORIGINAL, flat
from safetensors.numpy import save_file

TO_ORIGINAL = {ours: original for original, ours in ORIGINAL.items()}


def split(name):
    component, _, path = name.partition(".")
    return component, path


def kohya(name):
    component, path = split(name)
    body = f"lora_{'unet' if component == 'unet' else 'te'}_{flat(path)}"
    return f"{body}.lora_down.weight", f"{body}.lora_up.weight", f"{body}.alpha"


def kohya_te1(name):
    return tuple(key.replace("lora_te_", "lora_te1_") for key in kohya(name))


def kohya_ldm(name):
    component, path = split(name)
    if component != "unet":
        return kohya(name)
    body = f"lora_unet_{flat(TO_ORIGINAL[path])}"
    return f"{body}.lora_down.weight", f"{body}.lora_up.weight", f"{body}.alpha"


def diffusers(name):
    return f"{name}.lora_A.weight", f"{name}.lora_B.weight", None


def diffusers_old(name):
    """What diffusers wrote in 2023: processors, `lora_linear_layer` in the text encoder."""
    component, path = split(name)
    if component == "text_encoder":
        where = f"{name}.lora_linear_layer"
        return f"{where}.down.weight", f"{where}.up.weight", None
    if ".to_" in path:
        where = path.replace(".to_", ".processor.to_").removesuffix(".0")
        return f"unet.{where}_lora.down.weight", f"unet.{where}_lora.up.weight", None
    return f"{name}.lora.down.weight", f"{name}.lora.up.weight", None


def processors_only(name):
    """The first form of all: attention processors without `unet.` before them."""
    return tuple(key and key.removeprefix("unet.") for key in diffusers_old(name))


def lycoris(name):
    """What SimpleTuner writes by the LyCORIS library: the U-Net alone, under its own prefix."""
    return tuple(key.replace("lora_unet_", "lycoris_") for key in kohya(name))


def comfy_saved(name):
    """What ComfyUI's node LoraSave writes."""
    component, path = split(name)
    if component == "unet":
        where = f"diffusion_model.{TO_ORIGINAL[path]}"
    else:
        where = f"text_encoders.clip_l.transformer.{path}"
    return f"{where}.lora_down.weight", f"{where}.lora_up.weight", None


def comfy_dotted(name):
    component, path = split(name)
    where = f"diffusion_model.{TO_ORIGINAL[path]}" if component == "unet" else name
    return f"{where}.lora_A.weight", f"{where}.lora_B.weight", f"{where}.alpha"


def save(adapter, path, keys_of, *, dtype=np.float16, alpha=True, metadata=None):
    """Write `adapter` with foreign keys; without alpha every module must have scale 1."""
    tensors = {}
    for name, module in adapter.modules.items():
        down, up, alpha_key = keys_of(name)
        tensors[down] = module.down.astype(dtype)
        tensors[up] = module.up.astype(dtype)
        if alpha and alpha_key:
            tensors[alpha_key] = np.array(module.alpha, dtype)
    save_file(tensors, path, metadata=metadata)


def save_peft(adapter, folder, **settings):
    folder.mkdir()
    tensors = {}
    for name, module in adapter.modules.items():
        _, path = split(name)
        path = path.removeprefix("text_model.")
        tensors[f"base_model.model.{path}.lora_A.weight"] = module.down
        tensors[f"base_model.model.{path}.lora_B.weight"] = module.up
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    table = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(table))
