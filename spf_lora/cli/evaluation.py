"""What `evaluate` and `compare` share: from names and options to results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spf_lora.cli.acting import check_local, check_start, starts_of
from spf_lora.cli.generate import check_base
from spf_lora.cli.progress import drawing
from spf_lora.cli.quiet import hush
from spf_lora.errors import MeasureError

if TYPE_CHECKING:
    from spf_lora.base.load import Base
    from spf_lora.evaluate.judges.judge import Judge
    from spf_lora.evaluate.protocol import Case
    from spf_lora.evaluate.result import Result
    from spf_lora.recipe.schema import Attribute

WORLD, PHOTOGRAPHS = "world", "photographs"


@dataclass(frozen=True)
class Asked:
    """What a user asked to be measured.

    Attributes:
        attribute: its name, or None: what the first adapter's card says.
        prompts: a file, or None: held-out people of the portrait world.
        seeds: pictures of each prompt, or None: as many as the protocol has.
        base: base model.
        quick: few prompts and strengths.
        strengths: numbers with commas between them, or None: the protocol's.
        steps: DDIM steps.
        judge: who looks at the pictures, or None: as the base needs.
        scorers: "MODEL=FOLDER" for the models of the judge of photographs.
        mask: folder of the region, for that judge; or None: it reads faces.
        start_percent: share of the steps before the adapters and their words act, or "card".
        exact: whether they act on those words alone.
        local: whether they act in the control map alone.
    """

    attribute: str | None
    prompts: Path | None
    seeds: int | None
    base: str
    quick: bool
    strengths: str | None
    steps: int
    judge: str | None
    scorers: tuple[str, ...] = ()
    mask: Path | None = None
    start_percent: str = "0"
    exact: bool = False
    local: bool = False


def sweep(asked: Asked) -> tuple[float, ...]:
    """Return the strengths, 0 among them.

    Raises:
        MeasureError: one is no number, or out of range.
    """
    from spf_lora.evaluate.protocol import QUICK_STRENGTHS, STRENGTHS

    if asked.strengths is None:
        return QUICK_STRENGTHS if asked.quick else STRENGTHS
    found = {0.0}
    for word in asked.strengths.split(","):
        try:
            number = float(word)
        except ValueError:
            number = float("nan")
        if not 0 <= number <= 4:
            raise MeasureError(
                f"the strength {word.strip()!r} is no number from 0 to 4",
                hint="write them like --strengths 0,0.5,1",
            )
        found.add(number)
    return tuple(sorted(found))


def measure(words: Sequence[str], asked: Asked) -> "list[Result]":
    """Evaluate adapters on the same prompts, seeds and base.

    Args:
        words: files or names of adapters.
        asked: everything else.

    Raises:
        SpfError: something of it cannot be used; nothing is drawn then.
    """
    from spf_lora.registry.names import resolve

    paths = [resolve(word) for word in words]
    strengths = sweep(asked)
    check_start(asked.start_percent)
    hush()
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.adapters.format.card import from_metadata

    adapters = [read_adapter(path) for path in paths]
    cards = [from_metadata(adapter.metadata) for adapter in adapters]
    starts = starts_of(asked.start_percent, cards, paths)
    attribute = _attribute(asked.attribute, paths[0], adapters[0])
    if asked.local:
        check_local(attribute)
    cases = _cases(asked, attribute)
    from spf_lora.base.load import load_base
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.run import evaluate

    words_alone = [attribute.target_text] if asked.exact else []
    base = load_base(asked.base)
    for path, adapter in zip(paths, adapters, strict=True):
        check_base(adapter, base, path)
    judge = _judge(asked, attribute, base)
    results = []
    for path, adapter, start in zip(paths, adapters, starts, strict=True):
        name = _name(path, paths)
        with drawing(name) as progress:
            results.append(
                evaluate(
                    base, adapter, attribute=attribute, cases=cases, strengths=strengths,
                    gallery=cache_folder(), name=name, judge=judge, steps=asked.steps,
                    start_percent=start, exact=words_alone, local=asked.local,
                    on_progress=progress,
                )
            )  # fmt: skip
    return results


def _name(path: Path, paths: Sequence[Path]) -> str:
    alike = [p for p in paths if p.stem == path.stem]
    return path.stem if len(alike) == 1 else f"{path.parent.name}/{path.stem}"


def _attribute(named: str | None, path: Path, adapter: Any) -> "Attribute":
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.recipe.files import find_recipe, list_recipes
    from spf_lora.recipe.load import load_recipe

    card = from_metadata(adapter.metadata)
    name = named or (card.attribute if card else None)
    if name is None and path.stem in list_recipes():
        name = path.stem
    if name is None:
        raise MeasureError(
            f"{path} does not say which attribute it adds",
            hint="name it with --attribute; spf-lora attributes lists them",
        )
    return load_recipe(find_recipe(name)).attribute


def _cases(asked: Asked, attribute: "Attribute") -> "tuple[Case, ...]":
    from spf_lora.evaluate import protocol

    seeds = asked.seeds or (protocol.QUICK_SEEDS if asked.quick else protocol.SEEDS)
    if asked.prompts is not None:
        return protocol.cases_of(protocol.read_prompts(asked.prompts), attribute, seeds=seeds)
    if not protocol.in_world(attribute.name):
        raise MeasureError(
            f"there are no prompts for {attribute.name}: the portrait world does not have it",
            hint="give a file of prompts, one a line: --prompts FILE",
        )
    prompts = protocol.QUICK_PROMPTS if asked.quick else protocol.PROMPTS
    return protocol.held_out_cases(attribute.name, prompts=prompts, seeds=seeds)


def _judge(asked: Asked, attribute: "Attribute", base: "Base") -> "Judge":
    name = asked.judge or (WORLD if asked.base == "embedded" else PHOTOGRAPHS)
    if name == WORLD:
        if asked.scorers or asked.mask:
            raise MeasureError(
                f"the judge {WORLD} uses no --scorer and no --mask",
                hint=f"leave them out, or --judge {PHOTOGRAPHS}",
            )
        from spf_lora.evaluate.judges.world import world_judge

        return world_judge(attribute.name)
    if name != PHOTOGRAPHS:
        raise MeasureError(
            f"there is no judge {name!r}", hint=f"choose {WORLD} or {PHOTOGRAPHS}, with --judge"
        )
    from spf_lora.evaluate.judges.photographs.judge import photograph_judge

    return photograph_judge(
        attribute.name, attribute.target_text, text_encoder=base.text_encoder,
        sources=dict(map(_scorer, asked.scorers)), device=base.device, mask=asked.mask,
    )  # fmt: skip


def _scorer(text: str) -> tuple[str, str]:
    model, _, folder = text.partition("=")
    if not model or not folder:
        raise MeasureError(
            f"the scorer {text!r} cannot be read", hint="write it like --scorer clip=FOLDER"
        )
    return model, folder
