"""The recipe form: one field for each key of the schema, and what a filled form changes."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from spf_lora.errors import RecipeError
from spf_lora.recipe.files import find_recipe, list_recipes
from spf_lora.recipe.load import load_recipe
from spf_lora.recipe.schema import SECTIONS, Recipe

Kind = Literal["choice", "switch", "whole", "number", "text", "list"]
# what most people change; all other keys are folded
BASIC = (
    "adapter.rank",
    "learn.steps",
    "distil.steps",
    "distil.pairs",
    "data.batch_size",
    "optimizer.learning_rate",
    "training.seed",
)
FAMILIES = ("", "sd15")


@dataclass(frozen=True)
class Field:
    """One key.

    Attributes:
        key: as `--set` takes it, "distil.pairs".
        note: what it does.
        kind: how it is filled in.
        choices: of a "choice".
        low: smallest value, or None.
        high: largest value, or None.
    """

    key: str
    note: str
    kind: Kind
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def section(self) -> str:
        """The part before the dot."""
        return self.key.partition(".")[0]


def fields() -> list[Field]:
    """Return every key of a recipe, in the schema's order; what is taught is its name's matter."""
    return [
        _field(section, field, get_type_hints(schema)[field.name])
        for section, schema in SECTIONS.items()
        if section != "attribute"
        for field in dataclasses.fields(schema)
    ]


def _field(section: str, field: "dataclasses.Field[Any]", hint: Any) -> Field:
    metadata = field.metadata
    choices = tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()
    kinds: dict[Any, Kind] = {bool: "switch", int: "whole", float: "number", str: "text"}
    return Field(
        f"{section}.{field.name}",
        metadata["note"],
        "choice" if choices else kinds.get(hint, "list"),
        choices,
        metadata.get("low"),
        metadata.get("high"),
    )


def attributes() -> list[str]:
    """Return what can be trained: "beard", "sd15/beard"."""
    return [name for family in FAMILIES for name in list_recipes(family)]


def values(recipe: Recipe) -> list[Any]:
    """Return what the form shows of a recipe, one value for each of `fields`."""
    shown = []
    for field in fields():
        section, _, name = field.key.partition(".")
        value = getattr(getattr(recipe, section), name)
        shown.append(", ".join(map(str, value)) if field.kind == "list" else value)
    return shown


def changes(attribute: str, filled: Sequence[Any]) -> list[str]:
    """Return the settings in which a filled form differs from the attribute's recipe.

    Args:
        attribute: a name of `attributes`; a path is none.
        filled: one value for each of `fields`.

    Raises:
        RecipeError: there is no such recipe, or a value is wrong; every fault is listed.
    """
    if attribute not in attributes():
        raise RecipeError("there is no recipe of that name", hint="choose one of the list")
    path = find_recipe(attribute)
    before = values(load_recipe(path))
    changed = [
        f"{field.key}={_toml(field, new)}"
        for field, old, new in zip(fields(), before, filled, strict=True)
        if new != old and new is not None
    ]
    load_recipe(path, changed)
    return changed


def _toml(field: Field, value: Any) -> str:
    if field.kind == "list":
        words = [word.strip() for word in str(value).split(",") if word.strip()]
        if field.key == "optimizer.betas":
            return f"[{', '.join(words)}]"
        return json.dumps(words, ensure_ascii=False)
    if field.kind == "whole" and isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)
