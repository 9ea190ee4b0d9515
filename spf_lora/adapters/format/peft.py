"""The scale that peft keeps outside the tensors: `adapter_config.json`, or diffusers' header entry.

Patterns are compared as text: peft reads them as regular expressions, and a stranger's regular
expression can run for ever.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from spf_lora.adapters.format.container import open_regular, read_at
from spf_lora.adapters.module import Spec
from spf_lora.documents import parse_json
from spf_lora.errors import AdapterFileError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
HEADER_KEY = "lora_adapter_metadata"
_COMPONENTS = ("unet", "text_encoder")
_MAX_CONFIG_BYTES = 1 << 20

# settings that change what the tensors mean -> the values under which they are plain LoRA
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}


@dataclass(frozen=True)
class PeftScale:
    """Ranks and alphas of one adapted model.

    Attributes:
        rank: rank of every module without its own pattern.
        alpha: alpha of every module without its own pattern.
        rank_pattern: module path, or the end of it -> rank.
        alpha_pattern: module path, or the end of it -> alpha.
        rank_stabilised: scale is alpha / sqrt(rank) instead of alpha / rank.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    rank_stabilised: bool

    def alpha_for(self, module_path: str, rank: int, where: Path) -> float:
        """Return the alpha that gives a module its scale as alpha / rank."""
        stated = _match(self.rank_pattern, module_path, self.rank)
        if stated != rank:
            _refuse(where, f"states rank {stated:g} for {module_path}, but the file has {rank}")
        alpha = _match(self.alpha_pattern, module_path, self.alpha)
        return alpha * math.sqrt(rank) if self.rank_stabilised else alpha


def folders(path: Path) -> list[Path]:
    """Return where the parts of an adapter in the folder `path` can be: there, or one inside each.

    An adapter of one model is in the folder itself, one of two has a folder for each.
    """
    return [path, *(path / component for component in _COMPONENTS)]


def read_config(path: Path) -> PeftScale:
    """Read an `adapter_config.json`.

    Raises:
        AdapterFileError: it is missing, no plain LoRA, or damaged.
    """
    with open_regular(path) as (file, size):
        if size > _MAX_CONFIG_BYTES:
            _refuse(path, f"is {size} bytes; the limit is {_MAX_CONFIG_BYTES}")
        text = bytearray(size)
        read_at(file, memoryview(text), 0, path)
    return _parse(_json(bytes(text), path), path)


def read_header_entry(text: str, component: str, path: Path) -> PeftScale:
    """Read the part for one component of diffusers' `lora_adapter_metadata` entry."""
    if len(text) > _MAX_CONFIG_BYTES:
        _refuse(path, f"has a LoRA configuration longer than {_MAX_CONFIG_BYTES} characters")
    table = _json(text.encode("utf-8"), path)
    prefix = f"{component}."
    part = {key.removeprefix(prefix): item for key, item in table.items() if key.startswith(prefix)}
    return _parse({"peft_type": "LORA", **part}, path)


def config_for(specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Return the `adapter_config.json` for modules, keyed by their path in the model.

    Args:
        specs: shapes and scales as written; all alphas equal.
    """
    ranks = [spec.rank for spec in specs.values()]
    common = max(sorted(set(ranks)), key=ranks.count)
    alpha = next(iter(specs.values())).alpha
    return {
        "alpha_pattern": {},
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": common,
        "rank_pattern": {path: one.rank for path, one in specs.items() if one.rank != common},
        "target_modules": sorted(specs),
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _json(text: bytes, path: Path) -> dict[str, Any]:
    try:
        table = parse_json(text.decode("utf-8"))
    except ValueError as error:
        _refuse(path, f"holds a LoRA configuration that cannot be used: {error}")
    if not isinstance(table, dict):
        _refuse(path, "holds a LoRA configuration that is no JSON object")
    return table


def _parse(table: Mapping[str, Any], path: Path) -> PeftScale:
    for key, allowed in _PLAIN.items():
        value = table.get(key)
        if (key in table or key == "peft_type") and value not in allowed:
            _refuse(path, f"sets {key} to {str(value)[:60]!r}; only plain LoRA is read")
    return PeftScale(
        rank=int(_number(table, "r", path)),
        alpha=_number(table, "lora_alpha", path),
        rank_pattern=_pattern(table, "rank_pattern", path),
        alpha_pattern=_pattern(table, "alpha_pattern", path),
        rank_stabilised=table.get("use_rslora") is True,
    )


def _number(table: Mapping[str, Any], key: str, path: Path) -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        _refuse(path, f"has no sound number for {key} in its LoRA configuration")
    return float(value)


def _pattern(table: Mapping[str, Any], key: str, path: Path) -> dict[str, float]:
    value = table.get(key) or {}
    if not isinstance(value, dict):
        _refuse(path, f"has a {key} that is no table")
    cleaned = {one.removeprefix("^").removesuffix("$").replace("\\.", "."): one for one in value}
    for plain in cleaned:
        if not re.fullmatch(r"[A-Za-z0-9_.]+", plain):
            _refuse(path, f"has a regular expression in {key}; only plain module paths are read")
    return {plain: _number(value, one, path) for plain, one in cleaned.items()}


def _match(pattern: Mapping[str, float], module_path: str, otherwise: float) -> float:
    """Return the value of the first pattern that is the path, or the end of it."""
    parts = module_path.split(".")
    ends = [".".join(parts[at:]) for at in range(len(parts))]
    known = [end for end in ends if end in pattern]
    if len(known) > 1:
        order = list(pattern)
        known.sort(key=order.index)
    return pattern[known[0]] if known else otherwise


def _refuse(path: Path, what: str) -> NoReturn:
    raise AdapterFileError(f"{path} {what}", hint="export it again as plain LoRA")
