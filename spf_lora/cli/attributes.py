"""`spf-lora attributes`: what can be trained, and what is trained."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spf_lora.cli import out
from spf_lora.errors import SpfError
from spf_lora.recipe import list_recipes, load_recipe

_COLUMNS = ("name", "target_text", "scope", "file")


def attributes(
    folder: Annotated[Path, typer.Option(help="Where trained adapters are.")] = Path("adapters"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the attributes that have a recipe and the adapters that are trained."""
    found = {"trainable": _trainable(), "trained": _trained(folder)}
    if as_json:
        out.show_json(found)
        return
    trained = found["trained"]
    out.show("can be trained (recipe):")
    _show_rows(found["trainable"])
    out.show(f"trained, in {folder}:" if trained else f"trained, in {folder}: none yet")
    _show_rows(trained)
    if not trained:
        out.say("train one: spf-lora train --attribute beard")


def _trainable() -> list[dict[str, Any]]:
    rows = []
    for name, path in list_recipes().items():
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


def _trained(folder: Path) -> list[dict[str, Any]]:
    from spf_lora.adapters.facts import inspect

    rows = []
    for path in sorted(folder.glob("[!.]*.safetensors")):
        try:
            card = inspect(path, whole=False).card
        except SpfError as error:
            out.warn(f"{error.message}")
            continue
        recipe = card.recipe.get("attribute", {}) if card else {}
        rows.append(
            {
                "name": path.stem,
                "target_text": card.target_text if card else None,
                "scope": recipe.get("scope") if isinstance(recipe, dict) else None,
                "file": str(path),
            }
        )
    return rows


def _show_rows(rows: list[dict[str, Any]]) -> None:
    # A card is a stranger's text: only what can be printed reaches the terminal.
    shown = [[_printable(row[column]) for column in _COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for cells in shown:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        out.show(("  " + "  ".join(padded)).rstrip())


def _printable(value: object) -> str:
    text = "-" if value is None else str(value)
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:100]
