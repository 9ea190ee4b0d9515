"""Every module of Stable Diffusion 1.5 that an adapter can move, with the shape of its weight."""

from dataclasses import dataclass
from functools import cache

from spf_lora.adapters.module import Shape, Spec
from spf_lora.base.families import TEXT_WIDTHS


@dataclass(frozen=True)
class Sizes:
    """What sets one model of SD1.5's block layout apart from another.

    Attributes:
        name: of the model.
        levels: channels of the U-Net's four levels.
        text: width of the text states.
        text_layers: of the text encoder.
    """

    name: str
    levels: tuple[int, int, int, int]
    text: int
    text_layers: int


SD15 = Sizes("Stable Diffusion 1.5", (320, 640, 1280, 1280), 768, 12)
EMBEDDED = Sizes("spf-lora's embedded base", (32, 64, 96, 96), 192, 3)
_FAMILIES = TEXT_WIDTHS | {EMBEDDED.text: EMBEDDED.name}


def block(module: str) -> str:
    """Return the block that a module belongs to, for instance `unet.down_blocks.1`."""
    parts = module.split(".")
    if parts[0] == "text_encoder":
        return f"text_encoder.{parts[4]}"
    numbered = len(parts) > 2 and parts[2].isdigit()
    return ".".join(parts[: 3 if numbered else 2])


def natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key that counts: layer 2 before layer 10."""
    return [(int(part) if part.isdigit() else -1, part) for part in text.split(".")]


@cache
def weight_shapes(sizes: Sizes = SD15) -> dict[str, Shape]:
    """Return canonical name -> weight shape: (out, in) or (out, in, height, width)."""
    shapes: dict[str, Shape] = {}
    levels, first, time = sizes.levels, sizes.levels[0], 4 * sizes.levels[0]
    for level, width in enumerate(levels):
        before = levels[max(level - 1, 0)]
        for layer in range(2):
            block = f"unet.down_blocks.{level}"
            shapes |= _resnet(
                f"{block}.resnets.{layer}", before if layer == 0 else width, width, time
            )
            if level < 3:
                shapes |= _attention(f"{block}.attentions.{layer}", width, sizes.text)
        if level < 3:
            shapes[f"{block}.downsamplers.0.conv"] = (width, width, 3, 3)
    for layer in range(2):
        shapes |= _resnet(f"unet.mid_block.resnets.{layer}", levels[-1], levels[-1], time)
    shapes |= _attention("unet.mid_block.attentions.0", levels[-1], sizes.text)
    shapes |= _up_blocks(sizes)
    shapes["unet.conv_in"] = (first, 4, 3, 3)
    shapes["unet.conv_out"] = (4, first, 3, 3)
    shapes["unet.time_embedding.linear_1"] = (time, first)
    shapes["unet.time_embedding.linear_2"] = (time, time)
    for layer in range(sizes.text_layers):
        shapes |= _text_layer(f"text_encoder.text_model.encoder.layers.{layer}", sizes.text)
    return shapes


def kohya_modules() -> list[str]:
    """Return the 192 + 72 modules that kohya's linear set covers."""
    return [
        name
        for name in weight_shapes()
        if ".attentions." in name or name.startswith("text_encoder")
    ]


def misfit(spec: Spec, sizes: Sizes = SD15) -> str | None:
    """Return why a module does not fit a model, or None if it does."""
    weight = weight_shapes(sizes).get(spec.name)
    if weight is None:
        return f"{spec.name} does not exist in {sizes.name}"
    moves = (spec.up_shape[0], *spec.down_shape[1:])
    if moves == weight or (weight[2:] == (1, 1) and moves == weight[:2]):
        return None
    return f"{spec.name} moves a weight of shape {moves}, but it is {weight}"


def family(specs: list[Spec]) -> str:
    """Return which base family an adapter is for, by the width of the text states it reads."""
    widths = {one.down_shape[1] for one in specs if one.name.endswith(("attn2.to_k", "attn2.to_v"))}
    if not widths and all(misfit(one) is None for one in specs):
        return "Stable Diffusion 1 (by its other shapes)"
    if len(widths) != 1:
        return "unknown"
    width = widths.pop()
    return _FAMILIES.get(width, f"unknown (text states {width} wide)")


def _up_blocks(sizes: Sizes) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    widths, time = sizes.levels[::-1], 4 * sizes.levels[0]
    for level, width in enumerate(widths):
        before = widths[max(level - 1, 0)]
        skip_end = widths[min(level + 1, 3)]
        block = f"unet.up_blocks.{level}"
        for layer in range(3):
            skip = width if layer < 2 else skip_end
            shapes |= _resnet(
                f"{block}.resnets.{layer}", (before if layer == 0 else width) + skip, width, time
            )
            if level > 0:
                shapes |= _attention(f"{block}.attentions.{layer}", width, sizes.text)
        if level < 3:
            shapes[f"{block}.upsamplers.0.conv"] = (width, width, 3, 3)
    return shapes


def _resnet(name: str, before: int, after: int, time: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        f"{name}.conv1": (after, before, 3, 3),
        f"{name}.time_emb_proj": (after, time),
        f"{name}.conv2": (after, after, 3, 3),
    }
    if before != after:
        shapes[f"{name}.conv_shortcut"] = (after, before, 1, 1)
    return shapes


def _attention(name: str, width: int, text: int) -> dict[str, Shape]:
    block = f"{name}.transformer_blocks.0"
    shapes: dict[str, Shape] = {f"{name}.proj_in": (width, width, 1, 1)}
    for attention, source in (("attn1", width), ("attn2", text)):
        shapes[f"{block}.{attention}.to_q"] = (width, width)
        shapes[f"{block}.{attention}.to_k"] = (width, source)
        shapes[f"{block}.{attention}.to_v"] = (width, source)
        shapes[f"{block}.{attention}.to_out.0"] = (width, width)
    shapes[f"{block}.ff.net.0.proj"] = (8 * width, width)
    shapes[f"{block}.ff.net.2"] = (width, 4 * width)
    shapes[f"{name}.proj_out"] = (width, width, 1, 1)
    return shapes


def _text_layer(name: str, width: int) -> dict[str, Shape]:
    square = (width, width)
    shapes: dict[str, Shape] = {f"{name}.self_attn.{one}_proj": square for one in "qkv"}
    shapes[f"{name}.self_attn.out_proj"] = square
    shapes[f"{name}.mlp.fc1"] = (4 * width, width)
    shapes[f"{name}.mlp.fc2"] = (width, 4 * width)
    return shapes
