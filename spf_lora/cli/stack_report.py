"""`spf-lora stack report`: what learning one attribute after another did, as a table and a plot."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.atomic import check_writable, make_folder, write_text
from spf_lora.cli import out
from spf_lora.cli.acting import starts_of
from spf_lora.cli.options import (
    AS_USUAL,
    ActingOptions,
    Json,
    Registry,
    Steps,
    existing,
    with_groups,
)
from spf_lora.cli.out import table
from spf_lora.cli.quiet import hush
from spf_lora.errors import CheckFailedError, StackError

if TYPE_CHECKING:
    from spf_lora.evaluate.incremental import Learned
    from spf_lora.evaluate.incremental_result import Incremental, Order
    from spf_lora.registry.stack import Known

_COLUMNS = (
    "adapter",
    "prompt only",
    "alone",
    "when learned",
    "at the end",
    "P alone",
    "P at the end",
)


@with_groups
def report(
    name: Annotated[str, typer.Argument(metavar="STACK", help="The stack's name.")],
    prompts: Annotated[int | None, typer.Option(min=2, max=10_000, help="People.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=64, help="Pictures of each.")] = None,
    steps: Steps = 15,
    orders: Annotated[
        int, typer.Option(min=1, max=24, help="Orders to add the adapters in, the stack's first.")
    ] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Few people: a first look.")] = False,
    act: ActingOptions = AS_USUAL,
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

    members = adapters_of(find_stack(name, existing(registry)), registry)
    starts = starts_of(act.start_percent, len(members))
    targets = [output / f"{name}.{kind}" for kind in ("json", "svg")] if output else []
    if output:
        make_folder(output)
    for target in targets:
        check_writable(target, overwrite=force)
    settings = _Settings(base, prompts, seeds, steps, orders, quick, act, starts)
    result = _measure(name, members, settings)
    for target in targets:
        text = result.to_json() if target.suffix == ".json" else _plot(result)
        write_text(target, text, overwrite=force)
        out.say(f"written: {target}")
    out.show_json(json.loads(result.to_json())) if as_json else out.show("\n".join(_lines(result)))
    failed = [one for one in result.checks() if not one.passed]
    if gate and failed:
        raise CheckFailedError(
            f"the stack {name} fails: {', '.join(one.name for one in failed)}",
            hint="the table says where; the parts alone: spf-lora evaluate",
        )


@dataclass(frozen=True)
class _Settings:
    """How a stack is measured."""

    base: str
    prompts: int | None
    seeds: int | None
    steps: int
    orders: int
    quick: bool
    act: ActingOptions
    starts: tuple[float, ...]


def _measure(name: str, members: "list[tuple[Known, float]]", settings: _Settings) -> "Incremental":
    hush()
    from spf_lora.base.load import load_base
    from spf_lora.draw.sample import Sampling
    from spf_lora.evaluate import incremental
    from spf_lora.evaluate.gallery import cache_folder

    act = settings.act
    model = load_base(settings.base)
    learned = [
        _learned(known, strength, model.id, start)
        for (known, strength), start in zip(members, settings.starts, strict=True)
    ]
    usual = incremental.QUICK if settings.quick else incremental.StackProtocol()
    protocol = replace(
        usual,
        prompts=settings.prompts or usual.prompts,
        seeds=settings.seeds or usual.seeds,
        orders=settings.orders,
        exact=act.exact,
        local=act.local,
    )
    return incremental.measure_incremental(
        model,
        learned,
        protocol,
        gallery=cache_folder(),
        sampling=Sampling(steps=settings.steps),
        name=name,
        tell=out.say,
    )


def _learned(known: "Known", strength: float, base_id: str, start: float) -> "Learned":
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.adapters.format.base_match import refuse_other_base
    from spf_lora.evaluate.incremental import Learned

    if known.card is None:
        raise StackError(
            f"{known.name} has no card, so nobody knows what it teaches",
            hint="a report needs adapters that spf-lora trained",
        )
    refuse_other_base(known.card, known.name, base_id)
    adapter = read_adapter(known.path)
    return Learned(known.name, known.card.attribute, adapter, strength, start)


def _plot(result: "Incremental") -> str:
    from spf_lora.evaluate.report.incremental_plot import draw_plot

    return draw_plot(result)


def _lines(result: "Incremental") -> list[str]:
    order = result.orders[0]
    last = order.steps - 1
    rows = [list(_COLUMNS)]
    at = {name: i for i, name in enumerate(result.adapters)}
    for i, name in enumerate(order.names):
        figures = (
            result.control[at[name]],
            result.alone[at[name]],
            order.response[i][i],
            order.response[i][last],
            result.alone_pollution[at[name]],
            order.pollution[i][last],
        )
        rows.append([name, *(_number(one) for one in figures)])
    lines = [table(rows), "", *map(_summary, result.orders)]
    if result.together:
        lines += ["", "asked for together:"]
        lines += [
            "  " + ", ".join(f"{n} {r:.2f}" for n, r in zip(one.names, one.response, strict=True))
            for one in result.together
        ]
    lines.append("")
    for check in result.checks():
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
