"""What went wrong in one picture, in words: from what the judge sees and from what moved."""

import re
from collections.abc import Mapping, Sequence

from spf_lora.evaluate.numbers import CHANGED, LEAKED
from spf_lora.evaluate.result import Draw

ANOTHER = 1.0  # pollution of another seed
MOVED = 0.7  # of another seed's distance: from here on a channel is told
_CHANNELS = {
    "identity": "looks like somebody else",
    "layout": "shapes moved away from it",
    "colour": "colours changed away from it",
    "region": "pixels changed away from it",
}


def the(target_text: str) -> str:
    """Return how to speak of the attribute: "the beard" for "a beard"."""
    return f"the {re.sub(r'^(?:an?|the) ', '', target_text.strip(), flags=re.IGNORECASE)}"


def several(thing: str) -> bool:
    """Tell whether a thing is spoken of as many: "the glasses are missing"."""
    return thing.endswith("s") and not thing.endswith("ss")


def ceilings_of(draws: Sequence[Draw]) -> dict[str, float]:
    """Return how far another seed is from the base's picture in each channel, on average."""
    by_channel: dict[str, list[float]] = {}
    for draw in draws:
        for name, value in draw.numbers.items():
            channel = name.removeprefix("ceiling:")
            if channel in _CHANNELS and channel != name:
                by_channel.setdefault(channel, []).append(value)
    return {channel: sum(values) / len(values) for channel, values in by_channel.items()}


def faults(draw: Draw, target_text: str, ceilings: Mapping[str, float]) -> tuple[str, ...]:
    """Say what went wrong in one draw, the worst first.

    Args:
        draw: its numbers.
        target_text: the phrase that asks for the attribute.
        ceilings: from `ceilings_of`.
    """
    numbers, thing = draw.numbers, the(target_text)
    sentences = []
    if numbers.get("shown") == 0:
        sentences.append(f"{thing} {'are' if several(thing) else 'is'} missing")
    if numbers.get("unasked") == 1 and numbers.get("score:I0", 0.0) <= 0.5:
        sentences.append(f"{thing} appear{'' if several(thing) else 's'} where nobody asked")
    if numbers.get("P", 0.0) >= ANOTHER:
        sentences.append("as far from the base's picture as another seed")
    sentences += [f"{name} changed" for name in _named(numbers, CHANGED)]
    sentences += [f"{name} changed where nobody asked" for name in _named(numbers, LEAKED)]
    if not _named(numbers, CHANGED):
        sentences += [
            words
            for channel, words in _CHANNELS.items()
            if numbers.get(channel, 0.0) >= MOVED * ceilings.get(channel, float("inf"))
        ]
    return tuple(sentences)


def _named(numbers: Mapping[str, float], prefix: str) -> list[str]:
    return sorted(name.removeprefix(prefix) for name in numbers if name.startswith(prefix))
