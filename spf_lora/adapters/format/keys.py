"""Names of an adapter's modules and tensors in every layout; they live here and nowhere else.

The canonical name of a module is its component and its diffusers path, for instance
`unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k`. A tensor's key is a body (which
module) and a suffix (which factor); each has its own table, so every mix of them is read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from spf_lora.base.ldm_names import RESNET, UNET_ENDS, unet_name
from spf_lora.errors import AdapterFileError

KOHYA_COMPONENTS = {"unet.": "lora_unet_", "text_encoder.": "lora_te_"}

# Path words that hold an underscore; every other underscore of a kohya name was a dot.
_COMPOUND_WORDS = (
    *("down_blocks", "up_blocks", "mid_block", "transformer_blocks"),
    *("to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out"),
    *("conv_in", "conv_out", "conv_shortcut", "time_emb_proj", "time_embedding"),
    *("linear_1", "linear_2", "text_model", "self_attn"),
    *("q_proj", "k_proj", "v_proj", "out_proj"),
)
_COMPOUND = re.compile(rf"(?<![a-z])(?:{'|'.join(_COMPOUND_WORDS)})(?![a-z0-9])")

_N = r"(?:0|[1-9][0-9]?)"
_BLOCK = rf"(?:(?:down|up)_blocks\.{_N}|mid_block)"
_MODULES = re.compile(
    "|".join(
        (
            rf"unet\.{_BLOCK}\.attentions\.{_N}\.proj_(?:in|out)",
            rf"unet\.{_BLOCK}\.attentions\.{_N}\.transformer_blocks\.{_N}"
            r"\.(?:attn[12]\.to_(?:q|k|v|out\.0)|ff\.net\.(?:0\.proj|2))",
            rf"unet\.{_BLOCK}\.resnets\.{_N}\.(?:conv1|conv2|conv_shortcut|time_emb_proj)",
            rf"unet\.down_blocks\.{_N}\.downsamplers\.{_N}\.conv",
            rf"unet\.up_blocks\.{_N}\.upsamplers\.{_N}\.conv",
            r"unet\.(?:conv_in|conv_out|time_embedding\.linear_[12])",
            rf"text_encoder\.text_model\.encoder\.layers\.{_N}"
            r"\.(?:self_attn\.(?:q|k|v|out)_proj|mlp\.fc[12])",
        )
    )
)

# suffix -> (factor, layout); longest first, so `.lora_linear_layer.down` is not cut short.
_SUFFIXES = {
    ".lora_down.weight": ("down", "kohya"),
    ".lora_up.weight": ("up", "kohya"),
    ".alpha": ("alpha", "kohya"),
    ".lora_A.weight": ("down", "diffusers"),
    ".lora_B.weight": ("up", "diffusers"),
    ".lora_A.default.weight": ("down", "diffusers"),
    ".lora_B.default.weight": ("up", "diffusers"),
    ".lora_linear_layer.down.weight": ("down", "diffusers-old"),
    ".lora_linear_layer.up.weight": ("up", "diffusers-old"),
    ".lora.down.weight": ("down", "diffusers-old"),
    ".lora.up.weight": ("up", "diffusers-old"),
    "_lora.down.weight": ("down", "diffusers-old"),
    "_lora.up.weight": ("up", "diffusers-old"),
}

# what a key holds when it is no LoRA factor -> the method's name
_OTHER_METHODS = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "oft_": "OFT",
    "boft_": "BOFT",
    "lora_mid.": "LoCon with a Tucker core",
    ".on_input": "IA3",
    ".a1.weight": "GLoRA",
    ".b1.weight": "GLoRA",
    ".w_norm": "norm",
    ".b_norm": "norm",
    ".diff": "diff",
    "bundle_emb": "bundled embedding",
    "emb_params": "textual inversion",
    "vera_lambda": "VeRA",
}

# methods that a teacher may be of: what they do to a weight is multiplied out, see `multiplied`
_MULTIPLIED = ("LoHa", "LoKr", "DoRA", "OFT", "LoCon with a Tucker core")
# as LyCORIS and kohya write their factors; what ends alike comes first the longer
_FACTORS = (
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "lokr_w1", "lokr_w2"),
    *("lora_up.weight", "lora_down.weight", "lora_mid.weight", "dora_scale"),
    *("oft_blocks", "rescale", "alpha"),
)

# how the keys of a whole model begin
_CHECKPOINT = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.",
    "conv_in.weight",
    "time_embedding.linear_1.weight",
)

# how a key begins -> the family of models it is for
_OTHER_FAMILIES = {
    "lora_te2_": "Stable Diffusion XL",
    "lora_te3_": "Stable Diffusion 3",
    "text_encoders.clip_g.": "Stable Diffusion XL",
    "text_encoders.t5xxl.": "a transformer model (Flux or Stable Diffusion 3)",
    "text_encoder_2.": "Stable Diffusion XL",
    "lora_unet_double_blocks": "Flux",
    "lora_unet_single_blocks": "Flux",
    "lora_unet_joint_blocks": "Stable Diffusion 3",
    "lora_transformer_": "a transformer model (Flux or Stable Diffusion 3)",
    "lycoris_transformer_": "a transformer model (Flux or Stable Diffusion 3)",
    "transformer.": "a transformer model (Flux or Stable Diffusion 3)",
    "lora_prior_": "Stable Cascade",
    "lora_unet_label_emb": "Stable Diffusion XL",
    "lora_unet_add_embedding": "Stable Diffusion XL",
    "unet.add_embedding.": "Stable Diffusion XL",
}

# how a body begins -> what the canonical name begins with
_BODIES = {
    "lora_unet_": "unet.",
    "lycoris_": "unet.",
    "oft_unet_": "unet.",
    "lora_te1_": "text_encoder.",
    "lora_te_": "text_encoder.",
    "base_model.model.unet.": "unet.",
    "base_model.model.text_encoder.": "text_encoder.",
    "base_model.model.text_model.": "text_encoder.text_model.",
    "base_model.model.encoder.": "text_encoder.text_model.encoder.",
    "base_model.model.": "unet.",
    "unet.": "unet.",
    "text_encoder.": "text_encoder.",
    "text_encoders.clip_l.transformer.": "text_encoder.",
    "text_model.": "text_encoder.text_model.",
    "diffusion_model.": "unet.",
    "down_blocks.": "unet.down_blocks.",
    "mid_block.": "unet.mid_block.",
    "up_blocks.": "unet.up_blocks.",
}
# old diffusers wrote the text encoder's projections with the U-Net's words
_OLD_TEXT_WORDS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

_LDM_BEGINNINGS = ("input_blocks_", "middle_block_", "output_blocks_", "out_", "time_embed_")


@dataclass(frozen=True)
class Key:
    """What one tensor of a file is.

    Attributes:
        module: the canonical name of the module.
        factor: `down`, `up` or `alpha`.
        layout: the naming it was written in.
    """

    module: str
    factor: str
    layout: str


def is_module(name: str) -> bool:
    """Tell whether `name` is the canonical name of a module that an adapter can move."""
    return _MODULES.fullmatch(name) is not None


def flat(path: str) -> str:
    """Return a dotted path as kohya writes it, with underscores."""
    return path.replace(".", "_")


def kohya_body(module: str) -> str:
    """Return the body of a module's kohya keys, for instance `lora_unet_mid_block_...`."""
    component = next(part for part in KOHYA_COMPONENTS if module.startswith(part))
    return KOHYA_COMPONENTS[component] + flat(module.removeprefix(component))


