"""`spf-lora portraits export`: the portrait world as a training folder."""

from pathlib import Path
from typing import Annotated

import typer

from spf_lora.cli import out
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe

app = typer.Typer(no_args_is_help=True, help="Draw procedural portraits.")


@app.callback()
def _root() -> None:
    # With a callback, typer keeps `export` a word of its own though it is the only command.
    return


@app.command()
def export(
    attribute: Annotated[str, typer.Option("--attribute", "-a", help="What to draw on them.")],
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="A new or empty folder; out/portraits-ATTRIBUTE by default."
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(help="Portraits; else the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which ones; else the recipe's.")] = None,
    coverage: Annotated[
        float | None,
        typer.Option(help="Share of base phrases that captions name; else the recipe's."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier export.")] = False,
) -> None:
    """Write PNG pictures with .txt captions: the very ones that `train` draws for itself."""
    options = {"count": count, "seed": seed, "coverage": coverage}
    changes = [f"data.{key}={value}" for key, value in options.items() if value is not None]
    recipe = load_recipe(find_recipe(attribute), changes)

    from spf_lora.data.export import export_folder
    from spf_lora.data.folder import Example
    from spf_lora.data.worlds.portraits import training_set

    drawn = training_set(
        recipe.attribute.name,
        count=recipe.data.count,
        seed=recipe.data.seed,
        coverage=recipe.data.coverage,
        bias=recipe.data.bias,
    )
    folder = out.place(folder, f"portraits-{recipe.attribute.name}")
    export_folder([Example(image, text, "") for image, text, _ in drawn], folder, overwrite=force)
    out.say(f"{len(drawn)} portraits with captions; train on them:")
    out.say(f"  spf-lora train --attribute {attribute} --data {folder}")
    out.show(str(folder))
