"""Protocol version 1: figures that anybody can report, and that can be compared.

Everything that decides the figures is fixed and named by a digest; docs/leaderboard.md says it for
readers. None of it may change: what must change becomes version 2.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spf_lora.base.load import embedded_card
from spf_lora.documents import read_json
from spf_lora.errors import MeasureError
from spf_lora.evaluate.result import Figure, PromptPair, Result, figure_name
from spf_lora.recipe.digest import canonical_json, table_hash
from spf_lora.strict import mistyped

FORMAT, PROTOCOL = "spf-lora submission", 1
BASE = "eed9d8dd0c1ac339"
JUDGE = "b82a07db74522c800f6a0fb7ab7fff8bf576a10852d1b3d824b295600d97521d"
SAMPLER: Mapping[str, str | int | float] = {
    "name": "ddim",
    "steps": 25,
    "guidance": 3.0,
    "negative": "",
}
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
# attribute -> digest of its 40 prompts with and without it, and the four seeds of each
PROMPTS = {
    "beard": "c4144a0d7d4cc6a4888192d023624f40a4c3fbe1a3873b853da76616393394d2",
    "moustache": "7e1f7747008bb4df57c3ffb4e0fc761f7c641ed534448e4b5980681e3b12689a",
    "glasses": "87d8292d9e162b2ee48b3aac1140a33969d7e9092f0d2507cb30409f4d1966da",
    "sunglasses": "3565d213de048d782ea506e8f4b550524265a84a8a921a6422d15d1d060e911b",
    "hat": "be3064af86a8978d758e7e87e02143f5405b3b1d4ddad54339f3b7248deaac40",
    "blonde-hair": "7bb83197448c8e9b3cf8bf873cd230b74ccf8874130c73ca26a415141bac2a1d",
}
COUNT = 40  # prompts
MEASURES = ("rho", "P", "BL", "unasked")  # at every strength
OF_THE_SWEEP = ("sps", "auc")
FIGURES = (*(figure_name(name, at) for at in STRENGTHS for name in MEASURES), *OF_THE_SWEEP)
_MOST = 100.0  # ceilings; another seed is 1
_MOST_BYTES = 1 << 18


@dataclass(frozen=True)
class Submission:
    """What one evaluation by the protocol found.

    Attributes:
        protocol: its version.
        attribute: what the adapter adds.
        adapter: what it is called.
        adapter_id: its content id.
        base_id: the base model's identity.
        judge: digest of who looked at the pictures.
        prompts: digest of prompts and seeds.
        sampler: how pictures were drawn.
        strengths: of the sweep.
        figures: name -> figure; exactly `FIGURES`.
        checks: check of the metric itself -> whether it held.
        versions: package -> version.
    """

    protocol: int
    attribute: str
    adapter: str
    adapter_id: str
    base_id: str
    judge: str
    prompts: str
    sampler: Mapping[str, str | int | float]
    strengths: tuple[float, ...]
    figures: Mapping[str, Figure]
    checks: Mapping[str, bool]
    versions: Mapping[str, str]

    def signature(self) -> str:
        """Return the sha256 of the canonical JSON of everything else."""
        return table_hash(self._table())

    def to_json(self) -> str:
        """Return the file's text: canonical JSON with its signature."""
        return canonical_json({**self._table(), "signature": self.signature()}) + "\n"

    def _table(self) -> dict[str, Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}


def prompts_digest(cases: Sequence[PromptPair]) -> str:
    """Return the sha256 of prompts and seeds: a list of [prompt, base prompt, [seeds]]."""
    return table_hash([[one.prompt, one.base_prompt, list(one.seeds)] for one in cases])


def judge_digest() -> str:
    """Return the sha256 of the probe's files, as the embedded base's card names them."""
    files: dict[str, str] = embedded_card()["sha256"]
    return table_hash({name: one for name, one in files.items() if name.startswith("probe/")})


def submission_of(result: Result) -> Submission:
    """Return what is submitted of a result.

    Raises:
        MeasureError: it was not measured by the protocol; every difference is named.
    """
    made = Submission(
        protocol=PROTOCOL,
        attribute=result.attribute,
        adapter=result.adapter,
        adapter_id=result.adapter_id,
        base_id=result.base_id,
        judge=judge_digest() if result.judge == "world" else result.judge,
        prompts=prompts_digest(result.cases),
        sampler=result.sampler,
        strengths=result.strengths,
        figures={name: result.numbers[name] for name in FIGURES if name in result.numbers},
        checks={test.name: test.passed for test in result.selftests},
        versions=result.versions,
    )
    if different := _differences(made):
        raise MeasureError(
            f"this was not measured by protocol {PROTOCOL}: {'; '.join(different)}",
            hint="spf-lora evaluate ADAPTER --submit FILE, with no other option but --attribute",
        )
    return made


def read_submission(path: Path) -> Submission:
    """Read a submission that anybody may have written.

    Raises:
        MeasureError: it cannot be read, was changed after it was written, or is not of the
            protocol; the file is named.
    """
    try:
        table = read_json(path, most_bytes=_MOST_BYTES)
        return _submission(table)
    except OSError as error:
        fault = f"it cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = str(error) if isinstance(error, ValueError) else "its keys are not a submission's"
    raise MeasureError(
        f"{path.name} is left out: {fault}",
        hint="ask for the file as spf-lora evaluate --submit wrote it",
    )


def _submission(table: dict[str, Any]) -> Submission:
    if table.pop("format") != FORMAT or table["protocol"] != PROTOCOL:
        raise ValueError(f"it is no submission of protocol {PROTOCOL}")
    signature = table.pop("signature")
    if table_hash({"format": FORMAT, **table}) != signature:
        raise ValueError("it was changed after it was written: its signature is another")
    strengths = tuple(float(one) for one in table.pop("strengths"))
    figures = {name: Figure(**one) for name, one in table.pop("figures").items()}
    found = Submission(strengths=strengths, figures=figures, **table)
    if wrong := mistyped(found, Submission):
        raise ValueError(f"{wrong.removeprefix('it.')[:100]} is of the wrong type")
    if not re.fullmatch(r"[0-9a-f]{64}", found.adapter_id):
        raise ValueError("its adapter_id is no content id")
    if impossible := [name for name, one in figures.items() if not _possible(one)]:
        raise ValueError(f"its {impossible[0][:40]} cannot be")
    if different := _differences(found):
        raise ValueError(f"it is not of protocol {PROTOCOL}: {'; '.join(different)}")
    return found


def _differences(found: Submission) -> list[str]:
    """Return every way in which figures were not made as the protocol says."""
    fixed = {
        "the base": (found.base_id, BASE),
        "the judge": (found.judge, JUDGE),
        "the sampler": (dict(found.sampler), dict(SAMPLER)),
        "the strengths": (found.strengths, STRENGTHS),
        "the prompts": (found.prompts, PROMPTS.get(found.attribute, "")),
        "the figures": (set(found.figures), set(FIGURES)),
    }
    return [
        f"{what} are others" if what.endswith("s") else f"{what} is another"
        for what, (one, other) in fixed.items()
        if one != other
    ]


def _possible(figure: Figure) -> bool:
    """Tell whether a figure can be one of the protocol's."""
    numbers = (figure.value, figure.low, figure.high)
    known = [one for one in numbers if one is not None]
    bounded = all(0 <= one <= _MOST for one in known) and len(known) in (0, len(numbers))
    return bounded and figure.n == COUNT and 0 <= figure.reached <= 1
