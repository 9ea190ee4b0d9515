"""`spf-lora evaluate` and `spf-lora compare`: how much adapters pollute, and which pollute less."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from spf_lora.atomic import check_folder, make_folder, write_text
from spf_lora.cli import out
from spf_lora.cli.acting import Exact, Local, StartPercent
from spf_lora.cli.evaluation import Asked, measure, sweep
from spf_lora.errors import CheckFailedError, MeasureError, OutputError

if TYPE_CHECKING:
    from spf_lora.evaluate.gate import Outcome
    from spf_lora.evaluate.result import Result

_JSON = "report.json"

AttributeName = Annotated[
    str | None, typer.Option("--attribute", "-a", help="What it adds; its card says by default.")
]
Prompts = Annotated[Path | None, typer.Option(help="A file, one prompt without it a line.")]
Seeds = Annotated[int | None, typer.Option(min=1, max=64, help="Pictures a prompt; 4, quick 2.")]
BaseName = Annotated[str, typer.Option(help="`embedded`, or what `generate --base` takes.")]
Quick = Annotated[bool, typer.Option("--quick", help="16 prompts, 2 seeds, 3 strengths.")]
Strengths = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="The sweep; 0,0.25,...,1.25, quick 0,0.5,1.")
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="DDIM steps.")]
JudgeName = Annotated[
    str | None, typer.Option(help="`world` or `photographs`; by default as the base needs.")
]
Scorers = Annotated[
    list[str] | None,
    typer.Option("--scorer", metavar="MODEL=FOLDER", help="Where a photographs' model lies."),
]
Mask = Annotated[
    Path | None, typer.Option(help="Folder with all.png, white where it may act; photographs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def evaluate(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A file or a name.")],
    attribute: AttributeName = None,
    prompts: Prompts = None,
    seeds: Seeds = None,
    base: BaseName = "embedded",
    quick: Quick = False,
    strengths: Strengths = None,
    steps: Steps = 25,
    judge: JudgeName = None,
    scorer: Scorers = None,
    mask: Mask = None,
    start_percent: StartPercent = "0",
    exact: Exact = False,
    local: Local = False,
    against: Annotated[
        list[str] | None, typer.Option(metavar="OTHER", help="To compare with; repeatable.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help='Exit 3 unless it holds: "sps<0.2,response>0.8".')
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder [default: out/reports/ADAPTER].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a report there.")] = False,
    as_json: Json = False,
) -> None:
    """Measure how much of what nobody asked for an adapter moves."""
    models = tuple(scorer or ())
    asked = Asked(
        attribute, prompts, seeds, base, quick, strengths, steps, judge, models, mask,
        start_percent, exact, local,
    )  # fmt: skip
    folder = output or out.OUT / "reports" / Path(adapter).stem
    _check_folder(folder, force=force)
    from spf_lora.evaluate.gate import check_gate, parse_gate

    conditions = parse_gate(gate, sweep(asked)) if gate is not None else []
    results = measure([adapter, *(against or [])], asked)
    _write(results, folder)
    outcomes = check_gate(results[0], conditions)
    if as_json:
        out.show_json(_for_programs(results, outcomes))
    else:
        _show(results, outcomes)
    out.say(f"report: {folder / 'report.html'}")
    failed = [o for o in outcomes if not o.passed]
    if failed:
        told = ", ".join(f"{o.text} (found {_number(o.value)})" for o in failed)
        raise CheckFailedError(
            f"the gate does not hold: {told}", hint=f"{folder / 'report.html'} shows what moved"
        )


def compare(
    adapters: Annotated[list[str], typer.Argument(metavar="A B ...", help="Files or names.")],
    attribute: AttributeName = None,
    prompts: Prompts = None,
    seeds: Seeds = None,
    base: BaseName = "embedded",
    quick: Quick = False,
    strengths: Strengths = None,
    steps: Steps = 25,
    judge: JudgeName = None,
    scorer: Scorers = None,
    mask: Mask = None,
    start_percent: StartPercent = "0",
    exact: Exact = False,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """Put several adapters in one table and say which differences are real."""
    if len(adapters) < 2:
        raise MeasureError("there is nothing to compare", hint="name at least two adapters")
    models = tuple(scorer or ())
    asked = Asked(
        attribute, prompts, seeds, base, quick, strengths, steps, judge, models, mask,
        start_percent, exact, local,
    )  # fmt: skip
    results = measure(adapters, asked)
    if as_json:
        out.show_json(_for_programs(results, []))
    else:
        _show(results, [])


def _check_folder(folder: Path, *, force: bool) -> None:
    """Refuse a folder that could not be written, before the long work."""
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()) and not force:
        raise OutputError(
            f"{folder} exists and holds something",
            hint="--force overwrites the report in it; or name another with -o",
        )


def _write(results: "list[Result]", folder: Path) -> None:
    from spf_lora.evaluate.comparison import all_differences
    from spf_lora.evaluate.report.page import write_page
    from spf_lora.evaluate.report.summary import verdict

    make_folder(folder)
    write_page(
        results, folder, verdict=verdict(results[0]), differences=all_differences(results),
        overwrite=True,
    )  # fmt: skip
    write_text(folder / _JSON, results[0].to_json() + "\n", overwrite=True)


def _show(results: "list[Result]", outcomes: "list[Outcome]") -> None:
    from spf_lora.evaluate.comparison import all_differences
    from spf_lora.evaluate.report.summary import rows, told, verdict

    heads, lines = rows(results)
    table = Table(*heads, box=None)
    for line in lines:
        table.add_row(*line)
    out.show(table)
    for result in results:
        out.show(verdict(result))
    for difference in all_differences(results):
        out.show(told(difference))
    for outcome in outcomes:
        holds = "holds" if outcome.passed else "does not hold"
        out.show(f"gate {outcome.text}: {holds}, found {_number(outcome.value)}")
    for remark in dict.fromkeys(r for result in results for r in result.remarks):
        out.warn(remark)
    for test in (t for t in results[0].selftests if not t.passed):
        out.warn(f"the metric's check '{test.name}' fails here: {test.claim}; {test.value:.3g}")


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:.3f}"


def _for_programs(results: "list[Result]", outcomes: "list[Outcome]") -> dict[str, Any]:
    from spf_lora.evaluate.comparison import all_differences
    from spf_lora.evaluate.report.summary import verdict

    return {
        "adapters": [
            {
                "name": result.name,
                "adapter_id": result.adapter_id,
                "verdict": verdict(result),
                "figures": {name: asdict(figure) for name, figure in result.numbers.items()},
                "selftests": [asdict(test) for test in result.selftests],
                "remarks": list(result.remarks),
            }
            for result in results
        ],
        "differences": [asdict(d) for d in all_differences(results)],
        "gate": [asdict(outcome) for outcome in outcomes],
    }
