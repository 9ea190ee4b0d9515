"""The apps' naming rules, restated from reading their loaders; docs/formats.md names the sources.

Nothing here is taken from spf_lora, so that the product's own tables can be wrong and be caught.
"""

import re

ATTENTION = (
    "proj_in",
    *(f"transformer_blocks.0.attn{one}.to_{part}" for one in (1, 2) for part in "qkv"),
    *(f"transformer_blocks.0.attn{one}.to_out.0" for one in (1, 2)),
    "transformer_blocks.0.ff.net.0.proj",
    "transformer_blocks.0.ff.net.2",
    "proj_out",
)
RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
# the layout of the original U-Net, written out: original place -> diffusers place
ATTENTIONS = {
    "input_blocks.1.1": "down_blocks.0.attentions.0",
    "input_blocks.2.1": "down_blocks.0.attentions.1",
    "input_blocks.4.1": "down_blocks.1.attentions.0",
    "input_blocks.5.1": "down_blocks.1.attentions.1",
    "input_blocks.7.1": "down_blocks.2.attentions.0",
    "input_blocks.8.1": "down_blocks.2.attentions.1",
    "middle_block.1": "mid_block.attentions.0",
    "output_blocks.3.1": "up_blocks.1.attentions.0",
    "output_blocks.4.1": "up_blocks.1.attentions.1",
    "output_blocks.5.1": "up_blocks.1.attentions.2",
    "output_blocks.6.1": "up_blocks.2.attentions.0",
    "output_blocks.7.1": "up_blocks.2.attentions.1",
    "output_blocks.8.1": "up_blocks.2.attentions.2",
    "output_blocks.9.1": "up_blocks.3.attentions.0",
    "output_blocks.10.1": "up_blocks.3.attentions.1",
    "output_blocks.11.1": "up_blocks.3.attentions.2",
}
# place -> (diffusers place, whether its width changes and it so has a shortcut)
RESNETS = {
    "input_blocks.1.0": ("down_blocks.0.resnets.0", False),
    "input_blocks.2.0": ("down_blocks.0.resnets.1", False),
    "input_blocks.4.0": ("down_blocks.1.resnets.0", True),
    "input_blocks.5.0": ("down_blocks.1.resnets.1", False),
    "input_blocks.7.0": ("down_blocks.2.resnets.0", True),
    "input_blocks.8.0": ("down_blocks.2.resnets.1", False),
    "input_blocks.10.0": ("down_blocks.3.resnets.0", False),
    "input_blocks.11.0": ("down_blocks.3.resnets.1", False),
    "middle_block.0": ("mid_block.resnets.0", False),
    "middle_block.2": ("mid_block.resnets.1", False),
    **{
        f"output_blocks.{3 * level + layer}.0": (f"up_blocks.{level}.resnets.{layer}", True)
        for level in range(4)
        for layer in range(3)
    },
}
SINGLE = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.6.0.op": "down_blocks.1.downsamplers.0.conv",
    "input_blocks.9.0.op": "down_blocks.2.downsamplers.0.conv",
    "output_blocks.2.1.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.5.2.conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks.8.2.conv": "up_blocks.2.upsamplers.0.conv",
}


def original_names():
    """Original U-Net path -> diffusers path, for every layer of Stable Diffusion 1.5."""
    names = dict(SINGLE)
    for place, ours in ATTENTIONS.items():
        names |= {f"{place}.{part}": f"{ours}.{part}" for part in ATTENTION}
    for place, (ours, shortcut) in RESNETS.items():
        for part, original in RESNET.items():
            if part != "conv_shortcut" or shortcut:
                names[f"{place}.{original}"] = f"{ours}.{part}"
    return names


