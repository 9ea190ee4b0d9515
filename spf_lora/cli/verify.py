"""`spf-lora verify`: will this file do what it says, in every app?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spf_lora.cli import out
from spf_lora.cli.options import Json
from spf_lora.errors import AdapterFileError, CheckFailedError

if TYPE_CHECKING:
    from spf_lora.adapters.check.checks import Finding


def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Adapter files.")],
    app: Annotated[
        list[str] | None,
        typer.Option("--app", help="An app that must read it, repeatable; all by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check files; exit 3 if numbers, shapes, hashes, alphas or an app's keys are wrong."""
    from spf_lora.adapters.check import apps
    from spf_lora.cli.out import printable

    chosen = tuple(app) if app else tuple(apps.APPS)
    findings = {str(file): _checked(file, chosen, alone=len(files) == 1) for file in files}
    if as_json:
        out.show_json({file: [vars(one) for one in rows] for file, rows in findings.items()})
    else:
        for file, rows in findings.items():
            out.show(file)
            for one in rows:
                out.show(f"  {one.status:<5}{one.check:<22}{printable(one.detail)}")
    failed = [file for file, rows in findings.items() if any(one.status == "fail" for one in rows)]
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(findings)} files did not pass",
            hint="spf-lora convert IN OUT --to kohya fixes layout and alpha; --app limits the apps",
        )


def _checked(file: Path, app_names: tuple[str, ...], *, alone: bool) -> "list[Finding]":
    """Check one file; of several, one that is not there does not stop the others."""
    from spf_lora.adapters.check.checks import Finding, verify

    try:
        return verify(file, app_names)
    except AdapterFileError as error:
        if alone:
            raise
        return [Finding("readable", "fail", error.message)]
