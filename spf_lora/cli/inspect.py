"""`spf-lora inspect`: what an adapter file is, and what each app makes of it."""

from pathlib import Path
from typing import Annotated

import typer

from spf_lora.cli import out
from spf_lora.cli.facts_view import show_facts
from spf_lora.cli.options import Json
from spf_lora.errors import AdapterFileError


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

    read, faults = [], []
    for file in files:
        try:
            read.append(facts.inspect(file, whole=True if full else None))
        except AdapterFileError as error:  # it does not stop the others
            faults.append(error)
    if len(files) == 1 and faults:
        raise faults[0]
    show_facts(read, as_json=as_json)
    for fault in faults:
        out.warn(out.printable(fault.message))
    if faults:
        raise AdapterFileError(
            f"{len(faults)} of {len(files)} files cannot be read", hint="get them again"
        )
