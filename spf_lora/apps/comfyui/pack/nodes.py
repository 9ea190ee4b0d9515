"""The nodes."""

import re
from typing import Any, ClassVar

import comfy.hooks
import comfy.sample
import comfy.samplers
import comfy.sd
import folder_paths
import node_helpers
import torch

from .local import KEY, Local, Part, same
from .lora import hook_of, read_lora, words_of

_CFG = {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}
_LORAS = ("LORAS",)  # stands for the list of files, which is read whenever ComfyUI asks
_STRENGTH = {"default": 1.0, "min": -4.0, "max": 4.0, "step": 0.01}


def _share(default: float, tooltip: str, low: float = 0.0) -> tuple[str, dict[str, Any]]:
    return "FLOAT", {"default": default, "min": low, "max": 1.0, "step": 0.01, "tooltip": tooltip}


class _Node:
    """What every node has besides: `INPUTS`, all required, in ComfyUI's order."""

    CATEGORY = "spf-lora"
    INPUTS: ClassVar[dict[str, Any]]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return ComfyUI's table of inputs."""
        files = (folder_paths.get_filename_list("loras"),)
        return {
            "required": {key: files if row is _LORAS else row for key, row in cls.INPUTS.items()}
        }


class LoraLocal(_Node):
    """A LoRA that changes the base's own picture where it answers."""

    FUNCTION = "put_on"
    RETURN_TYPES, RETURN_NAMES = ("MODEL",), ("model",)
    DESCRIPTION = (
        "Draws the picture without the LoRA, finds where the LoRA changes it, and lets it change "
        "nothing else. Chain one node per LoRA; give KSampler the whole prompt."
    )

    INPUTS: ClassVar = {
        "model": ("MODEL",),
        "base": ("CONDITIONING", {"tooltip": "The prompt without what any LoRA adds."}),
        "full": ("CONDITIONING", {"tooltip": "The prompt with what this LoRA adds."}),
        "lora_name": _LORAS,
        "strength": ("FLOAT", _STRENGTH),
        "start_percent": _share(0.0, "Until then the picture is the base's."),
        "end_percent": _share(1.0, "From then on the LoRA is off."),
        "area_cap": _share(0.6, "Largest share of the picture that may change.", 0.01),
        "map_steps": (
            "INT",
            {
                "default": 0,
                "min": 0,
                "max": 100,
                "tooltip": "Steps to find the map in; 0: every step, 8: less work.",
            },
        ),
    }

    def put_on(
        self,
        model: Any,
        base: Any,
        full: Any,
        lora_name: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        area_cap: float,
        map_steps: int,
    ) -> tuple[Any]:
        """Return the MODEL with one more local LoRA."""
        if start_percent >= end_percent:
            raise ValueError(f"the LoRA starts at {start_percent:g} and ends at {end_percent:g}")
        below = model.get_attachment(KEY)
        parts = below.parts if below else ()
        if parts and not same(parts[0].base, base):
            raise ValueError(
                "the base conditioning differs from that of the LoRA Local before: give both the "
                "prompt without what any of them adds"
            )
        hooks = hook_of(read_lora(lora_name), model, strength)
        part = Part(hooks, base, full, start_percent, end_percent, area_cap)
        return (Local((*parts, part), map_steps).put_on(model),)


class LocalMap(_Node):
    """The control map of what was sampled."""

    FUNCTION = "look"
    RETURN_TYPES, RETURN_NAMES = ("MASK",), ("mask",)
    DESCRIPTION = "Where the LoRAs of LoRA Local changed the picture that was just sampled."

    INPUTS: ClassVar = {
        "model": ("MODEL", {"tooltip": "Of LoRA Local."}),
        "samples": ("LATENT", {"tooltip": "Of the sampler that the model was used by."}),
    }

    def look(self, model: Any, samples: dict[str, Any]) -> tuple[torch.Tensor]:
        """Return the map of the last sampling with this MODEL."""
        local = _local_of(model)
        if local.last_map is None:
            raise ValueError("the model was not sampled yet: connect the LATENT of its KSampler")
        return (_mask(local.last_map),)


