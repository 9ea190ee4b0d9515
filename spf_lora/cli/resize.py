"""`spf-lora resize`: a smaller rank, and exactly what that costs."""

from pathlib import Path
from typing import Annotated

import typer

from spf_lora.cli import out
from spf_lora.cli.options import Json


def resize(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Adapter file or peft folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The smaller file.")],
    rank: Annotated[int | None, typer.Option("--rank", help="Directions to keep.")] = None,
    energy: Annotated[
        float | None, typer.Option("--energy", help="Share of the squared norm to keep, 0 to 1.")
    ] = None,
    to: Annotated[str, typer.Option("--to", help="kohya, diffusers or peft.")] = "kohya",
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="fp16, bf16 or fp32; as it is by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    as_json: Json = False,
) -> None:
    """Truncate every module to its strongest directions and print the exact error per block."""
    from spf_lora.adapters.format.rewrite import resize as run

    done = run(source, target, rank=rank, energy=energy, layout=to, dtype=dtype, overwrite=force)
    for key in done.cleaned:
        out.warn(f"metadata {key!r} held a local path; only its last part was kept")
    if as_json:
        out.show_json(
            {
                "ranks": {str(rank): count for rank, count in done.ranks.items()},
                "dtype": done.dtype,
                "AutoV3": done.digest[:12],
                "relative_error": done.relative_error,
                "blocks": {
                    block: {"norm": norm, "error": error, "ranks": [low, high]}
                    for block, (norm, error, low, high) in done.blocks.items()
                },
            }
        )
        return
    out.show(f"  {'block':<32}{'norm':>10}{'cut off':>10}{'share':>9}  rank")
    for block, (norm, error, low, high) in done.blocks.items():
        share = error / norm if norm else 0.0
        ranks = str(low) if low == high else f"{low}-{high}"
        out.show(f"  {block:<32}{norm:>10.4g}{error:>10.4g}{share:>8.2%}  {ranks}")
    out.show(f"{target}: relative error {done.relative_error:.4%}, AutoV3 {done.digest[:12]}")
