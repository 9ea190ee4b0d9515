"""A vocabulary found in captions: the kinds of one thing, as "black hair" and "red hair" (ours)."""

import re
from collections import Counter
from collections.abc import Sequence

from spf_lora.data.bias import thing
from spf_lora.data.captions import split_phrases
from spf_lora.data.sentences.cut import is_sentence
from spf_lora.data.sentences.grammar import thing_end

_TWICE = 2  # a phrase that one caption alone holds is nobody's habit


def found_groups(captions: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return groups of phrases of which a caption holds one at a time, the commonest first.

    Args:
        captions: without the target; phrases, tags or sentences.
    """
    rows = [{phrase.lower() for phrase in _phrases(caption)} for caption in captions]
    counts = Counter(phrase for row in rows for phrase in row)
    groups: list[list[str]] = []
    for phrase, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        if count < _TWICE:
            break
        beside = {other for row in rows if phrase in row for other in row}
        alike = (g for g in groups if thing(g[0]) == thing(phrase) and not beside & set(g))
        group = next(alike, None)
        if group is None:
            groups.append([phrase])
        else:
            group.append(phrase)
    return tuple(tuple(group) for group in groups if len(group) > 1)


def found_template(captions: Sequence[str], groups: Sequence[Sequence[str]]) -> str:
    """Return how a phrase is put to a CLIP: behind what captions most often begin with."""
    known = {phrase for group in groups for phrase in group}
    firsts = [phrases[0] for caption in captions if (phrases := _phrases(caption))]
    counts = Counter(first for first in firsts if first.lower() not in known)
    subject = counts.most_common(1)[0][0] if counts else "a picture"
    return f"{subject.replace('{}', '')}, {{}}"


def _phrases(caption: str) -> list[str]:
    """Return a caption's phrases; of a sentence, the things that it names."""
    if not is_sentence(caption):
        return split_phrases(caption)
    words, at, found = re.findall(r"[\w'-]+|[^\w\s]", caption), 0, list[str]()
    lower = [word.lower() for word in words]
    while at < len(words):
        end = thing_end(lower, at)
        if end is not None:
            found.append(" ".join(words[at:end]))
        at = end or at + 1
    return found
