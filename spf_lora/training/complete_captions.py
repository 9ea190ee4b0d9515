"""What a CLIP sees in the training pictures, and the captions completed with it (ours)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.base.texts import cut_off
from spf_lora.data.buckets import Bucket, fit
from spf_lora.data.completion import Vocabulary, complete
from spf_lora.data.folder import Example
from spf_lora.draw.pixels import pixels_of
from spf_lora.recipe.schema import Attribute


@torch.no_grad()
def completed(
    examples: Sequence[Example],
    attribute: Attribute,
    vocabulary: Vocabulary,
    base: Base,
    clip: ClipModel,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[Example], str]:
    """Return the examples with complete captions, and what to tell of it.

    A group's phrases compete: their probability is the softmax of CLIP's scaled cosines. A caption
    that would grow beyond what the text encoder reads stays as it is: the target stands at its end.

    Args:
        examples: pictures and what people said of them.
        attribute: what is learned.
        vocabulary: what may be added.
        base: its resolution is what pictures are shown at.
        clip: judges.
        tell: called with how many pictures are looked at.
    """
    square = Bucket(base.resolution, base.resolution)
    rows: list[torch.Tensor] = []
    for example in examples:
        tell("complete captions", len(rows), len(examples))
        pixels = pixels_of(fit(example.image, square))[None].to(base.device)
        rows.append(clip.embed_image(pixels))
    pictures = torch.cat(rows)  # (examples, dim)
    seen: list[list[tuple[str, float]]] = [[] for _ in examples]
    for group in vocabulary.groups:
        texts = clip.embed_text([vocabulary.template.replace("{}", phrase) for phrase in group])
        best = (clip.scale * pictures @ texts.T).softmax(dim=-1).max(dim=-1)
        for row, certainty, which in zip(
            seen, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            row.append((group[which], certainty))
    captions = [
        complete(e.caption, attribute, vocabulary, row)
        for e, row in zip(examples, seen, strict=True)
    ]
    out = [
        e if cut_off(base.tokenizer, caption) else replace(e, caption=caption)
        for e, caption in zip(examples, captions, strict=True)
    ]
    added = sum(
        new.caption.count(",") - old.caption.count(",")
        for new, old in zip(out, examples, strict=True)
    )
    return out, (
        f"captions completed: {added / len(out):.1f} phrases a picture that CLIP sees and nobody "
        "named (data.vocabulary)"
    )
