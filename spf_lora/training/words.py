"""Whether the text encoder tells a prompt that asks from one that does not (ours).

A prompt's padding sums it up, and the U-Net reads it most. Where the target's words hardly change
it, no adapter of the U-Net can part the two: it learns the attribute for every prompt, or for none.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

from spf_lora.base.texts import encode
from spf_lora.data.cache import TensorCache, content_key
from spf_lora.data.captions import join_phrases, split_phrases
from spf_lora.recipe.schema import Attribute
from spf_lora.training.trainer import Tell

LEAST_HEARD = 0.5  # of what an ordinary phrase does
_PROMPTS, _PHRASES, _FEWEST = 4, 12, 4
MOST_TEXTS = _PROMPTS * (_PHRASES + 2)  # as they are, with each phrase, and with the target
READING = "read the words"


def heard(
    base: Any, prompts: Sequence[str], target: str, tell: Tell = lambda what, done, total: None
) -> float | None:
    """Return how much the target moves what is behind a prompt, as a share of what phrases do.

    It is the root mean square by which the last text state moves when the target is put at a
    prompt's end, over the median of the same for phrases that the prompts name themselves.

    Args:
        base: its tokenizer and text encoder read.
        prompts: without the target.
        target: the words that ask.
        tell: called with how many phrases are read.

    Returns:
        the share; None where the prompts have too few phrases to compare with.
    """
    parts = [split_phrases(prompt) for prompt in dict.fromkeys(prompts)]
    phrases = list(dict.fromkeys(chain(*(said[1:] for said in parts))))[:_PHRASES]
    parts = parts[:_PROMPTS]
    if len(phrases) < _FEWEST:
        return None
    before = encode(base, [join_phrases(said) for said in parts])[:, -1]

    def moved(phrase: str) -> float:
        after = encode(base, [join_phrases([*said, phrase]) for said in parts])[:, -1]
        return (after - before).float().square().mean().sqrt().item()

    found: list[float] = []
    for phrase in (*phrases, target):
        tell(READING, len(found), len(phrases) + 1)
        found.append(moved(phrase))
    usual = torch.tensor(found[:-1]).median().item()
    return found[-1] / usual if usual else None


def hardly_heard(
    base: Any,
    prompts: Sequence[str],
    attribute: Attribute,
    cache: TensorCache,
    *,
    below: str = "",
    tell: Tell = lambda what, done, total: None,
) -> list[str]:
    """Return what to tell of words that the text encoder hardly reads; nothing if it does.

    Args:
        base: reads.
        prompts: without the target.
        attribute: the target.
        cache: keeps what was read, for other runs.
        below: digest of the adapters that are on.
        tell: see `heard`.
    """
    target = attribute.target_text

    def read() -> torch.Tensor:
        found = heard(base, prompts, target, tell)
        return torch.tensor(math.inf if found is None else found)

    share = float(cache.get(content_key("words", base.id, below, target, *prompts), read))
    if share >= LEAST_HEARD:
        return []
    return [
        f"the text encoder hardly reads {target!r}: it changes a prompt {share:.1f} times as much "
        "as other phrases do, so prompts that do not ask may show it, or none may. "
        "Choose other words (attribute.target_text), or do without words (--slider). "
        "--set adapter.text_encoder=true has the text encoder learn them, at the cost of pollution"
    ]
