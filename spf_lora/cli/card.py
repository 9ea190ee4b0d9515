"""`spf-lora card`: a folder with the model card of an adapter, ready for the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spf_lora.atomic import check_folder
from spf_lora.cli import out
from spf_lora.errors import OutputError

if TYPE_CHECKING:
    from spf_lora.evaluate.result import Result

CARDS = out.OUT / "cards"


def card(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A file or a name.")],
    license_id: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="Of the adapter, such as cc-by-4.0."),
    ] = None,
    license_link: Annotated[
        str | None, typer.Option(metavar="URL", help="Of the text; for --license other.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A report.json of evaluate: its figures and pictures.")
    ] = None,
    picture: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A picture to show; repeatable.")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="The base on the hub; its card says by default."),
    ] = None,
    sidecars: Annotated[
        bool,
        typer.Option("--sidecars", help="Also .civitai.info, .png and .txt, for managers."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; out/cards/NAME by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a card there.")] = False,
) -> None:
    """Write a model card with pictures and the adapter, as the Hugging Face hub shows it."""
    from spf_lora.publish import figures
    from spf_lora.publish.folder import write_folder
    from spf_lora.publish.licenses import check_license
    from spf_lora.publish.model_card import model_card
    from spf_lora.publish.pictures import pictures_of
    from spf_lora.publish.subject import subject_of
    from spf_lora.registry.names import resolve

    subject = subject_of(resolve(adapter), base_model=base_model)
    folder = output or CARDS / subject.name
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()) and not force:
        raise OutputError(
            f"{folder} exists and holds something",
            hint="--force writes the card anew; or name another with -o",
        )
    license_name = check_license(
        license_id, subject.facts.declared.get("licence", ""), license_link
    )
    result = _read(report) if report is not None else None
    measured, left_out = (
        figures.from_card(subject) if result is None else figures.from_report(result, subject)
    )
    if left_out:
        out.warn(left_out)
        result = None  # its pictures are of other numbers too
    pictures = pictures_of(subject, result, picture or [])
    if subject.base.kind == "unnamed":
        out.warn("the card cannot say which base it is for; --base-model OWNER/NAME says it")
    text = model_card(
        subject,
        license_id=license_name,
        license_link=license_link,
        measured=measured,
        pictures=pictures,
    )
    write_folder(folder, subject, text, pictures, sidecars=sidecars)
    out.show(str(folder))
    out.say(f"look at it, then: spf-lora push {adapter} --repo OWNER/{subject.name} --dry-run")


def _read(report: Path) -> "Result":
    from spf_lora.documents import read_text
    from spf_lora.errors import MeasureError
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.result import from_json

    try:
        text = read_text(report, most_bytes=64 << 20)
    except (OSError, ValueError) as error:
        raise MeasureError(
            f"{report} cannot be read: {error}", hint="spf-lora evaluate writes report.json"
        ) from error
    return from_json(text, gallery=cache_folder())
