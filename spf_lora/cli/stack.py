"""`spf-lora stack`: adapters that are on together, learned one after another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.cli import out
from spf_lora.cli.options import Json, Registry, existing
from spf_lora.cli.out import printable, table
from spf_lora.cli.threads import one_thread_each

if TYPE_CHECKING:
    from spf_lora.registry.stack import Stack

app = typer.Typer(
    help="Stacks: adapters that are on together, learned one after another.", no_args_is_help=True
)

_PROMPT = "a portrait of a person"
_ONE_FILE = "one merged file"
_EXPORTS = {  # what is written -> the options that it takes
    _ONE_FILE: ("--out", "--rank", "--energy", "--dtype", "--force", "--json"),
    "--each": ("--json",),
    "--comfyui": ("--local", "--prompt", "--force", "--json"),
    "--a1111": ("--prompt",),
}

Name = Annotated[str, typer.Argument(metavar="STACK", help="The stack's name.")]
Orphans = Annotated[
    bool, typer.Option("--orphans", help="Allow adapters without those they were trained onto.")
]


@app.command("list")
def list_(registry: Registry = None, as_json: Json = False) -> None:
    """List all stacks."""
    from spf_lora.errors import StackError
    from spf_lora.registry.stack import read_stack, stack_names

    rows: list[dict[str, Any]] = []
    for name, place in stack_names(existing(registry)):
        try:
            stack = read_stack(name, place)
        except StackError as error:
            out.warn(error.message)
            continue
        rows.append({"name": name, "adapters": _members(stack), "place": place.label})
    if as_json:
        out.show_json(rows)
    elif rows:
        out.show(table([[one["name"], " ".join(one["adapters"]), one["place"]] for one in rows]))
    else:
        out.say("no stacks yet; spf-lora stack create NAME ADAPTER... makes one")


@app.command()
def create(
    name: Name,
    adapters: Annotated[
        list[str],
        typer.Argument(metavar="NAME[:STRENGTH]...", help="In the order they were learned."),
    ],
    registry: Registry = None,
    orphans: Orphans = False,
) -> None:
    """Write a new stack of registered adapters."""
    from spf_lora.adapters.strength import split_strength
    from spf_lora.registry import stack_edit

    members = [split_strength(text) for text in adapters]
    out.show(str(stack_edit.create(name, members, registry, orphans=orphans).path))


@app.command()
def show(name: Name, registry: Registry = None, as_json: Json = False) -> None:
    """Show a stack's adapters, in order, and whether each is still what it was."""
    from spf_lora.registry.stack import find_stack, state_of

    stack = find_stack(name, existing(registry))
    members = [(one, *state_of(one, registry)) for one in stack.members]
    rows = [
        {
            "name": member.name,
            "strength": member.strength,
            "target_text": known.card.target_text if known and known.card else None,
            "content_id": member.content_id,
            "state": state,
            "file": str(known.path) if known else None,
        }
        for member, state, known in members
    ]
    if as_json:
        out.show_json({"name": name, "base_id": stack.base_id, "adapters": rows})
        return
    out.show(f"base  {stack.base_id or 'not named by any card'}")
    cells = [
        [
            str(row["name"]),
            f"{row['strength']:g}",
            printable(str(row["target_text"] or "-")),
            str(row["content_id"])[:12],
            str(row["state"]),
        ]
        for row in rows
    ]
    out.show(table([["adapter", "strength", "target_text", "content_id", "state"], *cells]))
    for row in rows:
        if row["state"] != "ok":
            out.warn(f"{row['name']} is {row['state']}, so the stack cannot be used")


@app.command()
def add(
    name: Name,
    adapter: Annotated[str, typer.Argument(metavar="NAME[:STRENGTH]", help="What to put on top.")],
    registry: Registry = None,
    orphans: Orphans = False,
) -> None:
    """Put a registered adapter on top of a stack."""
    from spf_lora.adapters.strength import split_strength
    from spf_lora.registry import stack_edit

    _show_stack(stack_edit.add(name, *split_strength(adapter), registry, orphans=orphans))


@app.command()
def drop(
    name: Name,
    adapter: Annotated[str, typer.Argument(metavar="NAME", help="What to take out.")],
    registry: Registry = None,
    orphans: Orphans = False,
) -> None:
    """Take an adapter out of a stack; its file stays."""
    from spf_lora.registry import stack_edit

    _show_stack(stack_edit.drop(name, adapter, registry, orphans=orphans))


