"""`spf-lora data`: what training would see in a folder of pictures, and what is kept of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spf_lora.cli import out
from spf_lora.cli.any_lora import SUBJECTS
from spf_lora.cli.options import Json
from spf_lora.cli.out import printable
from spf_lora.errors import CheckFailedError, RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from spf_lora.data.check import Report

app = typer.Typer(no_args_is_help=True, help="Look at training folders and at the cache.")

_ROWS = 12


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Pictures and captions.")],
    attribute: Annotated[
        str | None, typer.Option("--attribute", "-a", help="What is to be taught: a recipe's name.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe file instead.")] = None,
    base: Annotated[
        str | None, typer.Option(help="The base to be trained; else the recipe's.")
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(max=4096, help="Side of the square, in pixels; else the base's own."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Captions without the attribute, to compare words with."),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="The folder holds pictures before and after.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print what training would see in a folder; exit 3 if it would stop there."""
    from spf_lora.recipe.files import locate_recipe
    from spf_lora.recipe.load import load_recipe

    if recipe is None and attribute is None:
        raise RecipeError("nothing says what is taught", hint="--attribute beard, or --recipe FILE")
    settings = load_recipe(recipe if recipe is not None else locate_recipe(str(attribute)))

    from spf_lora.base.load import EMBEDDED
    from spf_lora.base.outline import read_outline
    from spf_lora.data.buckets import make_buckets
    from spf_lora.data.check import check as check_scan
    from spf_lora.data.folder import scan_folder
    from spf_lora.data.listing import list_folder
    from spf_lora.data.picture_pairs import scan_pairs

    name = base or settings.training.base
    outline = read_outline(EMBEDDED if name == "embedded" else Path(name))
    others = [c.text for c in list_folder(against).captions.values()] if against else []
    subject = SUBJECTS[settings.profile]
    report = check_scan(
        scan_pairs(folder, settings.attribute, subject=subject)
        if pairs
        else scan_folder(folder, settings.attribute),
        settings.attribute,
        buckets=make_buckets(resolution or outline.resolution, step=outline.step),
        cut_off=outline.cut_off,
        others=others,
    )
    if as_json:
        out.show_json({**report.as_json(), "counts_tokens": outline.counts_tokens})
    else:
        _show(report, settings.attribute.target_text)
    if not outline.counts_tokens:
        out.say("captions were measured in words: no tokenizer at hand; name a --base with one")
    if report.faults:
        count = len(report.faults)
        raise CheckFailedError(
            f"{folder} has {count} fault{'s' if count > 1 else ''}, so training would stop",
            hint="fix or remove these files; or `train --skip-faulty` trains on the rest",
        )


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove every entry.")] = False,
    as_json: Json = False,
) -> None:
    """Show where encoded pictures and captions are kept, and how much; SPF_LORA_CACHE moves it."""
    from spf_lora.data.cache import cache_folder, cache_size, clear_cache

    folder = cache_folder()
    if clear:
        clear_cache(folder)
    count, size = cache_size(folder)
    if as_json:
        out.show_json({"folder": str(folder), "entries": count, "bytes": size})
        return
    out.show(f"{folder}: {count} entries, {size / 1e6:.1f} MB")


def _show(report: "Report", target: str) -> None:
    shapes = ", ".join(f"{shape} x{count}" for shape, count in report.buckets.items())
    lines = {
        "pictures": f"{report.pictures}, {report.usable} to train on",
        "shapes": shapes or "none",
        "masks": str(report.masks),
        "captions": _captions(report, target),
        "speak of": ", ".join(f"{topic} {share:.0%}" for topic, share in report.topics.items()),
        "too long": str(len(report.cut_off)),
        "copies": f"{_copies(report.equal)} exact, {_copies(report.near)} near",
    }
    out.show(printable(report.folder))
    for label, text in lines.items():
        out.show(f"  {label:<10} {printable(text)}")
    _show_pairs(report)
    if report.companions:
        out.show("")
        out.show(_table(report))
    for fault in report.faults:
        out.show(printable(f"fault: {fault}"))
    for note in report.notes:
        out.warn(printable(note))


def _captions(report: "Report", target: str) -> str:
    if 2 * report.sentences > report.usable:
        return f"{report.sentences} of {report.usable} in sentences"
    return (
        f"{report.phrases_mean:.1f} phrases beside {target!r} on average, "
        f"{report.phrases_fewest} at least"
    )


def _show_pairs(report: "Report") -> None:
    """Show what training makes of a few captions."""
    if report.pairs:
        out.show("")
        out.show("training asks for it with the full prompt, and holds still on the base prompt:")
    for source, base, full in report.pairs:
        out.show(f"  {printable(source)}")
        out.show(f"    full  {_whole(full)}")
        out.show(f"    base  {_whole(base) or '(nothing: the caption says only the target)'}")


def _whole(text: str) -> str:
    """Return a prompt that cannot steer the terminal, however long."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _copies(groups: list[list[str]]) -> int:
    return sum(len(group) - 1 for group in groups)


def _table(report: "Report") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from spf_lora.data.check import is_biased

    table = Table(title=f"beside the attribute, compared with {report.against}", box=None)
    table.title_justify = "left"
    for heading in ("words", "captions", "share", "expected", "lift", ""):
        table.add_column(heading, justify="left" if heading == "words" else "right")
    for row in report.companions[:_ROWS]:
        table.add_row(
            Text(printable(row.words)),
            f"{row.count}/{row.captions}",
            f"{row.share:.0%}",
            "-" if row.expected is None else f"{row.expected:.0%}",
            "-" if row.lift is None else f"{row.lift:.1f}",
            "bias" if is_biased(row) else "",
        )
    return table