ORIGINAL = original_names()
TEXT = [
    f"text_model.encoder.layers.{layer}.{part}"
    for layer in range(12)
    for part in (*(f"self_attn.{one}_proj" for one in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")
]


def flat(path):
    return path.replace(".", "_")


def a1111_place(stem):
    """The name of the layer that A1111 looks a kohya stem up by, or None."""
    known = {f"diffusion_model_{flat(original)}" for original in ORIGINAL}
    known |= {f"transformer_{flat(path)}" for path in TEXT}
    for pattern, place in A1111_RULES:
        found = re.fullmatch(pattern, stem)
        if found:
            name = place(*(int(one) if one.isdigit() else one for one in found.groups()))
            return name if name in known else None
    for theirs, ours in (("lora_unet", "diffusion_model"), ("lora_te1_text", "transformer_text")):
        if stem.replace(theirs, ours) in known:
            return stem.replace(theirs, ours)
    return None


def _suffix(kind, rest):
    return flat(RESNET[rest]) if kind == "resnets" and rest in RESNET else rest


# A1111: a kohya stem is rewritten by the first of these that matches
A1111_RULES = (
    (r"lora_unet_conv_in", lambda: "diffusion_model_input_blocks_0_0"),
    (r"lora_unet_conv_out", lambda: "diffusion_model_out_2"),
    (
        r"lora_unet_time_embedding_linear_(\d+)",
        lambda which: f"diffusion_model_time_embed_{which * 2 - 2}",
    ),
    (
        r"lora_unet_down_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)",
        lambda level, kind, layer, rest: (
            f"diffusion_model_input_blocks_{1 + level * 3 + layer}_{int(kind == 'attentions')}"
            f"_{_suffix(kind, rest)}"
        ),
    ),
    (
        r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)",
        lambda kind, layer, rest: (
            f"diffusion_model_middle_block_{1 if kind == 'attentions' else layer * 2}"
            f"_{_suffix(kind, rest)}"
        ),
    ),
    (
        r"lora_unet_up_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)",
        lambda level, kind, layer, rest: (
            f"diffusion_model_output_blocks_{level * 3 + layer}_{int(kind == 'attentions')}"
            f"_{_suffix(kind, rest)}"
        ),
    ),
    (
        r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv",
        lambda level: f"diffusion_model_input_blocks_{3 + level * 3}_0_op",
    ),
    (
        r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv",
        lambda level: f"diffusion_model_output_blocks_{2 + level * 3}_{2 if level else 1}_conv",
    ),
    (
        r"lora_te_text_model_encoder_layers_(\d+)_(.+)",
        lambda layer, rest: f"transformer_text_model_encoder_layers_{layer}_{rest}",
    ),
)


def a1111_reads(key):
    stem, _, part = key.partition(".")
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    return part in parts and a1111_place(stem) is not None


def forge_places():
    """Every prefix that Forge, which took an older ComfyUI's, knows for Stable Diffusion 1.5."""
    places = set()
    for original, path in ORIGINAL.items():
        places |= {f"lora_unet_{flat(original)}", f"lora_unet_{flat(path)}"}
        places.add(f"diffusion_model.{original}")
        processor = path.replace(".to_", ".processor.to_").removesuffix(".0")
        if not processor.endswith(".to_out"):
            processor = path.replace(".to_", ".processor.to_")
        places |= {processor, f"unet.{processor}"}
    for path in TEXT:
        places |= {f"lora_te_{flat(path)}", f"lora_te1_{flat(path)}", f"text_encoder.{path}"}
    return places


FORGE_PLACES = forge_places()
COMFY_PLACES = FORGE_PLACES | {f"lycoris_{flat(path)}" for path in ORIGINAL.values()}
COMFY_PLACES |= {f"text_encoders.clip_l.transformer.{path}" for path in TEXT}
COMFY_ENDINGS = (
    *(".alpha", ".lora_up.weight", ".lora_down.weight", "_lora.up.weight", "_lora.down.weight"),
    *(".lora_A.weight", ".lora_B.weight", ".lora.up.weight", ".lora.down.weight"),
    *(".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    *(".lora_A.default.weight", ".lora_B.default.weight"),
)


def comfy_reads(key, places=COMFY_PLACES):
    return any(
        key.endswith(ending) and key.removesuffix(ending) in places for ending in COMFY_ENDINGS
    )


def forge_reads(key):
    return comfy_reads(key, FORGE_PLACES)


# InvokeAI groups by what stands before the first dot and looks it up among flattened module names
INVOKE_PLACES = {f"lora_unet_{flat(path)}" for path in ORIGINAL.values()}
INVOKE_PLACES |= {f"lora_{text}_{flat(path)}" for path in TEXT for text in ("te", "te1")}


def invoke_reads(key):
    stem, _, part = key.partition(".")
    return part in ("lora_down.weight", "lora_up.weight", "alpha") and stem in INVOKE_PLACES


def invoke_base(shapes):
    """The base that InvokeAI tells by the width of text states: 768 is Stable Diffusion 1."""
    for key, shape in shapes.items():
        attends = "_attn2_to_k." in key or "_attn2_to_v." in key
        text = key.startswith(("lora_te_", "lora_te1_")) and "_mlp_" not in key
        if key.endswith(".lora_down.weight") and (attends or text):
            return {768: "sd-1", 1024: "sd-2", 2048: "sdxl"}.get(shape[1])
    return None


def draw_things_base(shapes):
    """Draw Things looks at attn2 to_k of down block 1 or up block 1, in either naming."""
    places = ("down_blocks_1_attentions_0", "up_blocks_1_attentions_0", "input_blocks_4_1")
    for key, shape in shapes.items():
        where = flat(key)
        placed = any(place in where for place in places) and "attn2_to_k" in where
        if placed and ("lora_down" in key or "lora_A" in key):
            return {768: "v1", 1024: "v2", 2048: "sdxl"}.get(shape[1])
    return None