@app.command()
def remove(name: Name, registry: Registry = None) -> None:
    """Move a stack's file to the registry's trash folder; its adapters stay."""
    from spf_lora.registry import stack_edit

    out.show(str(stack_edit.remove(name, registry)))


@app.command()
def export(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="One merged file; out/STACK.safetensors by default."),
    ] = None,
    each: Annotated[
        Path | None,
        typer.Option("--each", metavar="FOLDER", help="Or a new folder, one file per adapter."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Directions to keep, for one file.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Share of the squared norm to keep, for one file.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32, for one file.")] = None,
    comfyui: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Or a workflow for ComfyUI, and FILE.api.json."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Of our nodes, which keep the base's picture.")
    ] = False,
    a1111: Annotated[
        bool, typer.Option("--a1111", help="Or print prompts for A1111 and Forge.")
    ] = False,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Of the workflow or the prompts, without the adapters' words; "
            f'"{_PROMPT}" by default.'
        ),
    ] = None,
    registry: Registry = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a stack for other apps: one file, exact unless a rank is asked for, or one for each."""
    _check_export(
        {"--each": each, "--comfyui": comfyui, "--a1111": a1111 or None},
        {
            "--out": output,
            "--rank": rank,
            "--energy": energy,
            "--dtype": dtype,
            "--local": local or None,
            "--prompt": prompt,
            "--force": force or None,
            "--json": as_json or None,
        },
    )
    one_thread_each()
    from spf_lora.merge.stack_export import PROMPTS, export_file, export_folder
    from spf_lora.registry.stack import adapters_of, find_stack

    members = adapters_of(find_stack(name, existing(registry)), registry)
    if a1111:
        from spf_lora.apps.stacks import a1111_lines, stacked

        out.show(a1111_lines(stacked(members), prompt or _PROMPT))
        return
    if comfyui:
        from spf_lora.apps.comfyui.workflow import write_workflows

        words = prompt or _PROMPT
        flows = write_workflows(members, comfyui, words, local=local, overwrite=force)
        out.show_json({"files": list(map(str, flows))}) if as_json else out.show(str(flows[0]))
        return
    if each:
        files = export_folder(members, each)
        lines = (each / PROMPTS).read_text("utf-8")
        if as_json:
            out.show_json({"files": [str(one) for one in files]})
        else:
            out.show(lines.rstrip())
        return
    target = out.place(output, f"{name}.safetensors")
    plan, done = export_file(
        members, target, rank=rank, energy=energy, dtype=dtype, overwrite=force
    )
    table = {
        "file": str(target),
        "modules": len(plan.modules),
        "ranks": {str(one): count for one, count in done.rank_counts.items()},
        "exact": plan.exact,
        "relative_error": done.relative_error,
    }
    if as_json:
        out.show_json(table)
        return
    error = "exact" if plan.exact else f"relative error {done.relative_error:.4%}"
    out.say(f"{len(members)} adapters in {len(plan.modules)} modules, {error}")
    out.show(str(target))


def _check_export(kinds: dict[str, Any], options: dict[str, Any]) -> None:
    """Refuse two kinds of export at once, and an option that does nothing for the kind.

    Args:
        kinds: those asked for; one that is not is None.
        options: likewise.
    """
    from spf_lora.errors import RecipeError

    asked = [kind for kind, value in kinds.items() if value is not None] or [_ONE_FILE]
    if len(asked) > 1:
        raise RecipeError(f"{' and '.join(asked)} are two exports", hint="ask for one at a time")
    for option, value in options.items():
        if value is not None and option not in _EXPORTS[asked[0]]:
            of = [kind for kind, taken in _EXPORTS.items() if option in taken]
            raise RecipeError(
                f"{option} does nothing for {asked[0]}",
                hint=f"leave it out; it is for {', '.join(of)}",
            )


def _show_stack(stack: "Stack") -> None:
    out.say(f"{stack.name}: {' '.join(_members(stack))}")
    out.show(str(stack.path))


def _members(stack: "Stack") -> list[str]:
    return [f"{one.name}:{one.strength:g}" for one in stack.members]
