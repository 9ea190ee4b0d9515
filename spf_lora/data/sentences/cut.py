"""Captions in sentences, as BLIP, Florence and LLaVA write them: the target is taken out whole.

What is left must be a sentence that a person would write. Where the rules cannot promise that,
they say so, and the caption is a fault: a crippled sentence teaches the wrong words.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from spf_lora.data.sentences.cases import cut_clause
from spf_lora.data.sentences.clauses import owner_at, subject_at
from spf_lora.data.sentences.grammar import (
    CONJUNCTIONS,
    COPULAS,
    DETERMINERS,
    FINITE,
    MASSES,
    NEGATIONS,
    PLURALS,
    PREPOSITIONS,
    RELATIVES,
    TIES,
    is_participle,
)

_TOKEN = re.compile(r"\w[\w'/-]*(?:\.\d+)?|[^\w\s]")
_LONG_PHRASE = 6  # words; a shorter phrase without a verb is a tag
_DANGLING = (TIES | COPULAS | RELATIVES | PREPOSITIONS | DETERMINERS | CONJUNCTIONS) - {
    "his",
    "her",
}
_TAG = re.compile(r"(?<=[^\W_]{2})_(?=[^\W_]|\\?\()")
_APOSTROPHE = "\u2019"
_GLUED = frozenset(",.;:!?%")  # without a space before them

Head = tuple[str, ...]


@lru_cache(maxsize=4096)  # a vocabulary's phrases come again and again
def tidy(caption: str) -> str:
    """Return a caption on one line: spaces tidied, a line's end a comma but for a sentence's end.

    The last full stop is left out, so that a phrase can be added. A tag as booru sites have it,
    "long_hair", is written with spaces, as models of drawings read it; "^_^" stays.
    """
    text = unicodedata.normalize("NFC", caption).replace(_APOSTROPHE, "'")
    text = re.sub(r"([.!?])\s*[\n\r]+\s*", r"\1 ", text)
    parts = (part.strip() for part in re.split(r"[,\n\r]", text))
    phrases = (" ".join(_TAG.sub(" ", part).split()) for part in parts)
    joined = ", ".join(phrase for phrase in phrases if phrase)
    return joined[:-1].rstrip(" .") if joined.endswith(".") else joined


def is_sentence(caption: str) -> bool:
    """Tell whether a caption is written in sentences, and not in short phrases."""
    text = tidy(caption)
    if re.search(r"\w[.!?] +[A-Z]", text):
        return True
    for phrase in text.split(", "):
        words = phrase.lower().split()
        if any(word in FINITE or word in ("who", "there") for word in words):
            return True
        if len(words) >= _LONG_PHRASE and any(w in TIES or is_participle(w) for w in words):
            return True
    return False


class UnsafeError(ValueError):
    """No safe way is known to take the target out of a sentence, which is the message."""


def cut(caption: str, names: Sequence[str]) -> str:
    """Return a caption without the target, tidy.

    Args:
        caption: in sentences.
        names: the target's text and its aliases.

    Raises:
        UnsafeError: what would be left is no sentence, or nobody knows.
    """
    heads = _heads(tuple(names))
    kept: list[str] = []
    touched, plural, subject = False, False, list[str]()
    for sentence in _split(tidy(caption)):
        text, words = sentence, _TOKEN.findall(sentence)
        pronoun = words[0].lower()
        if subject and pronoun in ("he", "she", "they", "it"):
            words = [*subject, *(word for word in words[1:3] if word != "also"), *words[3:]]
            text = _joined(words)
        elif subject:
            kept += _alone(subject)
        elif touched and pronoun in ({"they", "their"} if plural else {"it", "its"}):
            raise UnsafeError(sentence)  # which may speak of the target
        target = _find(words, heads)
        touched, subject = target is not None, []
        if target:
            plural = words[target[1] - 1].lower() in PLURALS
            rest = _without(words, heads)
            if rest is None:
                raise UnsafeError(sentence)
            text = _joined(rest)
            subject = [] if rest else _subject_of(words, heads)
        kept += [text] if text else []
    kept += _alone(subject)
    if not kept:
        raise UnsafeError(tidy(caption))
    return tidy(" ".join(kept))


def _subject_of(words: Sequence[str], heads: dict[Head, bool]) -> list[str]:
    """Return who has the target in a sentence that says nothing else: "The man", "A woman"."""
    lower = [word.lower() for word in words]
    start = lower.index(",") + 1 if lower[0] in PREPOSITIONS and "," in lower else 0
    subject = owner_at(lower, start) or subject_at(lower, start)
    if not subject or _find(subject, heads) is not None:
        return []
    return [subject[0].capitalize(), *subject[1:]]


def _alone(subject: Sequence[str]) -> list[str]:
    """Return a subject as a sentence: "A woman.", where it was not spoken of before."""
    return [f"{_joined(subject)}."] if subject and subject[0] in ("A", "An") else []


def _split(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text) if part]


@lru_cache
def _heads(names: tuple[str, ...]) -> dict[Head, bool]:
    """Return the names as words without their articles, the longest first; True for nouns."""
    nouns = {_head(name) for name in names if _article_of(name)}
    heads = {_head(name) for name in names if _head(name)}
    known = PLURALS | MASSES
    return {
        head: head in nouns or head[-1] in known or head[-1].endswith("s")
        for head in sorted(heads, key=lambda head: (-len(head), head))
    }


def _article_of(name: str) -> bool:
    return name.lower().startswith(("a ", "an ", "the "))


def _head(name: str) -> Head:
    return tuple(_TOKEN.findall(re.sub(r"^(?:an?|the)\s+", "", tidy(name).lower())))


def _find(words: Sequence[str], heads: dict[Head, bool]) -> tuple[int, int, bool] | None:
    """Return where the target stands first, and whether it is a noun there."""
    lower = [word.lower() for word in words]
    for at in range(len(lower)):
        for head, noun in heads.items():
            if tuple(lower[at : at + len(head)]) == head:
                return at, at + len(head), noun
    return None


def _without(words: list[str], heads: dict[Head, bool]) -> list[str] | None:
    """Return a sentence's words without the target: none if it says nothing else."""
    end = [words[-1]] if words[-1] in ".!?" else []
    words = words[: len(words) - len(end)]
    strange = any(not word[0].isalnum() and word not in _GLUED for word in words)
    if strange or NEGATIONS & {word.lower() for word in words}:
        return None
    capital = words[0][0].isupper()
    while target := _find(words, heads):
        shorter = cut_clause(words, *target)
        if shorter is None or len(shorter) >= len(words):
            return None
        words = shorter
    if not words:
        return []
    if not _stands(words):
        return None
    if capital:
        words[0] = words[0][0].upper() + words[0][1:]
    return words + end


def _stands(words: Sequence[str]) -> bool:
    """Tell whether nothing was torn: no word waits for another that is gone."""
    lower = [word.lower() for word in words]
    if len(lower) < 2 or lower[0] in (",", "and", "or", "who", "which") or lower[-1] in _DANGLING:
        return False
    for one, other in zip(lower, [*lower[1:], "."], strict=True):
        torn = one in _DANGLING - {"that", "there", "this", "one", "some"} | {"both"}
        if torn and other in (".", ",", ";"):
            return False
        if one in COPULAS | TIES | CONJUNCTIONS | {"a", "an", "the", ","} and one == other:
            return False
        if one in CONJUNCTIONS and other in CONJUNCTIONS:
            return False
    return True


def _joined(words: Sequence[str]) -> str:
    text = ""
    for word in words:
        text += word if not text or word in _GLUED else f" {word}"
    return text
