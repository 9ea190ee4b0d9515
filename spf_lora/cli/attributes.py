"""`spf-lora attributes`: what can be trained, and what is trained."""

from pathlib import Path
from typing import Any

from spf_lora.cli import out
from spf_lora.cli.options import Json, Registry, existing
from spf_lora.cli.out import printable, table
from spf_lora.errors import SpfError
from spf_lora.recipe.files import FAMILIES, list_recipes
from spf_lora.recipe.load import load_recipe

_COLUMNS = ("name", "target_text", "scope", "file")


def attributes(
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """List the attributes that have a recipe and the adapters that are trained."""
    attributes_by_state = {"trainable": _trainable(), "trained": _trained(existing(registry))}
    if as_json:
        out.show_json(attributes_by_state)
        return
    trained = attributes_by_state["trained"]
    out.show("can be trained (recipe):")
    _show_rows(attributes_by_state["trainable"])
    out.show("trained:" if trained else "trained: none yet")
    _show_rows(trained)
    if not trained:
        out.say("train one: spf-lora train --attribute beard")


def _trainable() -> list[dict[str, Any]]:
    rows = []
    recipes = [row for family in ("", *FAMILIES) for row in list_recipes(family).items()]
    for name, path in recipes:
        try:
            attribute = load_recipe(path).attribute
        except SpfError as error:
            out.warn(f"{error.message}")
            continue
        rows.append(
            {
                "name": name,
                "target_text": attribute.target_text,
                "scope": attribute.scope,
                "file": str(path),
            }
        )
    return rows


def _trained(registry: Path | None) -> list[dict[str, Any]]:
    from spf_lora.adapters.check.facts import inspect
    from spf_lora.registry.names import entries

    rows = []
    for entry in entries(registry):
        try:
            card = inspect(entry.path, whole=False).card
        except SpfError as error:
            out.warn(f"{error.message}")
            continue
        recipe = card.recipe.get("attribute", {}) if card else {}
        rows.append(
            {
                "name": entry.name,
                "target_text": card.target_text if card else None,
                "scope": recipe.get("scope") if isinstance(recipe, dict) else None,
                "file": str(entry.path),
            }
        )
    return rows


def _show_rows(rows: list[dict[str, Any]]) -> None:
    if rows:
        cells = [[printable(str(row[column] or "-"), 100) for column in _COLUMNS] for row in rows]
        out.show("\n".join(f"  {line}" for line in table(cells).splitlines()))
