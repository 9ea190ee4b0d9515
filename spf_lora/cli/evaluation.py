"""What `evaluate` and `compare` share: from names and options to results."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spf_lora.cli.acting import check_local, start_of
from spf_lora.cli.judge_from import judge_from, read_judge_from, sources_of
from spf_lora.cli.options import ActingOptions, MeasureOptions
from spf_lora.cli.progress import drawing
from spf_lora.cli.quiet import hush
from spf_lora.errors import MeasureError

if TYPE_CHECKING:
    from spf_lora.adapters.format.card import Card
    from spf_lora.base.load import Base
    from spf_lora.data.worlds.world import World
    from spf_lora.evaluate.judges.judge import Judge
    from spf_lora.evaluate.protocol import Case
    from spf_lora.evaluate.result import Result
    from spf_lora.recipe.schema import Attribute

WORLD, PHOTOGRAPHS = "world", "photographs"


def sweep(options: MeasureOptions) -> tuple[float, ...]:
    """Return the strengths, 0 among them.

    Raises:
        MeasureError: one is no number, or out of range.
    """
    from spf_lora.evaluate.protocol import QUICK_STRENGTHS, STRENGTHS

    if options.strengths is None:
        return QUICK_STRENGTHS if options.quick else STRENGTHS
    strengths = {0.0}
    for word in options.strengths.split(","):
        try:
            number = float(word)
        except ValueError:
            number = float("nan")
        if not 0 <= number <= 4:
            raise MeasureError(
                f"the strength {word.strip()!r} is no number from 0 to 4",
                hint="write them like --strengths 0,0.5,1",
            )
        strengths.add(number)
    return tuple(sorted(strengths))


def measure(words: Sequence[str], options: MeasureOptions, act: ActingOptions) -> "list[Result]":
    """Evaluate adapters on the same prompts, seeds and base.

    Args:
        words: files or names of adapters.
        options: what is measured, on which pictures, by whom.
        act: when the adapters act, on what, and where.

    Raises:
        SpfError: something of it cannot be used; nothing is drawn then.
    """
    from spf_lora.draw.schedulers import check_sampler
    from spf_lora.registry.names import resolve

    check_sampler(options.sampler)
    paths = [resolve(word) for word in words]
    strengths = sweep(options)
    start = start_of(act.start_percent)
    hush()
    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.adapters.format.base_match import refuse_other_base
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.base.load import load_base
    from spf_lora.data.worlds import world_of
    from spf_lora.draw.act import acting
    from spf_lora.draw.sample import Sampling
    from spf_lora.evaluate.gallery import cache_folder
    from spf_lora.evaluate.protocol import read_prompts
    from spf_lora.evaluate.run import Measurement, evaluate

    adapters = [read_adapter(path) for path in paths]
    cards = [
        from_metadata(adapter.metadata, path=path)
        for path, adapter in zip(paths, adapters, strict=True)
    ]
    attribute = _attribute(options.attribute, paths[0], cards[0])
    if act.local:
        check_local(attribute)
    own = read_judge_from(options, attribute)
    cases: tuple[Case, ...] = ()
    if options.prompts is not None:
        cases = _cases(options, attribute, read_prompts(options.prompts))
    base = load_base(options.base)
    if not cases and not own:
        cases = _cases(options, attribute, world_of(base))
    for path, card in zip(paths, cards, strict=True):
        refuse_other_base(card, path, base.id, of=base.name)
    words_alone = [attribute.target_text] if act.exact else []
    every = [
        acting(adapter, start_percent=start, words=words_alone, local=act.local)
        for adapter in adapters
    ]
    sampling = Sampling(options.steps, options.guidance, sampler=options.sampler)
    remarks: list[str] = []
    if own is None:
        judge = _judge(options, attribute, base)
    else:
        judge, cases, remarks = judge_from(
            own, attribute, cases, base, every[0], options=options, sampling=sampling
        )
    measurement = Measurement(attribute, cases, strengths=strengths, judge=judge)
    results = []
    for path, acts in zip(paths, every, strict=True):
        name = _name(path, paths)
        with drawing(name) as progress:
            results.append(
                evaluate(
                    base,
                    acts,
                    measurement,
                    gallery=cache_folder(),
                    name=name,
                    sampling=sampling,
                    on_progress=progress,
                )
            )
    return [replace(one, remarks=(*remarks, *one.remarks)) for one in results]


def _name(path: Path, paths: Sequence[Path]) -> str:
    alike = [p for p in paths if p.stem == path.stem]
    return path.stem if len(alike) == 1 else f"{path.parent.name}/{path.stem}"


def _attribute(named: str | None, path: Path, card: "Card | None") -> "Attribute":
    from spf_lora.adapters.format.card import attribute_of
    from spf_lora.recipe.files import find_recipe, list_recipes
    from spf_lora.recipe.load import load_recipe

    name = named or (card.attribute if card else None)
    if name is None and path.stem in list_recipes():
        name = path.stem
    if name is None:
        raise MeasureError(
            f"{path} does not say which attribute it adds",
            hint="name it with --attribute; spf-lora attributes lists them",
        )
    elsewhere = card is not None and name == card.attribute and name not in list_recipes()
    if card is not None and elsewhere and card.target_text:
        return attribute_of(card)  # its recipe is in another folder
    attribute = load_recipe(find_recipe(name)).attribute
    own = attribute_of(card) if card is not None else attribute
    return replace(attribute, control=own.control)


def _cases(
    options: MeasureOptions, attribute: "Attribute", of: "list[str] | World"
) -> "tuple[Case, ...]":
    """Return the cases of these prompts, or of a world's held-out people."""
    from spf_lora.evaluate import protocol

    seeds = options.seeds or (protocol.QUICK_SEEDS if options.quick else protocol.SEEDS)
    if isinstance(of, list):
        cases = protocol.cases_of(of, attribute, seeds=seeds)
    elif protocol.in_world(attribute.name, of):
        prompts = protocol.QUICK_PROMPTS if options.quick else protocol.PROMPTS
        cases = protocol.held_out_cases(attribute.name, prompts=prompts, seeds=seeds, world=of)
    else:
        raise MeasureError(
            f"there are no prompts for {attribute.name}: the world {of.name} does not have it",
            hint="give a file of prompts, one a line: --prompts FILE; or pictures of it with "
            "captions: --judge-from DIR",
        )
    if attribute.control == "words":
        return cases
    return tuple(replace(case, prompt=case.base_prompt) for case in cases)


def _judge(options: MeasureOptions, attribute: "Attribute", base: "Base") -> "Judge":
    name = options.judge or (WORLD if base.world else PHOTOGRAPHS)
    if name == WORLD:
        if options.scorer or options.mask:
            raise MeasureError(
                f"the judge {WORLD} uses no --scorer and no --mask",
                hint=f"leave them out, or --judge {PHOTOGRAPHS}",
            )
        from spf_lora.evaluate.judges.world import world_judge

        return world_judge(attribute.name, base)
    if name != PHOTOGRAPHS:
        raise MeasureError(
            f"there is no judge {name!r}", hint=f"choose {WORLD} or {PHOTOGRAPHS}, with --judge"
        )
    from spf_lora.evaluate.judges.photographs.judge import photograph_judge

    return photograph_judge(
        attribute.name,
        attribute.target_text,
        text_encoder=base.text_encoder,
        sources=sources_of(options.scorer or ()),
        device=base.device,
        mask=options.mask,
    )
