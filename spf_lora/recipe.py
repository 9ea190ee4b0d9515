"""A recipe: everything that decides a training, from TOML to frozen dataclasses.

A recipe names a profile, whose values it inherits, and changes some of them; `--set key=value`
changes the rest. Only the builders see a recipe; every other function takes plain arguments.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spf_lora.documents import parse_toml, read_toml
from spf_lora.errors import RecipeError
from spf_lora.recipe_files import FAMILIES as FAMILIES
from spf_lora.recipe_files import find_recipe as find_recipe
from spf_lora.recipe_files import list_recipes as list_recipes
from spf_lora.recipe_files import locate_recipe as locate_recipe
from spf_lora.shipped import shipped_folder
from spf_lora.strict import (
    Shape,
    check_table,
    did_you_mean,
    missing_keys,
    required,
    setting,
)

Scope = Literal["local", "global"]
Preset = Literal["kv", "cross", "attention", "full"]
OptimizerName = Literal["adamw8bit", "paged-adamw8bit", "lion8bit", "adamw", "prodigy"]
Precision = Literal["fp32", "bf16", "fp16"]
Method = Literal["ours", "plain", "l2-to-base", "prior-preservation", "dop", "dco", "masked-prior"]
Door = Literal["padding", "target", "both"]

_SLUG = Shape(r"[a-z0-9]+(-[a-z0-9]+)*", "small letters and digits, words joined by -")
_PHRASE = Shape(r"[^\s,]+( [^\s,]+)*", "one phrase: no comma, no space at its ends, none doubled")
_NAME = Shape(r"\S(.*\S)?", "a name without space at its ends")
_MAX_SEED = 2**32 - 1
_MOST_BYTES = 256 << 10  # of a recipe's file


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """What is taught: one phrase that a caption either has or has not."""

    name: str = required("name of the adapter and its files", shape=_SLUG)
    target_text: str = required("the phrase that asks for the attribute", shape=_PHRASE)
    aliases: tuple[str, ...] = setting(
        (), "other phrases that ask for the same in captions", shape=_PHRASE
    )
    replaces: tuple[str, ...] = setting(
        (), "phrases, * matching anything, that the target takes the place of", shape=_PHRASE
    )
    scope: Scope = setting("local", "whether it changes one region or the whole picture")
    phrases: tuple[str, ...] = setting(
        (), "phrases of the base prompt, where captions are not split at commas", shape=_PHRASE
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterSettings:
    """The low-rank matrices and the layers they sit on."""

    preset: Preset = setting("attention", "layers that get an adapter")
    rank: int = setting(8, "rank of each update", low=1, high=256)
    alpha: float = setting(8.0, "the update is scaled by alpha / rank", low=0.01, high=1024)
    subspace: int = setting(
        0, "directions of the text that keys and values may read; 0 is all", low=0, high=256
    )
    door: Door = setting("padding", "whose states the subspace is chosen to read")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """The pictures and what their captions say."""

    count: int = setting(64, "pictures drawn when no folder is given", low=1, high=100_000)
    coverage: float = setting(
        0.5, "share of the base phrases that a drawn picture's caption names", low=0.0, high=1.0
    )
    bias: float = setting(
        0.8, "probability that a drawn person has a favourite of the set", low=0.0, high=1.0
    )
    resolution: int = setting(
        0, "side, in px, of the square whose area pictures have; 0 is the base's", low=0, high=4096
    )
    batch_size: int = setting(8, "pictures a step, in each process", low=1, high=1024)
    passes: int = setting(
        1, "parts a batch is computed in, to save memory; the result is one", low=1, high=1024
    )
    vocabulary: str = setting(
        "none",
        "captions are completed from it with what align.clip sees for certain: none, portraits, "
        "photographs, or a .toml file",
        shape=_NAME,
    )
    seed: int = setting(0, "decides which pictures are drawn", low=0, high=_MAX_SEED)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnSettings:
    """Stage 1: ordinary fine-tuning on image and full prompt."""

    steps: int = setting(250, "steps of stage 1", low=1, high=1_000_000)
    text_only: bool = setting(
        False, "train only the keys and values of cross-attention, which read nothing but the text"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignSettings:
    """Stage 2: the target is learned inside the control map, nothing moves outside it."""

    steps: int = setting(250, "steps of stage 2; 0 leaves it out", low=0, high=1_000_000)
    denoise: float = setting(1.0, "weight of the denoising loss inside the map", low=0, high=1000)
    outside_map: float = setting(
        1.0, "weight of the loss on the prediction outside the control map", low=0.0, high=1000
    )
    fine_grained: float = setting(0.0, "weight of the loss on queries", low=0.0, high=1000)
    text_consistent: float = setting(0.0, "weight of the loss on attention", low=0.0, high=1000)
    response: float = setting(0.0, "weight of the CLIP loss on the prediction", low=0.0, high=1000)
    response_max_t: int = setting(300, "last time step of the CLIP loss", low=0, high=999)
    twins: float = setting(
        0.0, "share of samples that show the base's own picture, asked for", low=0.0, high=1.0
    )
    own_pictures: int = setting(
        1, "own pictures that the base draws for each training picture", low=1, high=100
    )
    vocabulary: str = setting(
        "none",
        "prompts of the base's own pictures are put together from it, not from captions: none, "
        "portraits, photographs, or a .toml file",
        shape=_NAME,
    )
    base_prompts: float = setting(
        0.0, "share of samples that hold the adapter still on the base prompt", low=0.0, high=1.0
    )
    empty_prompts: float = setting(
        0.0, "share of samples that hold the adapter still on no prompt", low=0.0, high=1.0
    )
    map_area_cap: float = setting(
        0.4, "largest share of the picture that the control map may free", low=0.01, high=1.0
    )
    map_decay: float = setting(
        0.8, "weight of the past in a picture's averaged answer", low=0.0, high=0.999
    )
    surprise: float = setting(
        0.0, "share of the base's surprise at a picture in its control map", low=0.0, high=1.0
    )
    relevance: bool = setting(False, "ask align.clip too where the target is in a picture")
    phrases: float = setting(
        0.0, "share of the base phrases' attention taken off the map", low=0.0, high=100
    )
    clip: str = setting("base", "base's own CLIP, or the folder or hub id of one", shape=_NAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSettings:
    """How a gradient becomes a step."""

    name: OptimizerName = setting("adamw8bit", "optimizer; adamw8bit is bitsandbytes'")
    learning_rate: float = setting(1e-3, "largest learning rate", low=1e-8, high=1.0)
    weight_decay: float = setting(0.01, "decoupled weight decay", low=0.0, high=1.0)
    warmup_steps: int = setting(20, "steps of linear warm-up", low=0, high=1_000_000)
    betas: tuple[float, float] = setting(
        (0.9, 0.999), "decay of the gradient's moments", low=0.0, high=0.999999
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings:
    """What both stages share."""

    seed: int = setting(0, "decides weights, noise, time steps and order", low=0, high=_MAX_SEED)
    base: str = setting("embedded", "base model to adapt", shape=_NAME)
    method: Method = setting("ours", "objective; the others are rivals to compare with")
    rival_weight: float = setting(
        0.0, "weight of a rival's own term; 0 is its source's", low=0.0, high=1e6
    )
    x0_weight_cap: float = setting(
        0.0, "large time steps count more, up to this ratio; 0 counts all alike", low=0, high=1000
    )
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm", low=1e-6, high=1e6)
    checkpoint_every_steps: int = setting(100, "steps between checkpoints", low=1, high=1_000_000)
    precision: Precision = setting(
        "fp32", "number format of frozen weights and computation; the adapter is always fp32"
    )
    gradient_checkpointing: bool = setting(
        False, "less memory, about a third more time: activations are computed twice"
    )
    channels_last: bool = setting(False, "memory layout of convolutions; faster on some machines")
    compile: bool = setting(False, "compile the residual blocks; pays in long runs on a GPU")
    calibrate: bool = setting(False, "strength 1 becomes the least that align.clip sees answer")
    tokenizer: str = setting("own", "the base's own, or a folder or hub id of one", shape=_NAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole, checked recipe: the profile's values, the file's, then the command line's."""

    profile: str
    attribute: Attribute
    adapter: AdapterSettings
    data: DataSettings
    learn: LearnSettings
    align: AlignSettings
    optimizer: OptimizerSettings
    training: TrainingSettings


