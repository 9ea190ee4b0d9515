"""Captions as phrases: the base prompt without the target, the full prompt with it.

A caption is comma-separated phrases ("a portrait of a person, pale skin, a beard") or sentences,
which `sentences` knows how to cut. Where the target stands inside a longer phrase ("a man with a
beard"), it is cut out together with the word that tied it there; phrases that do not name the
target are never touched.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from spf_lora.data.sentences.cut import UnsafeError, cut, is_sentence, tidy
from spf_lora.data.sentences.grammar import is_adjective
from spf_lora.recipe.schema import Attribute

_TIES = r"(?:with|wearing|having|has|sporting|in|and)"
_ARTICLES = r"(?:an?|the|his|her|their)"
_TIED = re.compile(rf"^{_TIES}\s+|\s+{_TIES}$|^{_TIES}$|^{_ARTICLES}$", re.IGNORECASE)


def split_phrases(caption: str) -> list[str]:
    """Split a caption at commas and line ends; spaces are tidied, empty phrases dropped.

    A line that ends a sentence goes on in the next; the caption's last full stop is left out.
    """
    text = tidy(caption)
    return text.split(", ") if text else []


def join_phrases(phrases: list[str]) -> str:
    """Join phrases to a prompt, the inverse of `split_phrases`."""
    return ", ".join(phrases)


def has_target(caption: str, attribute: Attribute) -> bool:
    """Tell whether a caption names the target or an alias, as whole words in any case."""
    return names_any(caption, (attribute.target_text, *attribute.aliases))


def names_any(caption: str, texts: Sequence[str]) -> bool:
    """Tell whether a caption names any of the texts, as whole words in any case; * is one word."""
    pattern = _any_of(tuple(texts))
    return any(pattern.search(phrase) for phrase in split_phrases(caption))


def put_instead(caption: str, texts: Sequence[str], text: str) -> str:
    """Return the caption with a text in the place of any of others, as whole words in any case."""
    return _any_of(tuple(texts)).sub(lambda _: text, caption)


def base_prompt(caption: str, attribute: Attribute) -> str:
    """Return the caption without the target; what the target replaced is unknown, so left out.

    "pale skin, a beard" gives "pale skin", "a bearded man" gives "a man".
    """
    if has_target(caption, attribute) and is_sentence(caption):
        try:
            without = cut(caption, (attribute.target_text, *attribute.aliases))
        except UnsafeError:
            without = caption
        if not has_target(without, attribute):
            return without
    kept = [_without_target(phrase, attribute) for phrase in split_phrases(caption)]
    return join_phrases([phrase for phrase in kept if phrase])


def unsafe_sentence(caption: str, attribute: Attribute) -> str | None:
    """Return the sentence that cannot lose the target and stay one, or None if there is none."""
    if not has_target(caption, attribute) or not is_sentence(caption):
        return None
    try:
        without = cut(caption, (attribute.target_text, *attribute.aliases))
    except UnsafeError as error:
        return str(error)
    return tidy(caption) if has_target(without, attribute) else None


def full_prompt(base_prompt: str, attribute: Attribute) -> str:
    """Return the base prompt with the target: in place of a phrase it replaces, else at the end.

    A prompt that names the target already comes back as it is, spaces tidied.
    """
    phrases = split_phrases(base_prompt)
    if has_target(base_prompt, attribute):
        return join_phrases(phrases)
    if attribute.replaces:
        pattern = _any_of(attribute.replaces)
        for index, phrase in enumerate(phrases):
            if pattern.search(phrase):
                phrases[index] = pattern.sub(lambda _: attribute.target_text, phrase, count=1)
                # A second phrase that gives way would contradict the target.
                later = [other for other in phrases[index + 1 :] if not pattern.fullmatch(other)]
                return join_phrases(phrases[: index + 1] + later)
    return join_phrases([*phrases, attribute.target_text])


def asking_prompt(base_prompt: str, attribute: Attribute) -> str:
    """Return what is written to get the attribute: nothing more, where its strength brings it."""
    if attribute.control == "strength":
        return join_phrases(split_phrases(base_prompt))
    return full_prompt(base_prompt, attribute)


def base_phrases(base_prompt: str, attribute: Attribute) -> list[str]:
    """Return the phrases whose meaning must not change, in order.

    They are the attribute's own list where it has one (captions without commas), each phrase that
    the prompt holds; otherwise the prompt split at commas.
    """
    if not attribute.phrases:
        return split_phrases(base_prompt)
    text = join_phrases(split_phrases(base_prompt))
    places = [(m.start(), p) for p in attribute.phrases if (m := _any_of((p,)).search(text))]
    return [phrase for _, phrase in sorted(places)]


@lru_cache(maxsize=4096)
def _any_of(texts: tuple[str, ...]) -> re.Pattern[str]:
    """Match any of the texts as whole words, and nothing if there are none; * is one word."""
    longest_first = sorted((unicodedata.normalize("NFC", t) for t in texts), key=len, reverse=True)
    either = "|".join(re.escape(t).replace(r"\*", r"[\w'-]+") for t in longest_first) or "(?!)"
    return re.compile(rf"(?<![\w-])(?:{either})(?![\w-])", re.IGNORECASE)


def _without_target(phrase: str, attribute: Attribute) -> str:
    names = (attribute.target_text, *attribute.aliases)
    target = _any_of(names).pattern
    cuts = _cuts(target, _any_of(tuple(n for n in names if re.match(rf"{_ARTICLES}\s", n))).pattern)
    whole = phrase
    while re.search(target, phrase, re.IGNORECASE):
        for pattern, left in cuts:
            phrase, count = re.subn(pattern, left, phrase, count=1, flags=re.IGNORECASE)
            if count:
                break
        phrase = " ".join(phrase.split())
    if phrase != whole:  # "an old man" gives "a man"
        phrase = re.sub(r"\b(a)n(?=\s+[b-df-hj-np-tv-z])", r"\1", phrase, flags=re.IGNORECASE)
    while phrase != whole and _TIED.search(phrase):
        phrase = _TIED.sub("", phrase).strip()
    if phrase != whole and all(map(is_adjective, phrase.lower().split())):
        return ""  # "long beard" leaves nothing
    return phrase


def _cuts(target: str, with_article: str) -> tuple[tuple[str, str], ...]:
    """Return what to cut and what to leave in its place; the first that is found applies."""
    # "a", then at most two words that describe the target: "a long grey beard".
    described = rf"{_ARTICLES}\s+(?:(?!{_TIES}\b)[\w'-]+\s+){{0,2}}?"
    return (
        # first of a list: "with a beard and a hat" keeps its "with"
        (rf"((?:^|\s){_TIES}\s+)(?:{described})?{target}\s+and\s+", r"\1"),
        # the target with its own article, and what ties it: "with a beard"
        (rf"(?:\b{_TIES}\s+)?{with_article}", ""),
        # an adjective of the next word: "a bearded man" keeps its article
        (rf"(\b{described}){target}\s+(?!{_TIES}\b)(?=\w)", r"\1"),
        # anything else goes with what ties it to the words before
        (rf"(?:\b{_TIES}\s+)?(?:\b{described})?{target}", ""),
    )
