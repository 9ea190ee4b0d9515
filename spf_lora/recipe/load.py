"""A recipe: everything that decides a training, from TOML to frozen dataclasses.

A recipe names a profile, whose values it inherits, and changes some of them; `--set key=value`
changes the rest. Only the builders see a recipe; every other function takes plain arguments.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spf_lora.documents import parse_toml, read_toml
from spf_lora.errors import RecipeError
from spf_lora.recipe.digest import table_hash
from spf_lora.recipe.schema import SECTIONS, Recipe
from spf_lora.shipped import shipped_folder
from spf_lora.strict import check_table, did_you_mean, missing_keys

# what recipes had before stage 2 was distilling, and what to write now
_FORMER_SECTIONS = {
    "align": "stage 2 is [distil] now, with fewer keys (distil.steps, distil.pairs, "
    "distil.vocabulary, ...), and align.clip is data.clip"
}
_FORMER_KEYS = (
    "adapter.subspace",
    "adapter.door",
    "learn.text_only",
    "training.calibrate",
    "training.x0_weight_cap",
)

_Tables = dict[str, dict[str, Any]]
_MOST_BYTES = 256 << 10  # of a file


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read, complete and check a recipe.

    Args:
        path: the TOML file.
        overrides: settings such as "distil.pairs=64"; a later one wins.

    Raises:
        RecipeError: lists every fault of the file, its profile and the overrides.
    """
    return make_recipe(_read_toml(path), overrides, path)


def make_recipe(table: dict[str, Any], overrides: Iterable[str], path: Path) -> Recipe:
    """Complete and check a recipe's table.

    Args:
        table: as TOML gives it.
        overrides: see `load_recipe`.
        path: where the table is from, for messages; profiles are looked for beside it too.

    Raises:
        RecipeError: lists every fault.
    """
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
    data, distil, faults = sections["data"], sections["distil"], list[str]()
    if data.batch_size % data.passes:
        faults.append(f"data.passes must divide data.batch_size, which is {data.batch_size}")
    if distil.base_prompts + distil.empty_prompts >= 1:
        faults.append("distil.base_prompts and empty_prompts leave no sample that asks")
    method = sections["training"].method
    if sections["adapter"].text_encoder and method not in ("ours", "plain"):
        faults.append(
            f"adapter.text_encoder cannot be trained with training.method {method}, which compares "
            "text states that stay: leave it false"
        )
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
            hint="write it like --set distil.pairs=64",
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
    """Return the sha256 of what the recipe says, as the card of what it trains states it."""
    return table_hash(recipe_to_dict(recipe))


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
            hint='fix that place; texts need quotes, as in name = "beard"',
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
            now = _FORMER_SECTIONS.get(name)
            near = f": {now}" if now else did_you_mean(name, SECTIONS)
            faults.append(f"{source}: {name} is not a known section{near}")
        elif not isinstance(table, dict):
            faults.append(f"{source}: {name} must be a section, written [{name}]")
        else:
            former = [key for key in table if f"{name}.{key}" in _FORMER_KEYS]
            faults += [f"{source}: {name}.{key} is gone: leave it out" for key in former]
            known = {key: value for key, value in table.items() if key not in former}
            values, wrong = check_table(SECTIONS[name], known, prefix=f"{name}.")
            tables[name].update(values)
            faults += [f"{source}: {fault}" for fault in wrong]
    return faults


def _all_faults(path: Path, faults: list[str]) -> RecipeError:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return RecipeError(
        "\n  ".join((f"recipe {path} has {count}:", *faults)),
        hint="fix them all, then run again; `spf-lora recipe show beard` shows every key",
    )
