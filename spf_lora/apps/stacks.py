"""A stack as other programs name it, and what A1111 and Forge can do without an extension."""

from collections.abc import Sequence
from typing import NamedTuple

from spf_lora.merge.stack_export import printable
from spf_lora.registry.names import SUFFIX
from spf_lora.registry.stack import Known


class StackedLora(NamedTuple):
    """One LoRA of a stack.

    Attributes:
        name: without the suffix.
        strength: in the stack.
        words: what asks for it; empty if no card says.
        start: share of the time steps before it and its words act.
    """

    name: str
    strength: float
    words: str
    start: float

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.name}{SUFFIX}"


def stacked(members: Sequence[tuple[Known, float]]) -> list[StackedLora]:
    """Return what other programs need to know of a stack's adapters."""
    return [
        StackedLora(
            known.name,
            strength,
            printable(known.card.trigger) if known.card else "",
            float(known.card.metrics.get("start_percent", 0.0)) if known.card else 0.0,
        )
        for known, strength in members
    ]


def a1111_lines(loras: Sequence[StackedLora], prompt: str) -> str:
    """Return prompts for A1111 and Forge, one to paste as it is and one for loractl.

    A1111's prompt editing lets words begin late, `[words:0.4]`; a LoRA itself begins with the
    first step unless the extension loractl schedules it.
    """
    words = [prompt, *(_late(one) for one in loras if one.words)]
    plain = [f"<lora:{one.name}:{one.strength:g}>" for one in loras]
    lines = [f"A1111, Forge:\n{', '.join(words)}, {' '.join(plain)}"]
    if any(one.start for one in loras):
        timed = [
            f"<lora:{one.name}:0@{one.start - 0.01:g},{one.strength:g}@{one.start:g}>"
            if one.start
            else tag
            for one, tag in zip(loras, plain, strict=True)
        ]
        lines.append(
            f"A1111 with loractl, which starts LoRAs too:\n{', '.join(words)}, {' '.join(timed)}"
        )
    return "\n\n".join(lines)


def _late(one: StackedLora) -> str:
    return f"[{one.words}:{one.start:g}]" if one.start else one.words
