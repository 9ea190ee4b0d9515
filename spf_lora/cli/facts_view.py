"""What `inspect` and `adapters show` print of an adapter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spf_lora.cli import out
from spf_lora.cli.out import printable

if TYPE_CHECKING:
    from rich.tree import Tree

    from spf_lora.adapters.check.facts import AdapterFacts

_BAR_CELLS = 24


def show_facts(files: "Sequence[AdapterFacts]", *, as_json: bool) -> None:
    """Print what is known of adapters."""
    if as_json:
        out.show_json([one.as_json() for one in files])
        return
    for at, one in enumerate(files):
        if at:
            out.show("")
        show_one(one)


def show_one(facts: "AdapterFacts") -> None:
    """Print what is known of an adapter."""
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


def _readers(facts: "AdapterFacts") -> list[str]:
    """Say which apps read the file; those that read all of it are only named."""
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


def _lines(facts: "AdapterFacts") -> list[tuple[str, str]]:
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


def _provenance(facts: "AdapterFacts") -> "Tree":
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


def _show_norms(facts: "AdapterFacts") -> None:
    if facts.norms is None:
        return
    largest = max(facts.norms.values()) or 1.0
    for block, norm in facts.norms.items():
        bar = "#" * round(_BAR_CELLS * norm / largest)
        out.show(f"  {block:<32}{norm:>10.4g} {bar}")
