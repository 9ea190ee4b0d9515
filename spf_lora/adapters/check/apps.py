"""Which keys each app reads: its naming and detection rules as one table.

Every row was taken from reading the app's own loader; docs/formats.md says which were also run.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_FACTORS = r"\.(?:lora_(?:down|up)\.weight|alpha)"
_DIFFUSERS_BLOCKS = r"(?:down_blocks|up_blocks|mid_block|conv_in|conv_out|time_embedding)_?"
_KOHYA = rf"lora_unet_{_DIFFUSERS_BLOCKS}.*{_FACTORS}|lora_te1?_text_model_.*{_FACTORS}"
_KOHYA_LDM = rf"lora_unet_(?:input_blocks|middle_block|output_blocks|out_2|time_embed_).*{_FACTORS}"
_LORA_AB = r"(?:unet|text_encoder)\..*\.lora_[AB]\.weight"
_OLD_DIFFUSERS = r"(?:unet\.|text_encoder\.).*(?:[._]lora|\.lora_linear_layer)\.(?:down|up)\.weight"
# ComfyUI knows attention projections by the old processor names only
_COMFY_AB = r"unet\.(?!.*\.to_).*\.lora_[AB]\.weight|text_encoder\..*\.lora_[AB]\.weight"
_COMFY_OLD = (
    r"(?:unet\.)?.*\.processor\.to_(?:q|k|v|out)_lora\.(?:down|up)\.weight"
    r"|unet\.(?!.*\.to_).*\.lora\.(?:down|up)\.weight"
    r"|text_encoder\..*\.lora_linear_layer\.(?:down|up)\.weight"
)
# the original names with dots, as ComfyUI's own LoraSave writes them
_ORIGINAL_BLOCKS = r"(?:input_blocks|middle_block|output_blocks|out|time_embed)"
_ANY_FACTORS = rf"(?:{_FACTORS}|\.lora_[AB]\.weight)"
_DOTTED = rf"diffusion_model\.{_ORIGINAL_BLOCKS}\..*{_ANY_FACTORS}"
_COMFY_ALONE = (
    rf"text_encoders\.clip_l\.transformer\.text_model\..*{_ANY_FACTORS}"
    rf"|lycoris_{_DIFFUSERS_BLOCKS}.*{_ANY_FACTORS}"
)
# stable-diffusion.cpp has no name for these four, nor for a dotted text encoder
_SDCPP_LACKS = r"(?!lora_unet_(?:conv_in|conv_out|time_embedding)|unet\.(?:conv_|time_embedding))"
_SDCPP_AB = r"unet\..*\.lora_[AB]\.weight"


@dataclass(frozen=True)
class App:
    """One app's rules.

    Attributes:
        name: as its users call it.
        reads: regular expression; a key that it does not match whole is dropped.
        needs: regular expression that at least one key must hold, or "".
        needs_why: what the app needs that key for.
        on_mismatch: what the user sees when keys are dropped.
        tolerates: how many dropped keys the app accepts before it refuses the whole file.
    """

    name: str
    reads: str
    on_mismatch: str
    needs: str = ""
    needs_why: str = ""
    tolerates: int = 1 << 30


APPS: dict[str, App] = {
    app.name: app
    for app in (
        App(
            "diffusers",
            rf"{_KOHYA}|{_LORA_AB}|{_OLD_DIFFUSERS}",
            "raises an error",
            tolerates=0,
        ),
        App("A1111", rf"{_KOHYA}|{_KOHYA_LDM}", "says nothing"),
        App(
            "Forge",
            rf"{_KOHYA}|{_KOHYA_LDM}|{_COMFY_AB}|{_COMFY_OLD}|{_DOTTED}",
            "prints the keys",
            tolerates=12,
        ),
        App(
            "ComfyUI",
            rf"{_KOHYA}|{_KOHYA_LDM}|{_COMFY_AB}|{_COMFY_OLD}|{_DOTTED}|{_COMFY_ALONE}",
            'prints "lora key not loaded" and goes on',
        ),
        App(
            "InvokeAI",
            _KOHYA,
            "warns and goes on",
            needs=r"_attn2_to_[kv]\.lora_down|lora_te_text_model_.*\.lora_down",
            needs_why="it tells the base model by an attn2 to_k or to_v, or the text encoder",
        ),
        App(
            "stable-diffusion.cpp",
            rf"{_SDCPP_LACKS}(?:{_KOHYA}|{_KOHYA_LDM}|{_SDCPP_AB})",
            'prints "(x / N) applied"',
        ),
        App(
            "Draw Things",
            rf"{_KOHYA}|{_LORA_AB}",
            "says nothing",
            needs=r"(?:down|up)_blocks[._]1[._].*attn2[._]to_k",
            needs_why="it tells the base model by attn2 to_k of down block 1 or up block 1",
        ),
    )
}


@dataclass(frozen=True)
class Reading:
    """What one app makes of one file.

    Attributes:
        app: the app's name.
        dropped: the keys that it does not read.
        total: how many keys the file has.
        refused: why it refuses the whole file, or "".
        on_mismatch: what the user sees for the dropped keys.
    """

    app: str
    dropped: tuple[str, ...]
    total: int
    refused: str
    on_mismatch: str

    @property
    def whole(self) -> bool:
        """Whether the app reads every key."""
        return not self.dropped and not self.refused


def reading(app: App, names: Iterable[str], metadata: Mapping[str, str]) -> Reading:
    """Tell what an app reads of a file with these keys."""
    every = list(names)
    reads = re.compile(app.reads)
    dropped = tuple(name for name in every if not reads.fullmatch(name))
    refused = ""
    if len(dropped) > app.tolerates:
        refused = f"{len(dropped)} keys do not match"
    elif len(dropped) == len(every):
        refused = "no key matches"
    elif app.needs and not any(re.search(app.needs, name) for name in every):
        refused = app.needs_why
    elif app.name == "diffusers" and _alpha_stated_twice(every, metadata):
        refused = "it takes alpha tensors or lora_adapter_metadata, not both"
    return Reading(app.name, dropped, len(every), refused, app.on_mismatch)


def _alpha_stated_twice(names: list[str], metadata: Mapping[str, str]) -> bool:
    return "lora_adapter_metadata" in metadata and any(name.endswith(".alpha") for name in names)
