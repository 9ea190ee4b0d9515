"""`spf-lora metadata`: read, set or remove a file's text entries."""

from pathlib import Path
from typing import Annotated

import typer

from spf_lora.cli import out
from spf_lora.cli.options import Json
from spf_lora.errors import RecipeError


def metadata(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Adapter file.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set an entry; an empty value removes it."),
    ] = None,
    strip: Annotated[
        bool, typer.Option("--strip", help="Remove every entry that says no strength.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a file's text entries, or rewrite them in place; tensors and AutoV3 stay the same."""
    from spf_lora.adapters.format.metadata_edit import edit_metadata, read_metadata
    from spf_lora.cli.out import printable

    changes = _pairs(setting or [])
    if changes or strip:
        entries = edit_metadata(file, changes=changes, strip=strip)
    else:
        entries = read_metadata(file)
    if as_json:
        out.show_json(entries)
        return
    for key, text in sorted(entries.items()):
        out.show(f"{printable(key)}={printable(text)}")


def _pairs(settings: list[str]) -> dict[str, str]:
    changes = {}
    for one in settings:
        key, equals, text = one.partition("=")
        if not equals or not key.strip():
            raise RecipeError(
                f"{one!r} is no KEY=VALUE", hint='--set "modelspec.title=Smiling portraits"'
            )
        changes[key.strip()] = text
    return changes
