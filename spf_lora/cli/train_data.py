"""The user's folder on its way into `train`: checked, and what is left out told."""

from pathlib import Path
from typing import TYPE_CHECKING

from spf_lora.cli import out
from spf_lora.cli.any_lora import SUBJECTS
from spf_lora.cli.out import printable
from spf_lora.recipe.schema import Recipe

if TYPE_CHECKING:
    from spf_lora.base.load import Base
    from spf_lora.data.cache import TensorCache
    from spf_lora.data.folder import Example, Scan


def scan_data(
    settings: Recipe, data: Path | None, *, paired: bool = False, skip_faulty: bool
) -> "Scan | None":
    """Read the user's folder; what is wrong with it is told before a base is loaded."""
    if data is None:
        return None
    from spf_lora.data.folder import scan_folder, usable
    from spf_lora.data.picture_pairs import scan_pairs

    if paired:
        scan = scan_pairs(data, settings.attribute, subject=SUBJECTS[settings.profile])
    else:
        scan = scan_folder(data, settings.attribute)
    usable(scan, settings.attribute, skip_faulty=skip_faulty)
    return scan


def checked_examples(
    settings: Recipe,
    base: "Base",
    scan: "Scan | None",
    cache: "TensorCache",
    *,
    skip_faulty: bool,
    talk: bool,
) -> "list[Example]":
    """Check the user's folder as `data check` does, or draw the recipe's portraits."""
    from spf_lora.data.worlds import world_of
    from spf_lora.training import examples as learned

    if scan is None:
        return learned.load_examples(settings, None, cache, world_of(base))
    examples, report = learned.checked_examples(settings, base, scan, skip_faulty=skip_faulty)
    if talk:
        for fault in report.faults:
            out.warn(printable(f"left out: {fault}"))
        for note in report.notes:
            out.warn(printable(note))
    return examples


def warn_of_cache(cache: "TensorCache") -> None:
    """Tell what was wrong with the cache; it stands in no training's way."""
    for path in cache.damaged:
        out.warn(f"the cache's {path.name} was damaged, and is made again")
    if cache.trouble:
        out.warn(f"nothing more is cached: {cache.trouble}; training goes on")
