"""`spf-lora recipe`: a new recipe, and one with everything it inherits and what each key does."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from spf_lora.atomic import make_folder, write_text
from spf_lora.cli import out
from spf_lora.cli.options import Json
from spf_lora.recipe.files import locate_recipe
from spf_lora.recipe.load import load_recipe, recipe_hash
from spf_lora.recipe.load import recipe_to_dict as to_dict
from spf_lora.recipe.new import new_recipe, recipe_path
from spf_lora.recipe.schema import SECTIONS, Recipe

app = typer.Typer(no_args_is_help=True, help="Write and look at recipes.")

_NOTE_COLUMN = 36


@app.command()
def new(
    attribute: Annotated[
        str, typer.Argument(metavar="NAME", help="What to call it: crown, or sd15/crown.")
    ],
    target: Annotated[str, typer.Option(help='The phrase that asks for it: "a crown".')],
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Another phrase that does, in captions; repeatable."),
    ] = None,
    scope: Annotated[
        str, typer.Option(help="local changes a part of the picture, global all of it.")
    ] = "local",
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file; recipes/NAME.toml by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a recipe for an attribute of your own, with a note on what to fill in."""
    text = new_recipe(attribute, target, aliases=alias or (), scope=scope)
    path = output or recipe_path(attribute)
    if output is None:
        make_folder(path.parent)
    write_text(path, text, overwrite=force)
    load_recipe(path)
    out.say("next, a folder of pictures with captions:")
    out.say(f"  spf-lora data check DIR --attribute {attribute}")
    out.show(str(path))


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(metavar="NAME|FILE", help="An attribute, or a file.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a recipe with every value resolved; as TOML it is a recipe itself."""
    resolved = load_recipe(locate_recipe(recipe), changes or ())
    if as_json:
        out.show_json({**to_dict(resolved), "recipe_hash": recipe_hash(resolved)})
        return
    out.show(as_toml(resolved))


def as_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML with a note on each key; it loads to an equal recipe."""
    plain = to_dict(recipe)
    lines = [f"profile = {_toml(recipe.profile)}"]
    for name, schema in SECTIONS.items():
        lines += ["", f"[{name}]"]
        for field in dataclasses.fields(schema):
            entry = f"{field.name} = {_toml(plain[name][field.name])}"
            lines.append(f"{entry:<{_NOTE_COLUMN}} # {field.metadata['note']}")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """Write a value as TOML; JSON's texts, lists, numbers and switches are TOML's too."""
    # but for DEL, which JSON leaves bare and TOML forbids
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
