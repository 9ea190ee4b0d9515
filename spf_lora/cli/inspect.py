"""`spf-lora inspect`: what an adapter file is, and what each app makes of it."""

from pathlib import Path
from typing import Annotated

import typer

from spf_lora.cli.facts_view import show_facts
from spf_lora.cli.options import Json


def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Adapter files.")],
    full: Annotated[
        bool,
        typer.Option("--full", help="Read every number of files over 32 MiB too: norms, hashes."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show modules, ranks, norms, provenance, hashes and which apps will read a file."""
    from spf_lora.adapters.check import facts

    files_facts = [facts.inspect(file, whole=True if full else None) for file in files]
    show_facts(files_facts, as_json=as_json)
