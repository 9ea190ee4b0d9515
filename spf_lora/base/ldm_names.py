"""Names of a single-file checkpoint's tensors, in diffusers' words.

Such files carry CompVis' latent-diffusion names: `model.diffusion_model.input_blocks.1.0...` is
diffusers' `down_blocks.0.resnets.0...`.
"""

import re

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."

RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
UNET_ENDS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)")
_VAE_BLOCK = re.compile(
    r"(encoder|decoder)\.(down|up)\.(\d+)\.(block\.(\d+)|downsample|upsample)\."
)
_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    # diffusers' own names before 0.18, still in many folders
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
_VAE_MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}


def unet_name(name: str) -> str:
    """Return the diffusers name of a U-Net tensor, given without its prefix."""
    stem, _, end = name.rpartition(".")
    if stem in UNET_ENDS:
        return f"{UNET_ENDS[stem]}.{end}"
    if name.startswith("middle_block."):
        _, part, rest = name.split(".", 2)
        return f"mid_block.{_MIDDLE.get(part, part)}.{_resnet(rest)}"
    match = _BLOCK.fullmatch(name)
    if not match:
        return name
    side, index, part, rest = match[1], int(match[2]), match[3], match[4]
    level, layer = divmod(index - 1, 3) if side == "input" else divmod(index, 3)
    block = f"{'down' if side == 'input' else 'up'}_blocks.{level}"
    if rest.startswith("op."):
        return f"{block}.downsamplers.0.conv.{end}"
    if rest.startswith("conv."):
        return f"{block}.upsamplers.0.conv.{end}"
    room = "resnets" if part == "0" else "attentions"
    return f"{block}.{room}.{layer}.{_resnet(rest)}"


def _resnet(rest: str) -> str:
    stem, _, end = rest.rpartition(".")
    return f"{RESNET.get(stem, stem)}.{end}"


def vae_name(name: str, *, levels: int) -> str:
    """Return the diffusers name of a VAE tensor, given without its prefix.

    Args:
        name: such as "decoder.up.3.block.0.norm1.weight".
        levels: of the VAE; the decoder's are counted from the other end.
    """
    name = name.replace(".norm_out.", ".conv_norm_out.").replace("nin_shortcut", "conv_shortcut")
    if match := _VAE_BLOCK.match(name):
        half, way, level = match[1], match[2], int(match[3])
        level = level if way == "down" else levels - 1 - level
        inner = f"resnets.{match[5]}" if match[5] else f"{match[4]}rs.0"
        return f"{half}.{way}_blocks.{level}.{inner}.{name[match.end() :]}"
    for part, room in _VAE_MIDDLE.items():
        half, middle, rest = name.partition(f".mid.{part}.")
        if middle:
            return f"{half}.mid_block.{room}.{vae_attention(rest)}"
    return name


def vae_attention(name: str) -> str:
    """Return a VAE tensor's name with its attention layers named as diffusers does today."""
    stem, _, end = name.rpartition(".")
    before, dot, last = stem.rpartition(".")
    return f"{before}{dot}{_VAE_ATTENTION.get(last, last)}.{end}" if stem else name


def text_name(name: str) -> str:
    """Return a text encoder tensor's name as transformers 5 has it: without `text_model.`."""
    return name.removeprefix("text_model.")