def parse_keys(keys: Iterable[str]) -> dict[str, Key]:
    """Tell which module and factor each tensor's key stands for.

    Another method or family is looked for in all keys first, so that a file of it is refused for
    that and not for the first of its keys that is unknown here.

    Raises:
        AdapterFileError: a key belongs to another method, another family or nothing known.
    """
    every = list(keys)
    for key in every:
        _refuse_foreign(key)
    return {key: _parse(key) for key in every}


def multiplied_method(keys: Iterable[str]) -> str | None:
    """Return the method of an adapter that is no plain LoRA but can be multiplied out, or None.

    A file with a key of any other method is none.
    """
    found = {method for key in keys for mark, method in _OTHER_METHODS.items() if mark in key}
    return min(found, key=_MULTIPLIED.index) if found and found <= set(_MULTIPLIED) else None


def parse_factors(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return module -> factor, as LyCORIS calls it -> key, of an adapter to be multiplied out.

    Raises:
        AdapterFileError: a key is no factor of a module.
    """
    modules: dict[str, dict[str, str]] = {}
    for key in keys:
        factor = next((one for one in _FACTORS if key.endswith(f".{one}")), None)
        module = _canonical(key.removesuffix(f".{factor}")) if factor else ""
        if factor is None or not is_module(module):
            raise _stranger(key)
        modules.setdefault(module, {})[factor] = key
    return modules


def _parse(key: str) -> Key:
    for suffix, (factor, layout) in _SUFFIXES.items():
        if key.endswith(suffix):
            module = _canonical(key.removesuffix(suffix))
            if is_module(module):
                return Key(module, factor, _layout(key, layout))
            break
    raise _stranger(key)


def _stranger(key: str) -> AdapterFileError:
    return AdapterFileError(
        f"tensor {_shown(key)} belongs to no module of Stable Diffusion 1.5",
        hint="only LoRA files for Stable Diffusion 1.5 are read; check where the file came from",
    )


def _refuse_foreign(key: str) -> None:
    if key.startswith(_CHECKPOINT):
        raise AdapterFileError(
            f"tensor {_shown(key)} is a whole model's, so this is a checkpoint and no LoRA",
            hint="name it with --base; a LoRA is a file of some 10 to 150 MB",
        )
    for mark, method in _OTHER_METHODS.items():
        if mark in key:
            raise AdapterFileError(
                f"tensor {_shown(key)} is {method}, not plain LoRA",
                hint=f"{method} files are not read, not even in part; "
                "ask the author for a LoRA version",
            )
    for beginning, family in _OTHER_FAMILIES.items():
        if key.startswith(beginning):
            raise AdapterFileError(
                f"tensor {_shown(key)} is for {family}, not for Stable Diffusion 1.5",
                hint="choose an adapter made for Stable Diffusion 1.5",
            )


def _layout(key: str, by_suffix: str) -> str:
    if key.startswith("base_model.model."):
        return "peft"
    if by_suffix == "kohya" and _is_ldm(key):
        return "kohya-ldm"
    return by_suffix


def _is_ldm(key: str) -> bool:
    return (
        re.match(r"lora_unet_(?:input|middle|output)_block|lora_unet_(?:out_2|time_embed_)", key)
        is not None
    )


def _canonical(body: str) -> str:
    beginning = next((one for one in _BODIES if body.startswith(one)), None)
    if beginning is None:
        return ""
    component, _, head = _BODIES[beginning].partition(".")
    path = flat(head + body.removeprefix(beginning)).replace("_processor_", "_")
    if component == "unet":
        path = _from_ldm(path)
        path = re.sub(r"_to_out$", "_to_out_0", path)
    else:
        path = path if path.startswith("text_model_") else f"text_model_{path}"
        path = re.sub("to_(?:q|k|v|out)$", lambda match: _OLD_TEXT_WORDS[match[0]], path)
    return f"{component}.{_unflat(path)}"


def _unflat(path: str) -> str:
    """Invert `flat`: known compound words keep their underscore."""
    kept = _COMPOUND.sub(lambda match: match[0].replace("_", "\0"), path)
    return kept.replace("_", ".").replace("\0", "_")


def _from_ldm(path: str) -> str:
    """Rewrite LDM block names (input_blocks_4_1_...) as diffusers ones; others pass unchanged."""
    if not path.startswith(_LDM_BEGINNINGS):
        return path
    for ldm, ours in (*_single().items(), *_ldm_blocks().items()):
        if path == ldm or path.startswith(f"{ldm}_"):
            path = ours + path.removeprefix(ldm)
            break
    if "resnets_" in path:
        for ldm, ours in RESNET.items():
            path = re.sub(f"_{flat(ldm)}$", f"_{flat(ours)}", path)
    return path


@cache
def _single() -> dict[str, str]:
    """Return the U-Net's layers outside of blocks, LDM name -> diffusers name (both flat)."""
    return {flat(ldm): flat(ours) for ldm, ours in UNET_ENDS.items()}


@cache
def _ldm_blocks() -> dict[str, str]:
    """Return the U-Net's blocks, LDM name -> diffusers name (both flat), the longest first."""
    places = [f"middle_block.{part}" for part in range(3)]
    for at in range(12):
        # every third input block is a downsampler
        places += [f"input_blocks.{at}.{part}" for part in ("0", "1") if at % 3]
        places += [f"output_blocks.{at}.{part}" for part in ("0", "1")]
    places += [f"input_blocks.{at}.0.op" for at in (3, 6, 9)]
    places += [f"output_blocks.{at}.conv" for at in ("2.1", "5.2", "8.2")]
    names = {}
    for place in places:
        whole = place.endswith((".op", ".conv"))
        name = unet_name(f"{place}.weight" if whole else f"{place}.x.weight")
        names[flat(place)] = flat(name.removesuffix(".weight").removesuffix(".x"))
    return dict(sorted(names.items(), key=lambda item: -len(item[0])))


def _shown(key: str) -> str:
    """Return a key fit for one line of a message."""
    short = key if len(key) <= 100 else f"{key[:100]}..."
    return repr(short)
