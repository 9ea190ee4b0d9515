"""`spf-lora merge`: several adapters into one file, exactly or with the error told."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.cli import merge_check, out
from spf_lora.cli.options import Json, existing
from spf_lora.cli.threads import one_thread_each
from spf_lora.errors import RecipeError

if TYPE_CHECKING:
    from spf_lora.merge.execute import MergeOutcome
    from spf_lora.merge.plan import MergePlan


def merge(
    adapters: Annotated[
        list[str], typer.Argument(metavar="NAME|FILE...", help="From the registry, or files.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The merged file; out/merged.safetensors by default."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="One for each adapter, as 1,0.8; may be negative.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="concat, svd, average, orthogonal, ties or dare.")
    ] = "concat",
    rank: Annotated[int | None, typer.Option(help="Directions to keep.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Share of the squared norm to keep, 0 to 1.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="fp16, bf16 or fp32; as the adapters by default.")
    ] = None,
    block_weights: Annotated[
        list[str] | None,
        typer.Option(help="17 or 26 numbers or a preset; once for all, or once for each."),
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of entries kept, for ties and dare.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of what dare drops.")] = None,
    registry: Annotated[
        Path | None, typer.Option("--registry", metavar="FOLDER", help="Look for names here first.")
    ] = None,
    allow_mixed_base: Annotated[
        bool, typer.Option("--allow-mixed-base", help="Take adapters of different bases.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would happen, and stop.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Draw with the parts and the result, and compare.")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="As --check; exit 3 if merging cost too much.")
    ] = False,
    base: Annotated[
        str, typer.Option(help="What --check draws with: `embedded`, or a diffusers folder.")
    ] = "embedded",
    force: Annotated[bool, typer.Option("--force", help="Replace the output.")] = False,
    as_json: Json = False,
) -> None:
    """Merge adapters; the default is the exact weighted sum of what they do."""
    one_thread_each()
    from spf_lora.merge.execute import check_target, execute, predict
    from spf_lora.merge.plan import Settings, check_settings, make_plan
    from spf_lora.merge.sources import check_weights, open_sources
    from spf_lora.registry.names import resolve

    if plan and (check or gate):
        raise RecipeError(
            "--plan writes nothing that could be checked", hint="leave --plan or --check out"
        )
    settings = Settings(method, rank, energy, dtype, density, seed)
    check_settings(settings)
    numbers = check_weights(_numbers(weights), len(adapters))
    existing(registry)
    paths = [resolve(one, registry) for one in adapters]
    with open_sources(
        paths,
        weights=numbers,
        block_weights=block_weights or (),
        allow_mixed_base=allow_mixed_base,
    ) as sources:
        if check or gate:
            merge_check.check_parts(adapters, sources)
        made = make_plan(sources, settings)
        for note in made.notes:
            out.warn(note)
        target = None if plan else out.place(output, "merged.safetensors")
        if target is not None:
            check_target(made, target, overwrite=force)
        model = merge_check.load(base) if check or gate else None
        done = predict(made) if target is None else execute(made, target, overwrite=force)
        compared = None
        if model is not None and target is not None:
            compared = merge_check.compare(merge_check.parts_of(adapters, sources), target, model)
        if as_json:
            table = _as_json(made, adapters, done, target)
            out.show_json(table | ({"check": merge_check.as_json(compared)} if compared else {}))
        else:
            out.show("\n".join(_lines(made, adapters, done, target)))
            out.show("\n" + merge_check.as_table(compared)) if compared else None
    if gate and compared:
        merge_check.refuse_failed(compared)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise RecipeError(
            f"weights {text[:100]!r} are not numbers with commas between them",
            hint="--weights 1,0.8",
        ) from error


def _lines(
    plan: "MergePlan", names: list[str], done: "MergeOutcome", target: Path | None
) -> list[str]:
    row = plan.settings.row
    lines = [
        f"method     {plan.settings.method}: {row.gist}",
        *(
            f"adapter    {name} x {weight:g}{_taken(done, at)}"
            for at, (name, weight) in enumerate(zip(names, plan.weights, strict=True))
        ),
        f"modules    {len(plan.modules)}, {plan.shared} of them moved by more than one adapter",
        f"rank       {_counted(done.rank_counts)}",
        f"size       {plan.nbytes / 1e6:.1f} MB at most, {plan.dtype}",
        f"exact      {_exactness(plan, done)}",
    ]
    if done.blocks:
        lines.append(f"  {'block':<32}{'norm':>10}{'cut off':>10}{'share':>9}  rank")
    for block, (norm, error, low, high) in done.blocks.items():
        ranks = str(low) if low == high else f"{low}-{high}"
        share = error / norm if norm else 0.0
        lines.append(f"  {block:<32}{norm:>10.4g}{error:>10.4g}{share:>8.2%}  {ranks}")
    if target is not None:
        lines.append(f"{target}: AutoV3 {done.digest[:12]}")
    return lines


def _exactness(plan: "MergePlan", done: "MergeOutcome") -> str:
    if done.blocks:
        return f"no, relative error {done.relative_error:.4%}"
    if plan.settings.row.dense:
        return "no; the error is known when it is done: it needs every module's full matrix"
    if not plan.exact:
        return "yes, of what the method leaves; but for rounding"
    return "yes, but for rounding to " + plan.dtype


def _taken(done: "MergeOutcome", at: int) -> str:
    if at not in done.taken:
        return ""
    norm, lost = done.taken[at]
    return f", loses {lost / norm:.2%} of its norm" if norm else ""


def _counted(counts: dict[int, int]) -> str:
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{rank} x{count}" for rank, count in counts.items())


def _as_json(
    plan: "MergePlan", names: list[str], done: "MergeOutcome", target: Path | None
) -> dict[str, Any]:
    return {
        "method": plan.settings.method,
        "reference": plan.settings.row.reference,
        "adapters": [
            {
                "name": name,
                "weight": weight,
                "share_lost": done.taken[at][1] / done.taken[at][0] if at in done.taken else None,
            }
            for at, (name, weight) in enumerate(zip(names, plan.weights, strict=True))
        ],
        "modules": len(plan.modules),
        "shared_modules": plan.shared,
        "ranks": {str(rank): count for rank, count in done.rank_counts.items()},
        "dtype": plan.dtype,
        "bytes_at_most": plan.nbytes,
        "exact": plan.exact,
        "relative_error": done.relative_error if done.blocks or plan.exact else None,
        "blocks": {
            block: {"norm": norm, "error": error, "ranks": [low, high]}
            for block, (norm, error, low, high) in done.blocks.items()
        },
        "notes": plan.notes,
        "output": None if target is None else str(target),
        "AutoV3": done.digest[:12] or None,
    }
