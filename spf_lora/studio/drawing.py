"""Draws rows for the page: one base in memory, one drawing at a time, the base's pictures kept."""

import shlex
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.base_match import refuse_other_base
from spf_lora.adapters.format.card import from_metadata
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base, load_base
from spf_lora.base.texts import cut_off
from spf_lora.documents import is_unicode
from spf_lora.draw.act import acting
from spf_lora.draw.parameters import How, infotext
from spf_lora.draw.prompts import asking, taught
from spf_lora.draw.sample import GUIDANCE, STEPS
from spf_lora.draw.three_ways import ThreeWays, draw_three_ways, watched
from spf_lora.errors import PromptError, SpfError
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.on_screen import Look, look
from spf_lora.evaluate.protocol import in_world
from spf_lora.recipe.schema import Attribute
from spf_lora.registry.names import find

WEAKEST, STRONGEST, LATEST, MOST_PICTURES = -1.0, 1.5, 0.9, 8
_LONGEST = 2000  # characters of a prompt; the text encoder reads 77 tokens
_KEPT = 16  # rows of the base's own pictures, and of what pages show
_MOST_SEED = 2**63 - MOST_PICTURES

Tell = Callable[[int, int], None]


class Chosen(NamedTuple):
    """An adapter of a row.

    Attributes:
        name: in the registry.
        strength: that it has.
        start: share of the time steps before it acts.
    """

    name: str
    strength: float = 1.0
    start: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a page asks for; `check` says whether it can be drawn.

    Attributes:
        prompt: with the words of the adapters.
        adapters: all at once.
        seed: of the first picture; the next has one more.
        count: pictures in the row.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
        local: draw locally too.
    """

    prompt: str
    adapters: tuple[Chosen, ...] = ()
    seed: int = 1
    count: int = 4
    steps: int = STEPS
    guidance: float = GUIDANCE
    local: bool = True

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture."""
        return list(range(self.seed, self.seed + self.count))

    def check(self) -> None:
        """Refuse what a page could not send, but anybody could.

        Raises:
            PromptError: a value is out of range.
        """
        if not self.prompt.strip():
            raise PromptError("the prompt is empty", hint='write one: "a portrait of a person"')
        if len(self.prompt) > _LONGEST or not is_unicode(self.prompt):
            raise PromptError(
                f"the prompt has {len(self.prompt)} characters, or some that are no text",
                hint=f"at most {_LONGEST}; the text encoder reads 77 tokens",
            )
        limits = (
            ("count", self.count, 1, MOST_PICTURES),
            ("seed", self.seed, 0, _MOST_SEED),
            ("steps", self.steps, 1, 200),
            ("guidance", self.guidance, 0, 50),
            *(("strength", one.strength, WEAKEST, STRONGEST) for one in self.adapters),
            *(("start", one.start, 0, LATEST) for one in self.adapters),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                raise PromptError(f"{name} is {value:g}", hint=f"it is from {low:g} to {high:g}")

    @property
    def starts(self) -> str:
        """When adapters begin, as `--start-percent` takes it."""
        each = [f"{one.start:g}" for one in self.adapters] or ["0"]
        return ",".join(each if len(set(each)) > 1 else each[:1])

    def command(self, base: str, *, local: bool) -> str:
        """Return the command that draws the same pictures on one sheet."""
        words = ["spf-lora", "generate", self.prompt]
        for one in self.adapters:
            words += ["--adapter", f"{one.name}:{one.strength:g}"]
        words += ["--seed", str(self.seed), "--count", str(self.count)]
        words += ["--steps", str(self.steps), "--guidance", f"{self.guidance:g}"]
        words += ["--start-percent", self.starts] if self.starts != "0" else []
        words += [] if base == "embedded" else ["--base", base]
        return shlex.join([*words, *(["--local"] if local else ["--compare"])])


@dataclass(frozen=True)
class Drawn:
    """A row and what is known of it.

    Attributes:
        asked: what it shows.
        pictures: the three columns.
        within: the prompt of the base's column.
        looks: column ("plain", "local") -> what the judge says.
        unjudged: why nobody says anything, or "".
        remarks: what a reader must know of the drawing.
        seconds: that it took.
        parameters: column -> what each PNG says.
        commands: column -> the command that draws it.
    """

    asked: Asked
    pictures: ThreeWays
    within: str
    looks: dict[str, Look]
    unjudged: str
    remarks: tuple[str, ...]
    seconds: float
    parameters: dict[str, list[str]]
    commands: dict[str, str]


class _CancelledError(SpfError):
    """A drawing was given up."""


@dataclass(eq=False)
class Desk:
    """What the pages of one server share.

    Attributes:
        name: of the base, as `load_base` takes it.
    """

    name: str = "embedded"
    _base: Base | None = None
    _kept: "OrderedDict[tuple[Any, ...], Any]" = field(default_factory=OrderedDict)
    _shown: "OrderedDict[str, Drawn]" = field(default_factory=OrderedDict)
    _cancelled: set[str] = field(default_factory=set)
    _waiting: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def base(self) -> Base:
        """The base, loaded when it is first asked for."""
        if self._base is None:
            self._base = load_base(self.name)
        return self._base

    def shown(self, page: str) -> Drawn | None:
        """Return what a page shows."""
        return self._shown.get(page)

    def cancel(self, page: str) -> None:
        """Give up what a page waits for."""
        if page in self._waiting:
            self._cancelled.add(page)

    def draw(self, asked: Asked, page: str, tell: Tell = lambda done, total: None) -> Drawn:
        """Draw a row.

        Args:
            asked: what.
            page: who asks.
            tell: called with how many evaluations of the model are done, of how many.

        Raises:
            SpfError: it cannot be drawn, or was cancelled.
        """
        asked.check()
        with self._turn(page):
            drawn = self._draw(asked, page, tell)
            _remember(self._shown, page, drawn)
        return drawn

    @contextmanager
    def _turn(self, page: str) -> Iterator[None]:
        self._waiting.add(page)
        try:
            with self._lock:
                yield
        finally:
            self._waiting.discard(page)
            self._cancelled.discard(page)

    def _draw(self, asked: Asked, page: str, tell: Tell) -> Drawn:
        began, base = perf_counter(), self.base
        paths = [find(one.name).path for one in asked.adapters]
        adapters = [_adapter(path, base) for path in paths]
        attributes = [taught(adapter) for adapter in adapters]
        why_not = _no_local(attributes, [one.name for one in asked.adapters])
        local = asked.local and bool(adapters) and not why_not
        strengths = [one.strength for one in asked.adapters]
        rows = list(zip(adapters, strengths, strict=True))
        acts = acting(rows, start_percent=[one.start for one in asked.adapters], local=local)
        prompt = asking(asked.prompt, attributes, acts.starts, local=True)
        key = (prompt.within, tuple(asked.seeds), asked.steps, asked.guidance)
        total = _evaluations(
            asked.steps, local, len(prompt.each), key in self._kept, bool(adapters)
        )
        done = 0

        def tick() -> None:
            nonlocal done
            if page in self._cancelled:
                raise _CancelledError("cancelled", hint="draw again")
            tell(min(done, total), total)
            done += 1

        with watched(base, tick):
            pictures = draw_three_ways(
                base,
                prompt,
                asked.seeds,
                acts,
                steps=asked.steps,
                guidance=asked.guidance,
                kept=self._kept,
            )
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        looks, unjudged = self._looks(attributes, pictures)
        remarks = [] if why_not is None else [why_not]
        if lost := cut_off(base.tokenizer, asked.prompt):
            remarks.append(f"the prompt is longer than 77 tokens; this was cut off: {lost!r}")
        if adapters and prompt.within == asked.prompt and not why_not:
            remarks.append("the prompt asks for no adapter: drawn locally it is the base's picture")
        within = prompt.within or asked.prompt
        return Drawn(
            asked,
            pictures,
            within,
            looks,
            unjudged,
            tuple(remarks),
            perf_counter() - began,
            self._parameters(asked, within, paths, local=local),
            {
                column: asked.command(self.name, local=column == "local")
                for column in ("plain", *(["local"] if local else []))
            },
        )

    def _looks(
        self, attributes: Sequence[Attribute | None], pictures: ThreeWays
    ) -> tuple[dict[str, Look], str]:
        """Return what the judge says of each column, or why there is none."""
        attribute = attributes[0] if len(attributes) == 1 else None
        if attribute is None:
            return {}, "pollution on screen needs one adapter that says its words"
        if self.base.layout != "embedded" or not in_world(attribute.name):
            return {}, f"nobody here can judge {attribute.name}: see the full report"
        if len(pictures.base) < 2:
            return {}, "one picture has no other seed beside it: draw two or more"
        judge = world_judge(attribute.name)
        columns = {"plain": pictures.plain, "local": pictures.local}
        return {
            name: look(judge, attribute.target_text, pictures.base, after)
            for name, after in columns.items()
            if after
        }, ""

    def _parameters(
        self, asked: Asked, within: str, paths: Sequence[Path], *, local: bool
    ) -> dict[str, list[str]]:
        strengths = [one.strength for one in asked.adapters]
        how = How(
            adapters=list(zip(paths, strengths, strict=True)),
            steps=asked.steps,
            guidance=asked.guidance,
            start=asked.starts,
        )
        columns = {
            "base": (within, replace(how, adapters=(), start="0")),
            "plain": (asked.prompt, how),
            "local": (asked.prompt, replace(how, runtime=("local",))),
        }
        return {
            column: [infotext(text, replace(one, seed=s), self.base).text() for s in asked.seeds]
            for column, (text, one) in columns.items()
            if column != "local" or local
        }


def _adapter(path: Path, base: Base) -> Adapter:
    adapter = read_adapter(path)
    refuse_other_base(from_metadata(adapter.metadata), path, base.id, of=base.name)
    return adapter


def _no_local(attributes: Sequence[Attribute | None], names: Sequence[str]) -> str | None:
    """Return why a row cannot be drawn locally, or None."""
    for attribute, name in zip(attributes, names, strict=True):
        if attribute is None:
            return f"{name} does not say which words ask for it, so it is not drawn locally"
        if attribute.control == "strength":
            return f"{name} is a slider, which no words ask for, so it is not drawn locally"
        if attribute.scope == "global":
            return f"{name} changes the whole picture, so it is not drawn locally"
    return None


def _evaluations(steps: int, local: bool, each: int, kept: bool, adapted: bool) -> int:
    """Return how often the U-Net runs for a row."""
    base = 0 if kept else steps
    if not adapted:
        return max(1, base)
    if not local:
        return base + steps
    return base + 3 * steps * max(1, each) + steps + (steps if each else 0)


def _remember(kept: "OrderedDict[str, Drawn]", page: str, drawn: Drawn) -> None:
    kept[page] = drawn
    kept.move_to_end(page)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
