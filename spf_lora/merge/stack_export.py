"""Takes a stack to other apps: one merged file, or a folder with one file for each adapter."""

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from spf_lora.adapters.format.reading import open_adapter
from spf_lora.adapters.format.rewrite import convert
from spf_lora.atomic import check_writable, unwritable, write_text
from spf_lora.errors import OutputError
from spf_lora.merge.execute import MergeOutcome, check_target, execute
from spf_lora.merge.plan import MergePlan, Settings, make_plan
from spf_lora.merge.sources import open_sources
from spf_lora.registry.names import SUFFIX
from spf_lora.registry.stack import Known

PROMPTS = "prompts.txt"


def export_file(
    members: Sequence[tuple[Known, float]],
    target: Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
) -> tuple[MergePlan, MergeOutcome]:
    """Merge a stack into one file: the exact sum, or the best of a smaller rank.

    Raises:
        RecipeError: the settings mean nothing.
        AdapterFileError: an adapter cannot be read.
        OutputError: the target is one of the adapters, exists, or cannot be written.
    """
    method = "concat" if rank is None and energy is None else "svd"
    paths = [known.path for known, _ in members]
    with open_sources(paths, weights=[strength for _, strength in members]) as sources:
        plan = make_plan(sources, Settings(method, rank, energy, dtype))
        check_target(plan, target, overwrite=overwrite)
        return plan, execute(plan, target, overwrite=overwrite)


def export_folder(members: Sequence[tuple[Known, float]], target: Path) -> list[Path]:
    """Write a new folder with one kohya file for each adapter and the lines that load them.

    It is filled beside the target and renamed, so that it is there whole or not at all.

    Raises:
        OutputError: the target exists and is not empty, or cannot be written.
    """
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(f"folder {target} is not empty", hint="choose a new one")
    if not target.is_dir():
        check_writable(target)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        beside.mkdir()
        for known, _ in members:
            _copy(known, beside / f"{known.name}{SUFFIX}")
        write_text(beside / PROMPTS, prompt_lines(members))
        beside.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return sorted(target.iterdir())


def prompt_lines(members: Sequence[tuple[Known, float]]) -> str:
    """Return what to write in A1111 and ComfyUI to load a stack's files at its strengths."""
    triggers = [known.card.trigger for known, _ in members if known.card]
    words = ", ".join(["a portrait of a person", *(printable(one) for one in triggers)])
    tags = " ".join(f"<lora:{known.name}:{strength:g}>" for known, strength in members)
    typed = " ".join(
        f"<lora:{known.name}{SUFFIX}:{strength:g}:{strength:g}>" for known, strength in members
    )
    loaders = "\n".join(
        f"  lora_name {known.name}{SUFFIX}  strength_model {strength:g}  strength_clip {strength:g}"
        for known, strength in members
    )
    return (
        f"A1111, Forge (files in models/Lora):\n{words}, {tags}\n\n"
        f"ComfyUI, a node that reads tags (files in models/loras):\n{words}, {typed}\n\n"
        f"ComfyUI, LoraLoader nodes one after the other:\n{loaders}\n"
    )


def printable(text: str) -> str:
    """Return a card's text, a stranger's, as it may be shown and pasted."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _copy(known: Known, target: Path) -> None:
    """Copy a kohya file byte for byte; write any other layout anew."""
    with open_adapter(known.path) as opened:
        layout = opened.layout
    if layout == "kohya" and known.path.is_file():
        shutil.copyfile(known.path, target)
    else:
        convert(known.path, target, layout="kohya", dtype=None, overwrite=False)
