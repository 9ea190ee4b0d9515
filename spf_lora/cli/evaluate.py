"""`spf-lora evaluate` and `spf-lora compare`: how much adapters pollute, and which pollute less."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from spf_lora.atomic import check_folder, check_writable, make_folder, write_text
from spf_lora.cli import out
from spf_lora.cli.acting import start_of
from spf_lora.cli.evaluation import measure, sweep
from spf_lora.cli.options import AS_USUAL, ActingOptions, Json, MeasureOptions, with_groups
from spf_lora.errors import CheckFailedError, MeasureError, OutputError

if TYPE_CHECKING:
    from spf_lora.adapters.format.card import Card
    from spf_lora.evaluate.gate import GateOutcome
    from spf_lora.evaluate.result import Result

_JSON = "report.json"
# of a card, at the main strength
_MEASURES = {
    "response": "rho",
    "pollution": "P",
    "base_leakage": "BL",
    "shown_unasked": "unasked",
}


@with_groups
def evaluate(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A file or a name.")],
    options: MeasureOptions,
    act: ActingOptions,
    against: Annotated[
        list[str] | None, typer.Option(metavar="OTHER", help="To compare with; repeatable.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help='Exit 3 unless it holds: "sps<0.2,response>0.8".')
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; out/reports/ADAPTER by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a report there.")] = False,
    into_card: Annotated[
        bool, typer.Option("--into-card", help="Write the figures into the adapter's card.")
    ] = False,
    submit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what a leaderboard takes (docs/leaderboard.md)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how much of what nobody asked for an adapter moves."""
    folder = output or out.OUT / "reports" / Path(adapter).stem
    _check_folder(folder, force=force)
    if submit is not None:
        _check_protocol(adapter, options, act)
        check_writable(submit, overwrite=force)
    if into_card:
        _card_of(adapter)
    if into_card and (act.local or act.exact or start_of(act.start_percent)):
        raise MeasureError(
            "a card tells what a file does in any app",
            hint="leave --into-card out, or --local, --exact and --start-percent",
        )
    from spf_lora.evaluate.gate import check_gate, parse_gate

    conditions = parse_gate(gate, sweep(options)) if gate is not None else []
    results = measure([adapter, *(against or [])], options, act)
    _write(results, folder)
    if submit is not None:
        from spf_lora.publish.submission import submission_of

        write_text(submit, submission_of(results[0]).to_json(), overwrite=force)
        out.say(f"submission: {submit}")
    if into_card:
        _into_card(adapter, results[0])
    outcomes = check_gate(results[0], conditions)
    if as_json:
        out.show_json(_for_programs(results, outcomes))
    else:
        _show(results, outcomes)
    out.say(f"report: {folder / 'report.html'}")
    failed = [o for o in outcomes if not o.passed]
    if failed:
        reasons = ", ".join(f"{o.text} (found {_number(o.value)})" for o in failed)
        raise CheckFailedError(
            f"the gate does not hold: {reasons}", hint=f"{folder / 'report.html'} shows what moved"
        )


@with_groups
def compare(
    adapters: Annotated[list[str], typer.Argument(metavar="A B ...", help="Files or names.")],
    options: MeasureOptions,
    act: ActingOptions,
    as_json: Json = False,
) -> None:
    """Put several adapters in one table and say which differences are real."""
    if len(adapters) < 2:
        raise MeasureError("there is nothing to compare", hint="name at least two adapters")
    results = measure(adapters, options, act)
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
        results,
        folder,
        verdict=verdict(results[0]),
        differences=all_differences(results),
        overwrite=True,
    )
    write_text(folder / _JSON, results[0].to_json() + "\n", overwrite=True)