SECTIONS: dict[str, type] = {
    "attribute": Attribute,
    "adapter": AdapterSettings,
    "data": DataSettings,
    "learn": LearnSettings,
    "align": AlignSettings,
    "optimizer": OptimizerSettings,
    "training": TrainingSettings,
}

_Tables = dict[str, dict[str, Any]]


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read, complete and check a recipe.

    Args:
        path: the TOML file.
        overrides: settings such as "align.fine_grained=0.3"; a later one wins.

    Raises:
        RecipeError: lists every fault of the file, its profile and the overrides.
    """
    table = _read_toml(path)
    changes, faults = _read_overrides(overrides)
    profile = changes.pop("profile", table.pop("profile", None))
    profile_path, wrong = _find_profile(profile, beside=path)
    faults += wrong
    layers = [(table, str(path)), (changes, "--set")]
    if profile_path:
        layers.insert(0, (_read_toml(profile_path), str(profile_path)))
        faults += _profile_faults(*layers[0])
    tables: _Tables = {name: {} for name in SECTIONS}
    for layer, source in layers:
        faults += _merge_layer(tables, layer, source=source)
    faults += _missing_faults(layers, path)
    if faults:
        raise _all_faults(path, faults)
    sections = {name: schema(**tables[name]) for name, schema in SECTIONS.items()}
    faults = _contradictions(sections)
    if faults:
        raise _all_faults(path, faults)
    return Recipe(profile=str(profile), **sections)


def _contradictions(sections: Mapping[str, Any]) -> list[str]:
    """Return what each section allows, but not together."""
    attribute, align = sections["attribute"], sections["align"]
    local = ("outside_map", "fine_grained", "text_consistent")
    faults = [
        f"align.{name} holds what lies outside the attribute's region, but attribute.scope is "
        "global: set it to 0"
        for name in local
        if attribute.scope == "global" and getattr(align, name) > 0 and align.steps > 0
    ]
    data = sections["data"]
    if data.batch_size % data.passes:
        faults.append(f"data.passes must divide data.batch_size, which is {data.batch_size}")
    if align.twins + align.base_prompts + align.empty_prompts >= 1:
        faults.append("align.twins, base_prompts and empty_prompts leave no training picture")
    return faults


def parse_override(text: str) -> tuple[str, Any]:
    """Split "section.key=value" into the dotted key and its value.

    The value is read as TOML; what is no TOML is a text, so `adapter.preset=kv` needs no quotes.

    Raises:
        RecipeError: there is no "=" or no key.
    """
    key, equals, raw = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise RecipeError(
            f"setting {text!r} is not of the form key=value",
            hint="write it like --set align.fine_grained=0.3",
        )
    try:
        parsed = parse_toml(f"value = {raw}")
    except ValueError:
        return key, raw
    return key, parsed["value"] if set(parsed) == {"value"} else raw


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as nested plain values that JSON can write."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return plain


def recipe_hash(recipe: Recipe) -> str:
    """Return the sha256 of what the recipe says, whichever file or option said it."""
    said = recipe_to_dict(recipe)
    del said["profile"]
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path, most_bytes=_MOST_BYTES)
    except FileNotFoundError as error:
        raise RecipeError(
            f"recipe {path} does not exist",
            hint="`spf-lora attributes` lists the recipes there are",
        ) from error
    except ValueError as error:
        raise RecipeError(
            f"recipe {path} is not valid TOML: {error}",
            hint='mend that place; texts need quotes, as in name = "beard"',
        ) from error
    except OSError as error:
        raise RecipeError(
            f"recipe {path} cannot be read: {error.strerror}",
            hint="give a readable TOML file",
        ) from error


def _find_profile(name: object, *, beside: Path) -> tuple[Path | None, list[str]]:
    """Return the profile's file, or None and what is wrong; a nearer folder hides a farther one."""
    if not isinstance(name, str):
        return None, [f'{beside}: profile must name a profile, as in profile = "embedded"']
    folders = (shipped_folder("recipes"), Path("recipes"), beside.parent)
    files = (path for folder in folders for path in (folder / "profiles").glob("*.toml"))
    known = {path.stem: path for path in files}
    wrong = f"{beside}: there is no profile {name!r}{did_you_mean(name, known)}"
    return known.get(name), [] if name in known else [wrong]


