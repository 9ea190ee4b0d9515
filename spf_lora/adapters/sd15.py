"""Every module of Stable Diffusion 1.5 that an adapter can move, with the shape of its weight."""

from functools import cache

from spf_lora.adapters.module import Shape, Spec

_WIDTHS = (320, 640, 1280, 1280)
_TEXT_WIDTH = 768
_TIME_WIDTH = 1280
_FAMILY_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}


@cache
def weight_shapes() -> dict[str, Shape]:
    """Return canonical name -> weight shape: (out, in) or (out, in, height, width)."""
    shapes: dict[str, Shape] = {}
    for level, width in enumerate(_WIDTHS):
        before = _WIDTHS[max(level - 1, 0)]
        for layer in range(2):
            block = f"unet.down_blocks.{level}"
            shapes |= _resnet(f"{block}.resnets.{layer}", before if layer == 0 else width, width)
            if level < 3:
                shapes |= _attention(f"{block}.attentions.{layer}", width)
        if level < 3:
            shapes[f"{block}.downsamplers.0.conv"] = (width, width, 3, 3)
    for layer in range(2):
        shapes |= _resnet(f"unet.mid_block.resnets.{layer}", _WIDTHS[-1], _WIDTHS[-1])
    shapes |= _attention("unet.mid_block.attentions.0", _WIDTHS[-1])
    shapes |= _up_blocks()
    shapes["unet.conv_in"] = (320, 4, 3, 3)
    shapes["unet.conv_out"] = (4, 320, 3, 3)
    shapes["unet.time_embedding.linear_1"] = (_TIME_WIDTH, 320)
    shapes["unet.time_embedding.linear_2"] = (_TIME_WIDTH, _TIME_WIDTH)
    for layer in range(12):
        shapes |= _text_layer(f"text_encoder.text_model.encoder.layers.{layer}")
    return shapes


def kohya_modules() -> list[str]:
    """Return the 192 + 72 modules that kohya's linear set covers."""
    return [
        name
        for name in weight_shapes()
        if ".attentions." in name or name.startswith("text_encoder")
    ]


def misfit(spec: Spec) -> str | None:
    """Return why a module does not fit Stable Diffusion 1.5, or None if it does."""
    weight = weight_shapes().get(spec.name)
    if weight is None:
        return f"{spec.name} does not exist in Stable Diffusion 1.5"
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
    return _FAMILY_WIDTHS.get(width, f"unknown (text states {width} wide)")


def _up_blocks() -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    widths = _WIDTHS[::-1]
    for level, width in enumerate(widths):
        before = widths[max(level - 1, 0)]
        skip_end = widths[min(level + 1, 3)]
        block = f"unet.up_blocks.{level}"
        for layer in range(3):
            skip = width if layer < 2 else skip_end
            shapes |= _resnet(
                f"{block}.resnets.{layer}", (before if layer == 0 else width) + skip, width
            )
            if level > 0:
                shapes |= _attention(f"{block}.attentions.{layer}", width)
        if level < 3:
            shapes[f"{block}.upsamplers.0.conv"] = (width, width, 3, 3)
    return shapes


def _resnet(name: str, before: int, after: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        f"{name}.conv1": (after, before, 3, 3),
        f"{name}.time_emb_proj": (after, _TIME_WIDTH),
        f"{name}.conv2": (after, after, 3, 3),
    }
    if before != after:
        shapes[f"{name}.conv_shortcut"] = (after, before, 1, 1)
    return shapes


def _attention(name: str, width: int) -> dict[str, Shape]:
    block = f"{name}.transformer_blocks.0"
    shapes: dict[str, Shape] = {f"{name}.proj_in": (width, width, 1, 1)}
    for attention, source in (("attn1", width), ("attn2", _TEXT_WIDTH)):
        shapes[f"{block}.{attention}.to_q"] = (width, width)
        shapes[f"{block}.{attention}.to_k"] = (width, source)
        shapes[f"{block}.{attention}.to_v"] = (width, source)
        shapes[f"{block}.{attention}.to_out.0"] = (width, width)
    shapes[f"{block}.ff.net.0.proj"] = (8 * width, width)
    shapes[f"{block}.ff.net.2"] = (width, 4 * width)
    shapes[f"{name}.proj_out"] = (width, width, 1, 1)
    return shapes


def _text_layer(name: str) -> dict[str, Shape]:
    square = (_TEXT_WIDTH, _TEXT_WIDTH)
    shapes: dict[str, Shape] = {f"{name}.self_attn.{one}_proj": square for one in "qkv"}
    shapes[f"{name}.self_attn.out_proj"] = square
    shapes[f"{name}.mlp.fc1"] = (4 * _TEXT_WIDTH, _TEXT_WIDTH)
    shapes[f"{name}.mlp.fc2"] = (_TEXT_WIDTH, 4 * _TEXT_WIDTH)
    return shapes
