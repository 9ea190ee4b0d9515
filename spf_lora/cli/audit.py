"""`spf-lora audit`: what LoRAs do besides their target."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.atomic import check_folder, check_writable, make_folder, write_text
from spf_lora.cli import out
from spf_lora.cli.any_lora import SUBJECTS, Source, recipe_of, source_of, teacher_of
from spf_lora.cli.options import Json
from spf_lora.cli.phases import Phases, showing_phases
from spf_lora.cli.quiet import hush
from spf_lora.errors import BaseModelError, MeasureError

if TYPE_CHECKING:
    from spf_lora.adapters.module import Adapter
    from spf_lora.evaluate.audit import Audit, Measured, Question, Tell
    from spf_lora.recipe.schema import Recipe

_PAGE = "audit.html"
_ROWS = 8


def audit(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="Files or names.")],
    target: Annotated[
        str | None, typer.Option(help='What asks for it, as "a beard"; the file says by default.')
    ] = None,
    attribute: Annotated[
        str | None, typer.Option("--attribute", "-a", help="Or a recipe that says it.")
    ] = None,
    base: Annotated[
        str, typer.Option(help="`embedded`, a diffusers folder, a .safetensors, a hub id.")
    ] = "embedded",
    clip: Annotated[
        str, typer.Option(help="Folder or hub id of a CLIP that sees what moves.")
    ] = "base",
    prompts: Annotated[int, typer.Option(min=2, max=1000, help="Pictures of each kind.")] = 16,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; out/audits/ADAPTER by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a page there.")] = False,
    as_json: Json = False,
) -> None:
    """Say what LoRAs move besides their target, and which words they react to unasked."""
    from spf_lora.registry.names import resolve

    paths = [resolve(one) for one in adapters]
    folder = output or out.OUT / "audits" / paths[0].stem
    check_folder(folder)
    if (folder / _PAGE).exists():
        check_writable(folder / _PAGE, overwrite=force)
    sources = [source_of(path) for path in paths]
    if len({path.stem for path in paths}) < len(paths):
        raise MeasureError(
            "two of the files have one name", hint="rename one: tables tell them apart by it"
        )
    recipes = [
        recipe_of(source, [], target=target, attribute=attribute, base=base) for source in sources
    ]
    hush()
    with showing_phases() as phases:
        audits, loaded = _look(sources, recipes, clip, prompts, phases)
    _tell(audits, loaded, folder, as_json=as_json)


def _look(
    sources: list[Source],
    recipes: "list[tuple[Recipe, bool]]",
    clip: str,
    prompts: int,
    phases: Phases,
) -> "tuple[list[Audit], list[Adapter]]":
    from dataclasses import replace

    from spf_lora.adapters.format.base_match import refuse_other_base
    from spf_lora.base.clip import find_clip, load_clip
    from spf_lora.base.load import load_base
    from spf_lora.data.completion import load_vocabulary
    from spf_lora.evaluate.audit import Question
    from spf_lora.evaluate.audit import audit as look

    phases("load the base")
    first = recipes[0][0]
    base = load_base(first.training.base)
    seeing = None
    try:
        found = find_clip(base, clip, phases)
    except BaseModelError as error:
        out.say(f"nobody sees what moves: name a CLIP with --clip ({error.message})")
    else:
        seeing = load_clip(base, found)
    vocabulary = load_vocabulary(first.distil.vocabulary)
    question = Question(base, SUBJECTS[first.profile], vocabulary, seeing, prompts)
    audits, loaded = [], []
    for source, (recipe, wordless) in zip(sources, recipes, strict=True):
        refuse_other_base(source.card, source.path, base.id, of=base.name)
        adapter, name = teacher_of(source, base), source.path.stem
        loaded.append(adapter)

        def tell(what: str, done: int, total: int, name: str = name) -> None:
            phases(f"{name}: {what}", done, total)

        one = look(question, name, adapter, recipe.attribute, wordless=wordless, tell=tell)
        audits.append(replace(one, measured=_measured(question, name, adapter, recipe, tell)))
    return audits, loaded


def _measured(
    question: "Question", name: str, adapter: "Adapter", recipe: "Recipe", tell: "Tell"
) -> "Measured | None":
    """Return what the judge of the base's world sees, or None where there is none."""
    from spf_lora.data.worlds import world_of
    from spf_lora.evaluate.audit import measure
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.judges.world import world_judge
    from spf_lora.evaluate.protocol import in_world

    base = question.base
    if not base.world or not in_world(recipe.attribute.name, world_of(base)):
        return None
    return measure(
        base,
        name,
        adapter,
        recipe.attribute,
        world_judge(recipe.attribute.name, base),
        gallery=cache_folder(),
        prompts=question.prompts,
        tell=tell,
    )


def _tell(audits: "list[Audit]", adapters: "list[Adapter]", folder: Path, *, as_json: bool) -> None:
    from spf_lora.evaluate.audit import meetings
    from spf_lora.evaluate.report.audit_page import (
        audit_page,
        meetings_table,
        sentence,
        tables_of,
    )
    from spf_lora.evaluate.report.summary import pick

    met = meetings(audits, adapters)
    results = [one.measured.result for one in audits if one.measured]
    alike = len(results) == len(audits) > 1 and len({one.attribute for one in results}) == 1
    best = pick(results) if alike else ""
    make_folder(folder)
    write_text(folder / _PAGE, audit_page(audits, met, best), overwrite=True)
    if as_json:
        out.show_json({"adapters": [_plain(one) for one in audits], "pick": best or None})
    else:
        for one in audits:
            out.show(f"{one.name}: {sentence(one)}")
            for title, (heads, rows) in tables_of(one).items():
                out.show(f"\n{title}\n{out.table([heads, *rows[:_ROWS]])}")
        if met:
            heads, rows = meetings_table(met)
            out.show(f"\nHow they meet\n{out.table([heads, *rows])}")
        if best:
            out.show(f"\n{best}")
    out.say(f"page: {folder / _PAGE}")


def _plain(one: "Audit") -> dict[str, Any]:
    """Return an audit as JSON has it; of what was measured, the figures alone."""
    from dataclasses import replace

    known = one.measured
    table = asdict(replace(one, measured=None))
    if known is not None:
        figures = {name: figure.value for name, figure in known.result.numbers.items()}
        table["measured"] = {
            "strength": known.strength,
            "start_percent": known.start_percent,
            "figures": figures,
        }
    return table