class ControlMap(_Node):
    """The control map alone, for graphs of one's own."""

    FUNCTION = "find"
    RETURN_TYPES, RETURN_NAMES = ("MASK",), ("mask",)
    DESCRIPTION = "Where the LoRAs of LoRA Local would change the picture; draws no picture itself."

    INPUTS: ClassVar = {
        "model": ("MODEL", {"tooltip": "Of LoRA Local."}),
        "negative": ("CONDITIONING",),
        "latent_image": ("LATENT",),
        "seed": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF}),
        "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
        "cfg": ("FLOAT", _CFG),
        "sampler_name": (comfy.samplers.KSampler.SAMPLERS,),
        "scheduler": (comfy.samplers.KSampler.SCHEDULERS,),
    }

    def find(
        self,
        model: Any,
        negative: Any,
        latent_image: dict[str, Any],
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
    ) -> tuple[torch.Tensor]:
        """Return the map that KSampler would draw with, given the same seed and settings."""
        local = _local_of(model)
        alone = Local(local.parts, local.map_steps, map_only=True)
        latents = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        comfy.sample.sample(
            alone.put_on(model),
            comfy.sample.prepare_noise(latents, seed, latent_image.get("batch_index")),
            steps,
            cfg,
            sampler_name,
            scheduler,
            local.parts[0].full,
            negative,
            latents,
            seed=seed,
        )
        if alone.last_map is None:
            raise ValueError("the sampler took no step: give it one or more")
        return (_mask(alone.last_map),)


class LoraByCard(_Node):
    """A LoRA as the card in its file says: its words, its strength, from its start on."""

    FUNCTION = "encode"
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "STRING")
    RETURN_NAMES = ("positive", "negative", "text")
    DESCRIPTION = (
        "Adds the LoRA's words to the prompt and hooks the LoRA on both conditionings, at the "
        "strength and from the start that its card says. For files that spf-lora trained."
    )

    INPUTS: ClassVar = {
        "clip": ("CLIP",),
        "text": ("STRING", {"multiline": True, "tooltip": "Without the LoRA's words."}),
        "negative": ("CONDITIONING",),
        "lora_name": _LORAS,
        "strength": ("FLOAT", {**_STRENGTH, "tooltip": "Times what the card says."}),
    }

    def encode(
        self, clip: Any, text: str, negative: Any, lora_name: str, strength: float
    ) -> tuple[Any, Any, str]:
        """Return both conditionings and the text that was encoded."""
        lora = read_lora(lora_name)
        words = words_of(lora)
        full = text if _says(text, words.trigger) else f"{text}, {words.trigger}"
        hooks = comfy.hooks.create_hook_lora(lora.tensors, words.strength * strength, 0.0)
        begins = words.start_percent
        if begins:
            hooks.set_keyframes_on_hooks(_from(begins))
        reading = clip
        if any(key.startswith("lora_te") for key in lora.tensors):
            _, reading = comfy.sd.load_lora_for_models(
                None, clip, lora.tensors, 0.0, words.strength * strength
            )
        positive = _encoded(reading, full)
        if begins:
            first = node_helpers.conditioning_set_values(_encoded(clip, text), _range(0.0, begins))
            positive = first + node_helpers.conditioning_set_values(positive, _range(begins, 1.0))
        cache: dict[Any, Any] = {}
        hooked = [
            comfy.hooks.set_hooks_for_conditioning(conds, hooks, append_hooks=True, cache=cache)
            for conds in (positive, negative)
        ]
        return hooked[0], hooked[1], full


def _local_of(model: Any) -> Local:
    local = model.get_attachment(KEY)
    if not isinstance(local, Local):
        raise ValueError("the model has no LoRA Local: connect the MODEL of that node")
    return local


def _mask(where: torch.Tensor) -> torch.Tensor:
    """Return a map of latents as a MASK of pixels, (batch, h, w)."""
    return torch.nn.functional.interpolate(where.float(), scale_factor=8, mode="bilinear")[:, 0]


def _says(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def _encoded(clip: Any, text: str) -> Any:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def _range(start: float, end: float) -> dict[str, float]:
    return {"start_percent": start, "end_percent": end}


def _from(start: float) -> Any:
    """Return keyframes that are 0 before a share of the time steps and 1 from then on."""
    frames = comfy.hooks.HookKeyframeGroup()
    frames.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.0))
    frames.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=start))
    return frames


_NODES = {
    "SpfLoraLocal": (LoraLocal, "LoRA Local"),
    "SpfLoraByCard": (LoraByCard, "LoRA by its Card"),
    "SpfLoraControlMap": (ControlMap, "Control Map"),
    "SpfLoraLocalMap": (LocalMap, "Local Map"),
}
NODE_CLASS_MAPPINGS = {name: node for name, (node, _) in _NODES.items()}
NODE_DISPLAY_NAME_MAPPINGS = {name: title for name, (_, title) in _NODES.items()}
