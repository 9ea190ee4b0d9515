"""What a CLIP sees in the training pictures, and the captions completed with it (ours)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from spf_lora.base.load import Base
from spf_lora.base.texts import cut_off
from spf_lora.data.buckets import Bucket, fit
from spf_lora.data.completion import Vocabulary, complete
from spf_lora.data.folder import Example
from spf_lora.recipe.schema import Attribute
from spf_lora.training.calibrate import likeliest
from spf_lora.training.sight import Asked

_SHOWN = 3  # completed captions that are told in full


class Completed(NamedTuple):
    """Examples with complete captions.

    Attributes:
        examples: in order.
        remark: what was done, and whether it is good.
        details: some captions before and after.
    """

    examples: list[Example]
    remark: str
    details: tuple[str, ...]


@torch.no_grad()
def completed(
    examples: Sequence[Example],
    attribute: Attribute,
    vocabulary: Vocabulary,
    base: Base,
    asked: Asked,
    least: Sequence[float],
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Completed:
    """Return the examples with complete captions, and what to tell of it.

    A group's likeliest phrase is added where its probability reaches the group's limit. A caption
    that would grow beyond what the text encoder reads stays as it is: the target stands at its end.

    Args:
        examples: pictures and what people said of them.
        attribute: what is learned.
        vocabulary: what may be added.
        base: its resolution is what pictures are shown at.
        asked: the CLIP that judges.
        least: probability from which on each group's likeliest phrase is believed.
        tell: called with how many pictures are looked at.
    """
    square = Bucket(base.resolution, base.resolution)
    rows: list[torch.Tensor] = []
    for example in examples:
        tell("complete captions", len(rows), len(examples))
        rows.append(asked.picture(fit(example.image, square), base.device))
    pictures = torch.cat(rows)  # (examples, dim)
    seen: list[list[str | None]] = [[] for _ in examples]
    groups = zip(vocabulary.groups, likeliest(asked, pictures, vocabulary), least, strict=True)
    for group, (probability, phrase), limit in groups:
        for row, of_it, which in zip(seen, probability.tolist(), phrase.tolist(), strict=True):
            row.append(group[which] if of_it >= limit else None)
    captions = [
        complete(e.caption, attribute, vocabulary, row)
        for e, row in zip(examples, seen, strict=True)
    ]
    out = [
        e if cut_off(base.tokenizer, caption) else replace(e, caption=caption)
        for e, caption in zip(examples, captions, strict=True)
    ]
    return Completed(out, *_told(examples, out, attribute))


def _told(
    before: Sequence[Example], after: Sequence[Example], attribute: Attribute
) -> tuple[str, tuple[str, ...]]:
    """Return a remark on completed captions, and some of them in full."""
    pairs = list(zip(before, after, strict=True))
    added = sum(new.caption.count(",") - old.caption.count(",") for old, new in pairs)
    if not added:
        return "captions are as they were: CLIP saw nothing for certain that they leave out", ()
    changed = [(old, new) for old, new in pairs if old.caption != new.caption][:_SHOWN]
    details = [f"{old.source}: {old.caption!r} became {new.caption!r}" for old, new in changed]
    return (
        f"captions completed with {added / len(pairs):.1f} phrases each that a CLIP sees: what is "
        f"named is not learned as {attribute.target_text!r}. Good; nothing to do",
        tuple(details),
    )
