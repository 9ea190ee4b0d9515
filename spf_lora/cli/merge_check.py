"""`spf-lora merge --check`: what merging did to what the adapters mean, as a small table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spf_lora.cli import out
from spf_lora.cli.out import table
from spf_lora.cli.quiet import hush
from spf_lora.errors import CheckFailedError, MeasureError

if TYPE_CHECKING:
    from spf_lora.base.load import Base
    from spf_lora.evaluate.merge_retention import Kept, Part
    from spf_lora.merge.sources import Source

_COLUMNS = (
    "adapter",
    "asked for",
    "response",
    "merged",
    "pollution",
    "merged",
    "leakage",
    "merged",
)


def check_parts(names: Sequence[str], sources: "Sequence[Source]") -> None:
    """Refuse before merging what could not be checked after it.

    Raises:
        MeasureError: an adapter does not say what it teaches, or nobody can judge it.
    """
    from spf_lora.data.worlds.portraits import ATTRIBUTES

    for name, source in zip(names, sources, strict=True):
        if source.card is None or not source.card.attribute:
            raise MeasureError(
                f"{name} has no card, so nobody knows what to ask it for",
                hint="leave --check out; it needs adapters that spf-lora trained",
            )
        if source.card.attribute not in ATTRIBUTES:
            raise MeasureError(
                f"the portrait world cannot judge {source.card.attribute!r}, which {name} teaches",
                hint=f"leave --check out; it judges {', '.join(ATTRIBUTES)}",
            )


def parts_of(names: Sequence[str], sources: "Sequence[Source]") -> "list[Part]":
    """Return what went into a merge, each at its weight, to be asked for one by one."""
    from spf_lora.evaluate.merge_retention import Part
    from spf_lora.merge.sources import as_adapter

    return [
        Part(name, source.card.attribute, as_adapter(source))
        for name, source in zip(names, sources, strict=True)
        if source.card is not None
    ]


def load(base: str) -> "Base":
    """Load what to draw with, before merging: one that cannot be loaded leaves no file behind."""
    hush()
    from spf_lora.base.load import load_base

    return load_base(base)


def compare(parts: "list[Part]", merged: Path, model: "Base") -> "list[Kept]":
    """Draw with the parts and with the merged file, and measure both.

    Raises:
        MeasureError: an attribute cannot be judged.
        AdapterFileError: the merged file is of another base.
    """
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.adapters.format.base_match import refuse_other_base
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.merge_retention import PROMPTS, STEPS, measure_kept

    adapter = read_adapter(merged)
    refuse_other_base(from_metadata(adapter.metadata), merged, model.id, of=model.name)
    return measure_kept(
        model,
        parts,
        adapter,
        gallery=cache_folder(),
        prompts=PROMPTS,
        steps=STEPS,
        tell=out.say,
    )


def as_table(rows: "list[Kept]") -> str:
    """Return the comparison for people."""
    cells = [
        [
            row.name,
            row.attribute,
            *(one.text() for pair in (row.response, row.pollution, row.leakage) for one in pair),
        ]
        for row in rows
    ]
    return table([list(_COLUMNS), *cells])


def as_json(rows: "list[Kept]") -> list[dict[str, Any]]:
    """Return the comparison for programs."""
    return [
        {
            "name": row.name,
            "attribute": row.attribute,
            "passed": row.passed,
            **{
                f"{measure}_{when}": {"value": one.value, "low": one.low, "high": one.high}
                for measure in ("response", "pollution", "leakage")
                for when, one in zip(("alone", "merged"), getattr(row, measure), strict=True)
            },
        }
        for row in rows
    ]


def refuse_failed(rows: "list[Kept]") -> None:
    """Exit 3 where merging cost more than it may.

    Raises:
        CheckFailedError: a part failed.
    """
    from spf_lora.evaluate.merge_retention import CLAIM

    failed = [row.name for row in rows if not row.passed]
    if failed:
        raise CheckFailedError(
            f"merging cost too much for {', '.join(failed)}",
            hint=f"wanted: {CLAIM}; try other weights, a larger rank, or fewer adapters",
        )
