"""`spf-lora inspect`: what an adapter file is, or how a picture was drawn."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spf_lora.cli import out
from spf_lora.cli.facts_view import show_one
from spf_lora.cli.options import Json
from spf_lora.errors import AdapterFileError, PictureError


def inspect(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Adapters, or pictures that apps drew.")
    ],
    full: Annotated[
        bool,
        typer.Option("--full", help="Read every number of files over 32 MiB too: norms, hashes."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what an adapter is and which apps read it; of a PNG, how it was drawn."""
    from spf_lora.adapters.check import facts
    from spf_lora.adapters.check.facts import AdapterFacts

    facts_or_pictures: list[AdapterFacts | dict[str, Any]] = []
    faults: list[AdapterFileError | PictureError] = []
    for file in files:
        try:
            facts_or_pictures.append(
                _picture(file)
                if file.suffix.lower() == ".png"
                else facts.inspect(file, whole=True if full else None)
            )
        except (AdapterFileError, PictureError) as error:  # it does not stop the others
            faults.append(error)
    if len(files) == 1 and faults:
        raise faults[0]
    _show(facts_or_pictures, as_json=as_json)
    for fault in faults:
        out.warn(out.printable(fault.message))
    if faults:
        raise AdapterFileError(
            f"{len(faults)} of {len(files)} files cannot be read", hint="get them again"
        )


def _show(rows: list[Any], *, as_json: bool) -> None:
    from spf_lora.adapters.check.facts import AdapterFacts

    if as_json:
        out.show_json([one.as_json() if isinstance(one, AdapterFacts) else one for one in rows])
        return
    for at, one in enumerate(rows):
        if at:
            out.show("")
        if isinstance(one, AdapterFacts):
            show_one(one)
        else:
            _show_picture(one)


def _picture(path: Path) -> dict[str, Any]:
    """Return what a PNG says about how it was drawn."""
    from spf_lora.draw.infotext import read_infotext

    infotext = read_infotext(path)
    if infotext is None:
        raise PictureError(
            f"{path} does not say how it was drawn",
            hint="it has no text `parameters`; apps that edit or upload pictures drop it",
        )
    return {
        "file": str(path),
        "prompt": infotext.prompt,
        "negative": infotext.negative,
        "adapters": [{"name": name, "strength": strength} for name, strength in infotext.adapters],
        "settings": dict(infotext.settings),
    }


def _show_picture(picture: dict[str, Any]) -> None:
    out.show(str(picture["file"]))
    adapters = ", ".join(f"{one['name']} {one['strength']:g}" for one in picture["adapters"])
    lines = {"prompt": picture["prompt"], "negative": picture["negative"], "adapters": adapters}
    for label, text in {**lines, **picture["settings"]}.items():
        if text:
            out.show(f"  {out.printable(label):<14} {out.printable(text)}")
