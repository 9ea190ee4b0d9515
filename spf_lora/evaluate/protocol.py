"""Which pictures are compared: prompts with and without the attribute, seeds, and the truth.

Five pictures for every prompt p, seed z and strength: I0 base model on the base prompt, Ic base
model on the full prompt (the prompt-only control), I1 adapter on the full prompt, Ib adapter on the
base prompt, Iz as I0 from another seed. All but Iz start from the same noise.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spf_lora.data.captions import base_prompt, full_prompt, join_phrases, split_phrases
from spf_lora.data.prompt_file import read_prompt_lines
from spf_lora.data.worlds import PORTRAITS
from spf_lora.data.worlds.world import World
from spf_lora.errors import DataError, PromptError
from spf_lora.recipe.schema import Attribute

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
QUICK_STRENGTHS = (0.0, 0.5, 1.0)
PROMPTS, SEEDS = 40, 4
COVERAGE = 0.75  # share of a held-out person's phrases that a prompt names
QUICK_PROMPTS, QUICK_SEEDS = 16, 2
_FIRST_SEED, _SEEDS_A_PROMPT = 10_000, 1000


@dataclass(frozen=True)
class Case:
    """One prompt to measure on.

    Attributes:
        prompt: with the attribute.
        base_prompt: without it.
        seeds: one picture each.
    """

    prompt: str
    base_prompt: str
    seeds: tuple[int, ...]


def other_seed(seeds: Sequence[int], index: int, away: int = 1) -> int:
    """Return the seed of Iz: the next of the prompt's own, or one nobody else uses.

    Args:
        seeds: of one prompt.
        index: which of them is to be compared.
        away: 1 for the ceiling, 2 for a second sample to test the ceiling with.
    """
    if away < len(seeds):
        return seeds[(index + away) % len(seeds)]
    return seeds[0] + _SEEDS_A_PROMPT // 2 + 100 * away


def prompt_seeds(index: int, count: int) -> tuple[int, ...]:
    """Return the seeds of a prompt; no two prompts share one."""
    first = _FIRST_SEED + _SEEDS_A_PROMPT * index
    return tuple(range(first, first + count))


def held_out_cases(
    attribute: str,
    *,
    prompts: int = PROMPTS,
    seeds: int = SEEDS,
    coverage: float = COVERAGE,
    world: World = PORTRAITS,
) -> tuple[Case, ...]:
    """Return prompts for unbiased people of a world whom no training set is drawn from.

    Args:
        attribute: a name of the world's attributes.
        prompts: how many people.
        seeds: pictures of each.
        coverage: share of a person's phrases that the prompt names.
        world: whose people, see `spf_lora.data.worlds.world_of`.

    Raises:
        DataError: the world has no such attribute.
    """
    rng = random.Random("held-out people")
    cases = []
    for index in range(prompts):
        person = world.unbiased(rng)
        plain = world.partial_caption(person, (), random.Random(rng.random()), coverage=coverage)
        named = {*split_phrases(plain), *world.caption_targets([attribute])}
        full = join_phrases([p for p in world.phrases(person, (attribute,)) if p in named])
        cases.append(Case(full, plain, prompt_seeds(index, seeds)))
    return tuple(cases)


def cases_of(lines: Sequence[str], attribute: Attribute, *, seeds: int = SEEDS) -> tuple[Case, ...]:
    """Return a case for every prompt; one that names the attribute already loses it for the base.

    Raises:
        PromptError: nothing is left of a prompt without the attribute.
    """
    cases = []
    for index, line in enumerate(lines):
        plain = base_prompt(line, attribute)
        if not plain:
            raise PromptError(
                f"prompt {index + 1}, {line[:60]!r}, is the attribute and nothing else",
                hint='describe what must stay as it is: "a portrait of a woman, red hair"',
            )
        cases.append(Case(full_prompt(plain, attribute), plain, prompt_seeds(index, seeds)))
    return tuple(cases)


def read_prompts(path: Path) -> list[str]:
    """Read a file of prompts, one a line; empty lines and lines that begin with # do not count.

    Raises:
        DataError: the file cannot be read, is empty, or has a line too long, or one twice.
    """
    rows = read_prompt_lines(path)
    seen: dict[str, int] = {}
    for number, line in rows:
        if line in seen:
            raise DataError(
                f"line {number} of {path} repeats line {seen[line]}",
                hint="prompts are what is counted: leave each in once, ask for more --seeds",
            )
        seen[line] = number
    return [line for _, line in rows]


def check_lengths(tokenizer: Any, cases: Sequence[Case]) -> None:
    """Refuse prompts whose end, where the attribute stands, would be cut off.

    Raises:
        PromptError: one is longer than the text encoder reads.
    """
    from spf_lora.base.texts import cut_off

    for index, case in enumerate(cases):
        if lost := cut_off(tokenizer, case.prompt):
            raise PromptError(
                f"prompt {index + 1} is longer than 77 tokens with the attribute; "
                f"this would be cut off: {lost[:80]!r}",
                hint="shorten that line: the attribute's words come last and would be lost",
            )


def in_world(attribute: str, world: World = PORTRAITS) -> bool:
    """Tell whether a world can draw the attribute."""
    return attribute in world.attributes
