"""What one picture is asked for, and what the words of its adapters are."""

from collections.abc import Sequence
from dataclasses import dataclass

from spf_lora.adapters.format.card import attribute_of, from_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.data.captions import base_prompt, has_target
from spf_lora.draw.late import Late, stages
from spf_lora.errors import AdapterFileError
from spf_lora.recipe.schema import Attribute


@dataclass(frozen=True)
class Prompt:
    """The words of one picture.

    Attributes:
        text: what is asked for.
        before: other texts, and the share of the time steps until which each is drawn, the
            earliest first; see `stages`.
        within: for local drawing, the text whose picture is left in the control map only; or
            None: the whole picture may differ.
        each: of several adapters, texts that ask for one of them each, whose maps are joined, and
            the share of the time steps until which `within` is drawn instead.
    """

    text: str
    before: tuple[tuple[str, float], ...] = ()
    within: str | None = None
    each: tuple[tuple[str, float], ...] = ()

    def kind(self) -> tuple[bool, tuple[float, ...]]:
        """Return what must be alike for prompts to be drawn in one batch."""
        return self.within is not None, tuple(start for _, start in self.each)

    def until(self, share: float) -> str:
        """Return the text that is drawn just before this share of the time steps is over."""
        return next((text for text, end in self.before if end >= share), self.text)


def asking(
    text: str,
    attributes: Sequence[Attribute | None],
    starts: Sequence[float] = (),
    *,
    local: bool = False,
) -> Prompt:
    """Return how a text is drawn with adapters on, given what each of them adds.

    Args:
        text: the whole prompt.
        attributes: what each adapter adds, None where nobody knows.
        starts: share of the time steps before each acts, and before its words are read.
        local: whether the picture without the attributes is left in the control map only.
    """

    def without(places: list[int]) -> str:
        return without_words(text, [attributes[place] for place in places])

    before = stages(starts, without)
    if not local:
        return Prompt(text, before)
    within = without_words(text, attributes)
    alone = [without_words(text, [a for a in attributes if a is not one]) for one in attributes]
    each = dict.fromkeys(zip(alone, starts or [0.0] * len(alone), strict=True))
    asked = tuple(one for one in each if one[0] != within)
    return Prompt(text, before, within, asked if len(attributes) > 1 else ())


def without_words(text: str, attributes: Sequence[Attribute | None]) -> str:
    """Return a prompt without the words that ask for these attributes, as far as they are known."""
    for attribute in attributes:
        if attribute is not None and has_target(text, attribute):
            text = base_prompt(text, attribute)
    return text


def late_of(prompts: Sequence[Prompt]) -> list[Late]:
    """Return what is drawn instead of these prompts until each share of the time steps is over."""
    ends = {end for prompt in prompts for _, end in prompt.before}
    return [Late([prompt.until(end) for prompt in prompts], end) for end in ends]


def taught(adapter: Adapter) -> Attribute | None:
    """Return what an adapter's card says it adds, or None if nothing says it."""
    card = from_metadata(adapter.metadata)
    return attribute_of(card) if card is not None and card.target_text else None


def words_of(adapter: Adapter, source: str) -> str:
    """Return the words that ask for an adapter, from its card.

    Raises:
        AdapterFileError: it has no card that says them.
    """
    attribute = taught(adapter)
    if attribute is None:
        raise AdapterFileError(
            f"{source} does not say which words ask for it, so nothing can be drawn without them",
            hint="draw without --exact and --local, or train it with spf-lora",
        )
    return attribute.target_text
