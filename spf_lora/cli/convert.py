"""`spf-lora convert`: the same adapter in another layout or number format."""

from pathlib import Path
from typing import Annotated

import typer

from spf_lora.cli import out
from spf_lora.cli.options import Json


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Adapter file or peft folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File, or folder for peft.")],
    to: Annotated[str, typer.Option("--to", help="kohya, diffusers or peft.")],
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="fp16, bf16 or fp32; as it is by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    as_json: Json = False,
) -> None:
    """Write an adapter in another layout; its content id stays the same."""
    from spf_lora.adapters.format.rewrite import convert as run

    done = run(source, target, layout=to, dtype=dtype, overwrite=force)
    for key in done.cleaned:
        out.warn(f"metadata {key!r} held a local path; only its last part was kept")
    if as_json:
        out.show_json(
            {
                "from": done.source_layout,
                "to": to,
                "dtype": done.dtype,
                "modules": done.modules,
                "AutoV3": done.digest[:12],
                "cleaned": list(done.cleaned),
            }
        )
    else:
        out.show(
            f"{target}: {done.modules} modules, {done.source_layout} -> {to}, {done.dtype}, "
            f"AutoV3 {done.digest[:12]}"
        )
