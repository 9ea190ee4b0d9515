"""The figures of a model card: only those that were measured on the very numbers in the file."""

from collections.abc import Mapping
from dataclasses import dataclass

from spf_lora.adapters.format.card import MEASURED
from spf_lora.adapters.format.privacy import without_leaks
from spf_lora.evaluate.result import Result, figure_name
from spf_lora.publish.subject import Subject

# (measure of a report, entry of a card, label, what it says)
ROWS = (
    (
        "rho",
        "response",
        "response",
        "how often it appears where asked for; 1 is as in real pictures",
    ),
    ("P", "pollution", "pollution", "what else changes; 0 is nothing, 1 is another seed's picture"),
    ("BL", "base_leakage", "base leakage", "the same where nobody asks for it"),
    ("unasked", "shown_unasked", "shown unasked", "share of those pictures that show it"),
    ("sps", "", "SPS", "pollution at a response of 0.8, over all strengths"),
)
_WITH_CONTROL = ("rho", "P")  # which the words alone, without an adapter, have too


@dataclass(frozen=True)
class Row:
    """One line of the table: texts, "" where there is no number."""

    label: str
    note: str
    words_alone: str
    value: str


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        rows: the table.
        strength: of the adapter.
        on: what it was measured on, as lines of a list.
        not_on: what it was not measured on.
    """

    rows: tuple[Row, ...]
    strength: float
    on: tuple[str, ...]
    not_on: tuple[str, ...]


def from_report(result: Result, subject: Subject) -> tuple[Measured | None, str]:
    """Return a report's figures, or why they are left out."""
    if result.adapter_id != subject.content_id:
        return None, (
            "the figures are left out: the report is of another content id "
            f"({result.adapter_id[:12] or 'none'}, the file's is {subject.content_id[:12]})"
        )
    rows = []
    for measure, _, label, note in ROWS:
        at, alone = (_text(result, measure, one) for one in (result.main, 0.0))
        rows.append(Row(label, note, alone if measure in _WITH_CONTROL else "", at))
    drawn = ", ".join(f"{name} {value}" for name, value in result.sampler.items() if value != "")
    prompts, pictures = len(result.cases), sum(len(one.seeds) for one in result.cases)
    on = (
        f"base: {_base(subject)}, weights `{result.base_id}`",
        f"{prompts} prompts with {pictures} seeds in all",
        f"strength {result.main:g}; the sweep was {_listed(result)}",
        f"sampler: {drawn}",
        f"judge: {'the probe of the portrait world' if result.judge == 'world' else result.judge}",
        *map(without_leaks, result.remarks),
    )
    others = (
        *_never(subject),
        f"strengths beyond {_listed(result)}, other samplers, steps and guidance scales",
    )
    return Measured(tuple(rows), result.main, on, others), ""


def from_card(subject: Subject) -> tuple[Measured | None, str]:
    """Return the figures that the card carries, or why they are left out; they have no interval."""
    metrics = subject.card.metrics if subject.card is not None else {}
    if "pollution" not in metrics:
        return None, ""
    measured = subject.metadata.get(MEASURED, "")
    if measured != subject.content_id:
        state = (
            f"of the content id {measured[:12]}" if measured else "of no content id that it names"
        )
        return None, (
            f"the figures are left out: the card's are {state}, the file's is "
            f"{subject.content_id[:12]}; spf-lora evaluate --into-card measures it"
        )
    rows = tuple(
        Row(label, note, "", f"{metrics[entry]:.2f}")
        for _, entry, label, note in ROWS
        if entry in metrics
    )
    strength = metrics.get("strength", 1.0)
    on = (
        f"the base that it was trained on, weights `{subject.base.id}`",
        *_prompts(metrics),
        f"strength {strength:g}",
    )
    return Measured(rows, strength, on, _never(subject)), ""


def _prompts(metrics: Mapping[str, float]) -> tuple[str, ...]:
    return (
        (f"{metrics['prompts']:g} prompts; no interval is known",) if "prompts" in metrics else ()
    )


def _never(subject: Subject) -> tuple[str, ...]:
    """Return what no evaluation of ours looks at."""
    elsewhere = (
        "Stable Diffusion 1.5, photographs, or any other base model"
        if subject.base.kind == "embedded"
        else "any other base model, checkpoints that were fine-tuned from this one among them"
    )
    return (
        elsewhere,
        "other prompts, in other words or other languages",
        "use together with other adapters",
    )


def _base(subject: Subject) -> str:
    """Return what to call the base; a path on somebody's disk tells nobody anything."""
    if subject.base.kind == "embedded":
        return "the 64 px cartoon model that ships with spf-lora"
    return subject.base.repo or "a local copy"


def _listed(result: Result) -> str:
    return ", ".join(f"{one:g}" for one in result.strengths)


def _text(result: Result, measure: str, strength: float) -> str:
    figure = result.numbers.get(figure_name(measure, strength)) or result.numbers.get(measure)
    return "" if figure is None else figure.text()
