"""What a merged file says of itself: parents by content id, weights, method; never a path."""

from collections.abc import Iterable
from typing import Any

from spf_lora import __version__
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.format.privacy import without_leaks
from spf_lora.merge.plan import MergePlan

_LONGEST = 200


def metadata(
    plan: MergePlan, ids: list[str], *, title: str, rank: int, alpha: float
) -> dict[str, str]:
    """Return all text entries of the merged file but its hashes."""
    return file_metadata(
        merged_card(plan, ids),
        rank=rank,
        alpha=alpha,
        title=title,
        description=f"{plan.settings.method} merge of {len(plan.sources)} adapters",
        license_name=_joined(
            ", ", (one.opened.metadata.get("modelspec.license", "") for one in plan.sources)
        ),
    )


def merged_card(plan: MergePlan, ids: list[str]) -> Card:
    """Return the card of a merge; what all parents share stays, what they measured does not."""
    cards = [one.card for one in plan.sources if one.card is not None]
    bases = {one.base_id for one in cards}
    return Card(
        attribute=_joined("+", (one.attribute for one in cards)) or "merge",
        target_text=_joined(", ", (one.target_text for one in cards)),
        trigger=_joined(", ", (one.trigger for one in cards)),
        base_id=bases.pop() if len(bases) == 1 else "",
        recipe={"merge": _recipe(plan)},
        parents=tuple(ids),
        versions={"spf-lora": __version__},
        seed=plan.settings.chance.seed if plan.settings.row.draws else None,
    )


def _recipe(plan: MergePlan) -> dict[str, Any]:
    """Return what makes the merge repeatable; weights are in the order of the parents."""
    settings = plan.settings
    tables = [dict(one.block_weights) for one in plan.sources]
    entries = {
        "method": settings.method,
        "weights": [one.weight for one in plan.sources],
        "block_weights": tables if any(tables) else None,
        "rank": settings.rank,
        "energy": settings.energy,
        "density": settings.chance.density if settings.row.density is not None else None,
        "dtype": plan.dtype,
    }
    return {key: value for key, value in entries.items() if value is not None}


def _joined(sign: str, texts: Iterable[str]) -> str:
    """Join what differs, without local paths that a stranger's file may hold."""
    different = dict.fromkeys(without_leaks(text) for text in texts if text)
    return sign.join(different)[:_LONGEST]
