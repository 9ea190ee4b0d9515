"""`spf-lora stack report`: what learning one attribute after another did, as a table and a plot."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.atomic import check_writable, make_folder, write_text
from spf_lora.cli import out
from spf_lora.cli.acting import Exact, Local, StartPercent, check_start, starts_of
from spf_lora.cli.adapters import Json, Registry, existing, table
from spf_lora.cli.quiet import hush
from spf_lora.errors import CheckFailedError, StackError

if TYPE_CHECKING:
    from spf_lora.evaluate.incremental import Learned
    from spf_lora.evaluate.incremental_result import Incremental, Order
    from spf_lora.registry.stack import Known

_COLUMNS = (
    "adapter", "prompt only", "alone", "when learned", "at the end", "P alone", "P at the end"
)  # fmt: skip


def report(
    name: Annotated[str, typer.Argument(metavar="STACK", help="The stack's name.")],
    prompts: Annotated[int | None, typer.Option(min=2, max=10_000, help="People.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=64, help="Pictures of each.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="DDIM steps.")] = 15,
    orders: Annotated[
        int, typer.Option(min=1, max=24, help="Orders to add the adapters in, the stack's first.")
    ] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Few people: a first look.")] = False,
    start_percent: StartPercent = "0",
    exact: Exact = False,
    local: Local = False,
    base: Annotated[
        str, typer.Option(help="`embedded`, or a folder in diffusers layout.")
    ] = "embedded",
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write STACK.json and STACK.svg there.")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit 3 if a check fails.")] = False,
    registry: Registry = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a stack after every step, each adapter alone, and all asked for together."""
    from spf_lora.registry.stack import adapters_of, find_stack

    check_start(start_percent)
    members = adapters_of(find_stack(name, existing(registry)), registry)
    targets = [output / f"{name}.{kind}" for kind in ("json", "svg")] if output else []
    if output:
        make_folder(output)
    for target in targets:
        check_writable(target, overwrite=force)
    starts = starts_of(start_percent, [k.card for k, _ in members], [k.path for k, _ in members])
    found = _measure(
        name, members, base, prompts, seeds, steps, orders, quick, starts, exact, local
    )
    for target in targets:
        text = found.to_json() if target.suffix == ".json" else _plot(found)
        write_text(target, text, overwrite=force)
        out.say(f"written: {target}")
    out.show_json(json.loads(found.to_json())) if as_json else out.show("\n".join(_lines(found)))
    failed = [one for one in found.checks() if not one.passed]
    if gate and failed:
        raise CheckFailedError(
            f"the stack {name} fails: {', '.join(one.name for one in failed)}",
            hint="the table says where; the parts alone: spf-lora evaluate",
        )


def _measure(
    name: str, members: "list[tuple[Known, float]]", base: str, prompts: int | None,
    seeds: int | None, steps: int, orders: int, quick: bool, starts: tuple[float, ...], exact: bool,
    local: bool,
) -> "Incremental":  # fmt: skip
    hush()
    from spf_lora.base.load import load_base
    from spf_lora.draw.act import check_alike
    from spf_lora.evaluate import incremental
    from spf_lora.evaluate.gallery import cache_folder

    if exact:
        check_alike(starts)
    model = load_base(base)
    return incremental.measure_incremental(
        model,
        [
            _learned(known, strength, model.id, start)
            for (known, strength), start in zip(members, starts, strict=True)
        ],
        gallery=cache_folder(),
        prompts=prompts or (incremental.QUICK_PROMPTS if quick else incremental.PROMPTS),
        seeds=seeds or (incremental.QUICK_SEEDS if quick else incremental.SEEDS),
        steps=steps,
        orders=orders,
        exact=exact,
        local=local,
        name=name,
        tell=out.say,
    )


def _learned(known: "Known", strength: float, base_id: str, start: float) -> "Learned":
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.evaluate.incremental import Learned

    if known.card is None:
        raise StackError(
            f"{known.name} has no card, so nobody knows what it teaches",
            hint="a report needs adapters that spf-lora trained",
        )
    if known.card.base_id and known.card.base_id != base_id:
        raise StackError(
            f"{known.name} was trained on the base {known.card.base_id}, this is {base_id}",
            hint="name its base with --base",
        )
    adapter = read_adapter(known.path)
    return Learned(known.name, known.card.attribute, adapter, strength, start)


def _plot(found: "Incremental") -> str:
    from spf_lora.evaluate.report.incremental_plot import draw_plot

    return draw_plot(found)


def _lines(found: "Incremental") -> list[str]:
    order = found.orders[0]
    last = order.steps - 1
    rows = [list(_COLUMNS)]
    at = {name: i for i, name in enumerate(found.adapters)}
    for i, name in enumerate(order.names):
        figures = (
            found.control[at[name]], found.alone[at[name]], order.response[i][i],
            order.response[i][last], found.alone_pollution[at[name]], order.pollution[i][last],
        )  # fmt: skip
        rows.append([name, *(_number(one) for one in figures)])
    lines = [table(rows), "", *map(_summary, found.orders)]
    if found.together:
        lines += ["", "asked for together:"]
        lines += [
            "  " + ", ".join(f"{n} {r:.2f}" for n, r in zip(one.names, one.response, strict=True))
            for one in found.together
        ]
    lines.append("")
    for check in found.checks():
        word = "holds" if check.passed else "fails"
        lines.append(f"{word}: {check.claim} (worst {check.value:.2f}, {check.worst})")
    return lines


def _summary(way: "Order") -> str:
    return (
        f"{' > '.join(way.names)}: forgetting {way.forgetting:.3f}, slope of P {way.slope:+.3f} an "
        f"adapter, base leakage {way.leakage[-1].text()} at the end"
    )


def _number(figure: Any) -> str:
    return "-" if figure is None or figure.value is None else f"{figure.value:.2f}"