def _check_protocol(adapter: str, options: MeasureOptions, act: ActingOptions) -> None:
    """Refuse, before the long work, what a leaderboard could not compare.

    Raises:
        MeasureError: something besides the attribute is not as the protocol has it.
    """
    from spf_lora.adapters.format.card import attribute_of, from_metadata
    from spf_lora.adapters.format.metadata_edit import read_metadata
    from spf_lora.registry.names import resolve

    path = resolve(adapter)
    card = from_metadata(read_metadata(path), path=path)
    if card is not None and attribute_of(card).control != "words":
        raise MeasureError(
            "a slider needs no words, and the protocol's prompts have them",
            hint="leave --submit out",
        )
    if replace(options, attribute=None) != MeasureOptions() or act != AS_USUAL:
        raise MeasureError(
            "a submission is measured as the protocol says, or nobody could compare it",
            hint="with --submit leave out every option that changes what is drawn or judged",
        )


def _card_of(adapter: str) -> "tuple[Path, Card]":
    """Return an adapter's file and card.

    Raises:
        MeasureError: it has none.
    """
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.adapters.format.metadata_edit import read_metadata
    from spf_lora.registry.names import resolve

    path = resolve(adapter)
    card = from_metadata(read_metadata(path), path=path)
    if card is None:
        raise MeasureError(
            f"{path} has no card to write figures into", hint="leave --into-card out"
        )
    return path, card


def _into_card(adapter: str, result: "Result") -> None:
    """Write what was measured into the adapter's card; its tensors stay as they are."""
    from spf_lora.adapters.format.card import KEY, MEASURED, to_json
    from spf_lora.adapters.format.metadata_edit import edit_metadata

    path, card = _card_of(adapter)
    metrics = {
        name: round(float(value), 4)
        for name, measure in _MEASURES.items()
        if (value := result.figure(measure).value) is not None
    }
    metrics |= {"strength": result.main, "prompts": float(len(result.cases))}
    entries = {KEY: to_json(replace(card, metrics=metrics)), MEASURED: result.adapter_id}
    edit_metadata(path, changes=entries, strip=False)
    out.say(f"figures written into the card of {path}")


def _show(results: "list[Result]", outcomes: "list[GateOutcome]") -> None:
    from spf_lora.evaluate.comparison import all_differences
    from spf_lora.evaluate.headline import headline
    from spf_lora.evaluate.report.summary import difference_sentence, pick, rows, verdict

    heads, lines = rows(results)
    table = Table(*heads, box=None)
    for line in lines:
        table.add_row(*line)
    out.show(table)
    for result in results:
        top = headline(result)
        out.show(f"{result.name}: {top.text}. {top.detail}")
        out.show(f"  {verdict(result)}")
    if len(results) > 1:
        out.show(pick(results))
    for difference in all_differences(results):
        out.show(difference_sentence(difference))
    for outcome in outcomes:
        holds = "holds" if outcome.passed else "does not hold"
        out.show(f"gate {outcome.text}: {holds}, found {_number(outcome.value)}")
    for remark in dict.fromkeys(r for result in results for r in result.remarks):
        out.warn(remark)
    for test in (t for t in results[0].selftests if not t.passed):
        out.warn(f"the metric's check '{test.name}' fails here: {test.claim}; {test.value:.3g}")


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:.3f}"


def _for_programs(results: "list[Result]", outcomes: "list[GateOutcome]") -> dict[str, Any]:
    from spf_lora.evaluate.comparison import all_differences
    from spf_lora.evaluate.headline import headline
    from spf_lora.evaluate.report.summary import best_at_response, verdict

    best = best_at_response(results)
    return {
        "adapters": [
            {
                "name": result.name,
                "adapter_id": result.adapter_id,
                "headline": asdict(headline(result)),
                "verdict": verdict(result),
                "figures": {name: asdict(figure) for name, figure in result.numbers.items()},
                "selftests": [asdict(test) for test in result.selftests],
                "remarks": list(result.remarks),
            }
            for result in results
        ],
        "pick": None if best is None else best.name,
        "differences": [asdict(d) for d in all_differences(results)],
        "gate": [asdict(outcome) for outcome in outcomes],
    }