def _profile_faults(table: dict[str, Any], source: str) -> list[str]:
    """Take out of a profile what belongs to a recipe, and say so."""
    own = [name for name in ("attribute", "profile") if table.pop(name, None) is not None]
    return [f"{source}: {name} belongs to a recipe, not to a profile" for name in own]


def _missing_faults(layers: list[tuple[dict[str, Any], str]], path: Path) -> list[str]:
    faults = []
    for name, schema in SECTIONS.items():
        tables = [layer.get(name, {}) for layer, _ in layers]
        named = {key: None for table in tables if isinstance(table, dict) for key in table}
        faults += [f"{path}: {name}.{key} is missing" for key in missing_keys(schema, named)]
    return faults


def _read_overrides(overrides: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Nest the overrides as a TOML file would; a key without its section is a fault."""
    nested: dict[str, Any] = {}
    faults = []
    for text in overrides:
        key, value = parse_override(text)
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
        elif key == "profile":
            nested[key] = value
        else:
            every = [f"{name}.{own}" for name in SECTIONS for own in _field_names(SECTIONS[name])]
            meant = " or ".join(dotted for dotted in every if dotted.endswith(f".{key}"))
            near = f"; did you mean {meant}?" if meant else did_you_mean(key, every)
            faults.append(f"--set: {key} is not a known key{near}")
    return nested, faults


def _field_names(schema: type) -> list[str]:
    return [field.name for field in dataclasses.fields(schema)]


def _merge_layer(tables: _Tables, layer: Mapping[str, Any], *, source: str) -> list[str]:
    faults = []
    for name, table in layer.items():
        if name not in SECTIONS:
            faults.append(f"{source}: {name} is not a known section{did_you_mean(name, SECTIONS)}")
        elif not isinstance(table, dict):
            faults.append(f"{source}: {name} must be a section, written [{name}]")
        else:
            values, wrong = check_table(SECTIONS[name], table, prefix=f"{name}.")
            tables[name].update(values)
            faults += [f"{source}: {fault}" for fault in wrong]
    return faults


def _all_faults(path: Path, faults: list[str]) -> RecipeError:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return RecipeError(
        "\n  ".join((f"recipe {path} has {count}:", *faults)),
        hint="mend them all, then run again; `spf-lora recipe show beard` shows every key",
    )
