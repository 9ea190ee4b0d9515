"""`spf-lora adapters`: the registry, folders of adapters that can be called by name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.cli import out
from spf_lora.cli.facts_view import show_facts
from spf_lora.cli.options import Json, Registry, existing
from spf_lora.errors import AdapterFileError, CheckFailedError

if TYPE_CHECKING:
    from spf_lora.registry.names import Entry

app = typer.Typer(help="The registry: adapters that can be called by name.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="An adapter's name.")]
Force = Annotated[bool, typer.Option("--force", help="Even if a stack needs it.")]

_COLUMNS = ("name", "attribute", "target_text", "base_id", "parents", "size", "place")


@app.command("list")
def list_(registry: Registry = None, as_json: Json = False) -> None:
    """List all adapters, each name once, where it is found first."""
    from spf_lora.registry import names as reg

    rows = [_row(entry) for entry in reg.entries(existing(registry))]
    if as_json:
        out.show_json(rows)
    elif rows:
        out.show(out.table([_COLUMNS, *([_cell(row, one) for one in _COLUMNS] for row in rows)]))
    else:
        out.say("no adapters yet; `spf-lora adapters where` shows where they are looked for")
    for row in rows:
        if row["fault"]:
            out.warn(row["fault"])
    for path in reg.misnamed(registry):
        out.warn(f"{path} cannot be called by name; spf-lora adapters add gives it one")


@app.command()
def show(name: Name, registry: Registry = None, as_json: Json = False) -> None:
    """Show one adapter: card, modules, ranks, hashes and which apps will read it."""
    from spf_lora.adapters.check.facts import inspect
    from spf_lora.registry import names as reg

    show_facts([inspect(reg.find(name, existing(registry)).path)], as_json=as_json)


@app.command()
def add(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Any layout we read.")],
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it; the file's name by default.")
    ] = None,
    registry: Registry = None,
) -> None:
    """Check an adapter and copy it into the registry."""
    from spf_lora.registry import edit

    done = edit.add(source, name or source.stem, registry)
    if done.rewritten:
        out.warn(f"{source} was written anew, not copied: {done.rewritten}")
    out.show(str(done.entry.path))


@app.command()
def remove(name: Name, registry: Registry = None, force: Force = False) -> None:
    """Move an adapter to the registry's trash folder."""
    from spf_lora.registry import edit

    trashed = edit.remove(name, registry, force=force)
    out.show(str(trashed))
    where = f" --registry {registry}" if registry else ""
    out.say(f"undo: spf-lora adapters add {trashed}{where}")


@app.command()
def rename(
    old: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    registry: Registry = None,
    force: Force = False,
) -> None:
    """Give an adapter another name; the file itself stays as it is."""
    from spf_lora.registry import edit

    out.show(str(edit.rename(old, new, registry, force=force).path))


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Which; all by default.")
    ] = None,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Read adapters whole; exit 3 if one is damaged or says what is not so."""
    from spf_lora.registry import names as reg

    folder = existing(registry)
    chosen = [reg.find(one, folder) for one in names] if names else list(reg.entries(folder))
    findings = {entry.name: reg.verify(entry) for entry in chosen}
    failed = [name for name, rows in findings.items() if any(one.status == "fail" for one in rows)]
    if as_json:
        out.show_json({name: [vars(one) for one in rows] for name, rows in findings.items()})
    elif findings:
        lines = [
            [name, one.check, one.status, out.printable(one.detail, 400)]
            for name, rows in findings.items()
            for one in rows
            if one.status != "ok" or names
        ]
        out.show(out.table(lines) if lines else f"all {len(findings)} are sound")
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(findings)} adapters did not pass: {', '.join(failed[:8])}",
            hint="get them again, or spf-lora adapters remove NAME",
        )


@app.command()
def where(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Print this adapter's file.")
    ] = None,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Show which folders are searched, in order, or where one adapter lies."""
    from spf_lora.registry import names as reg

    if name is not None:
        path = str(reg.find(name, registry).path)
        out.show_json({"name": name, "file": path}) if as_json else out.show(path)
        return
    added = reg.home(registry)
    rows: list[dict[str, Any]] = [
        {
            "place": one.label,
            "folder": str(one.folder),
            "exists": one.folder.is_dir(),
            "adds_here": one == added,
        }
        for one in reg.places(registry)
    ]
    if as_json:
        out.show_json(rows)
        return
    lines = [[row["place"], _state(row), row["folder"]] for row in rows]
    out.show(out.table(lines))


def _row(entry: "Entry") -> dict[str, Any]:
    from spf_lora.adapters.format.glance import glance

    fault = ""
    facts: dict[str, Any] = {}
    try:
        facts = vars(glance(entry.path))
    except (AdapterFileError, OSError) as error:
        fault = f"{entry.path} cannot be read: {getattr(error, 'message', error)}"
    return {
        "name": entry.name,
        **facts,
        "place": entry.place.label,
        "file": str(entry.path),
        "fault": fault or None,
    }


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "size" and value is not None:
        return f"{value / 1e6:.1f} MB"
    return out.printable(str(value), 60) if value else "-"


def _state(row: dict[str, Any]) -> str:
    if row["adds_here"]:
        return "adds go here"
    return "searched" if row["exists"] else "not there"
