"""`spf-lora inspect`: what an adapter file is, or how a picture was drawn."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.cli import out
from spf_lora.errors import PictureError

if TYPE_CHECKING:
    from rich.tree import Tree

    from spf_lora.adapters.check.facts import Facts

_BAR_CELLS = 24


def inspect(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Adapters, or pictures that apps drew.")
    ],
    full: Annotated[
        bool,
        typer.Option("--full", help="Read every number of files over 32 MiB too: norms, hashes."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what an adapter is and which apps read it; of a PNG, how it was drawn."""
    from spf_lora.adapters.check import facts
    from spf_lora.adapters.check.facts import Facts

    found = [
        _picture(file)
        if file.suffix.lower() == ".png"
        else facts.inspect(file, whole=True if full else None)
        for file in files
    ]
    if as_json:
        out.show_json([one.as_json() if isinstance(one, Facts) else one for one in found])
        return
    for at, one in enumerate(found):
        if at:
            out.show("")
        if isinstance(one, Facts):
            _show(one)
        else:
            _show_picture(one)


def _picture(path: Path) -> dict[str, Any]:
    """Return what a PNG says about how it was drawn."""
    from spf_lora.draw.infotext import read_infotext

    said = read_infotext(path)
    if said is None:
        raise PictureError(
            f"{path} does not say how it was drawn",
            hint="it has no text `parameters`; apps that edit or upload pictures drop it",
        )
    return {
        "file": str(path),
        "prompt": said.prompt,
        "negative": said.negative,
        "adapters": [{"name": name, "strength": strength} for name, strength in said.adapters],
        "settings": dict(said.settings),
    }


def _show_picture(said: dict[str, Any]) -> None:
    out.show(str(said["file"]))
    adapters = ", ".join(f"{one['name']} {one['strength']:g}" for one in said["adapters"])
    lines = {"prompt": said["prompt"], "negative": said["negative"], "adapters": adapters}
    for label, text in {**lines, **said["settings"]}.items():
        if text:
            out.show(f"  {printable(label):<14} {printable(text)}")


def _show(facts: "Facts") -> None:
    out.show(f"{facts.path}  {facts.size / 1e6:.1f} MB")
    for label, text in _lines(facts):
        out.show(f"  {label:<12} {printable(text)}")
    if facts.card is not None:
        out.show(_provenance(facts))
    _show_norms(facts)
    for line in _readers(facts):
        out.show(f"  {line}")
    for note in facts.notes:
        out.warn(printable(note))


def _readers(facts: "Facts") -> list[str]:
    """Say which apps read the file; one that reads all of it is only named."""
    if not facts.apps:
        return [f"{'read by':<13}spf-lora alone: other apps have no such base"]
    whole = [one for one in facts.apps if one.whole]
    lines = []
    if whole:
        names = ", ".join(one.app for one in whole)
        lines.append(f"{'read by':<13}{names}: all {whole[0].total} keys")
    for one in facts.apps:
        if one.whole:
            continue
        verdict = f"refuses it: {one.refused}"
        if not one.refused:
            verdict = f"drops {len(one.dropped)} of {one.total} keys and {one.on_mismatch}"
        lines.append(f"{one.app:<22}{verdict}")
    return lines


def _lines(facts: "Facts") -> list[tuple[str, str]]:
    lines = [
        ("base", facts.family),
        ("layout", f"{facts.layout}, {_counted(facts.dtypes)}"),
        ("modules", f"{_counted(facts.components)} ({_counted(facts.kinds)})"),
        ("rank", _counted(facts.ranks)),
        ("alpha", _counted({f"{alpha:g}": count for alpha, count in facts.alphas.items()})),
    ]
    lines += list(facts.declared.items())
    if facts.hashes is None:
        return [*lines, ("hashes", "not computed for a file this large; --full computes them")]
    return [*lines, *facts.hashes.items()]


def _counted(counts: dict[str, int] | dict[int, int]) -> str:
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{key} x{count}" for key, count in counts.items())


def _provenance(facts: "Facts") -> "Tree":
    from rich.text import Text
    from rich.tree import Tree

    card = facts.card
    assert card is not None
    tree = Tree(Text(printable(f"{card.attribute}: {card.target_text!r}, seed {card.seed}")))
    tree.add(Text(printable(f"base {card.base_id}")))
    tree.add(Text(f"recipe {card.recipe_hash[:12]}"))
    tree.add(Text(printable(f"data {card.dataset_digest[:12] or 'none'}")))
    for parent in card.parents:
        tree.add(Text(printable(f"parent {parent[:12]}")))
    for name, value in card.metrics.items():
        tree.add(Text(printable(f"{name} {value}")))
    return tree


def _show_norms(facts: "Facts") -> None:
    if facts.norms is None:
        return
    largest = max(facts.norms.values()) or 1.0
    for block, norm in facts.norms.items():
        bar = "#" * round(_BAR_CELLS * norm / largest)
        out.show(f"  {block:<32}{norm:>10.4g} {bar}")


def printable(text: str) -> str:
    """Return text from a file that cannot steer the terminal, cut to one screen line or so."""
    clean = "".join(sign if sign.isprintable() else " " for sign in text)
    return clean if len(clean) <= 200 else f"{clean[:200]}..."
