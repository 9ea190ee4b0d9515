"""`spf-lora generate`: draw pictures with the base and any adapters at any strength."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spf_lora.atomic import check_writable, write_bytes
from spf_lora.cli import out
from spf_lora.cli.quiet import hush
from spf_lora.cli.starting import (
    Exact,
    Local,
    StartPercent,
    check_alike,
    check_local,
    check_start,
    starts_of,
)
from spf_lora.documents import is_unicode
from spf_lora.errors import AdapterFileError, PromptError

if TYPE_CHECKING:
    from torch import Tensor

    from spf_lora.adapters.card import Card
    from spf_lora.adapters.file import Adapter
    from spf_lora.base.load import Base
    from spf_lora.base.sample import Late


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|NAME[:STRENGTH]", help="An adapter, as beard:1.0; repeatable."),
    ] = None,
    stack: Annotated[
        str | None, typer.Option(metavar="STACK", help="All adapters of a stack, before others.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63, help="Of the first picture; the next has one more.")
    ] = 1,
    count: Annotated[int, typer.Option(min=1, max=256, help="How many pictures.")] = 8,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="DDIM steps.")] = 25,
    guidance: Annotated[float, typer.Option(min=0.0, max=50.0, help="Guidance scale.")] = 3.0,
    base: Annotated[
        str, typer.Option(help="`embedded`, a diffusers folder, a .safetensors or a hub id.")
    ] = "embedded",
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of the base's tokenizer, if it has none.")
    ] = None,
    output: Annotated[Path, typer.Option("--out", "-o", help="The grid, a PNG.")] = Path(
        "grid.png"
    ),
    exact: Exact = False,
    local: Local = False,
    start_percent: StartPercent = "0",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
) -> None:
    """Draw a grid of pictures."""
    if not prompt.strip():
        raise PromptError("the prompt is empty", hint='write one: "a portrait of a person"')
    if not is_unicode(prompt):
        raise PromptError(f"the prompt {prompt!r} is no text in UTF-8", hint="write it anew")
    check_start(start_percent)
    check_writable(output, overwrite=force)
    asked = [*_of_stack(stack), *(parse_adapter(text) for text in adapter or [])]
    picture = _draw(
        prompt, asked, (base, tokenizer), range(seed, seed + count), steps, guidance, exact,
        local, start_percent,
    )  # fmt: skip
    write_bytes(output, picture, overwrite=force)
    out.show(str(output))


def _of_stack(name: str | None) -> list[tuple[Path, float]]:
    if name is None:
        return []
    from spf_lora.adapters.stack import adapters_of, find_stack

    return [(known.path, strength) for known, strength in adapters_of(find_stack(name))]


def parse_adapter(text: str) -> tuple[Path, float]:
    """Read "FILE_OR_NAME[:STRENGTH]"; a name is looked for in the registry.

    Raises:
        AdapterFileError: the strength is no number in [-4, 4], or there is no such file.
        RegistryError: there is no adapter of that name.
    """
    from spf_lora.adapters.registry import resolve
    from spf_lora.adapters.strength import split_strength

    name, strength = split_strength(text)
    return resolve(name), strength


def check_base(adapter: "Adapter", base: "Base", path: Path) -> None:
    """Refuse an adapter whose card says it was trained on another base.

    Raises:
        AdapterFileError: it was.
    """
    from spf_lora.adapters.card import from_metadata

    card = from_metadata(adapter.metadata)
    if card is not None and card.base_id and card.base_id != base.id:
        raise AdapterFileError(
            f"{path} was trained on the base {card.base_id}, but {base.name} is {base.id}",
            hint="name the base it was trained on with --base, or train it again on this one",
        )


def _target_of(adapter: "Adapter", path: Path) -> str:
    """Return the words that ask for an adapter, from its card.

    Raises:
        AdapterFileError: it has no card that says them.
    """
    from spf_lora.adapters.card import from_metadata

    card = from_metadata(adapter.metadata)
    if card is None or not card.target_text:
        raise AdapterFileError(
            f"{path} does not say which words ask for it, so nothing can be drawn without them",
            hint="draw without --exact and --local, or train it with spf-lora",
        )
    return card.target_text


def _without(prompt: str, cards: "Sequence[Card | None]") -> str:
    """Return the prompt without the words that ask for these adapters, as far as cards say them."""
    from spf_lora.adapters.card import attribute_of
    from spf_lora.data.captions import base_prompt, has_target

    for card in cards:
        if card is not None and card.target_text and has_target(prompt, attribute_of(card)):
            prompt = base_prompt(prompt, attribute_of(card))
    return prompt


def _earlier(
    prompt: str,
    cards: "list[Card | None]",
    starts: tuple[float, ...],
    paths: list[Path],
    count: int,
) -> "list[Late]":
    """Return what is drawn before the adapters begin: the prompt without the words that ask."""
    from spf_lora.base.sample import Late, stages

    for card, start, path in zip(cards, starts, paths, strict=True):
        if start and (card is None or not card.target_text):
            out.warn(f"{path} does not say which words ask for it: they act from the first step")

    def without(places: list[int]) -> str:
        return _without(prompt, [cards[place] for place in places])

    return [Late([text] * count, until) for text, until in stages(starts, without)]


def _draw(
    prompt: str, asked: list[tuple[Path, float]], spec: tuple[str, str | None], seeds: range,
    steps: int, guidance: float, exact: bool, local: bool, start_percent: str,
) -> bytes:  # fmt: skip
    hush()
    import io
    from contextlib import ExitStack, contextmanager, nullcontext
    from functools import partial

    from spf_lora.adapters.attach import attached
    from spf_lora.adapters.card import attribute_of, from_metadata
    from spf_lora.adapters.file import read_adapter
    from spf_lora.base.load import load_base
    from spf_lora.base.sample import contact_sheet, sample, sample_latents
    from spf_lora.base.texts import cut_off, encode
    from spf_lora.method.exact import asking_tokens, exactly
    from spf_lora.method.local import Asking, sample_locally

    adapters = [(read_adapter(path), strength) for path, strength in asked]
    model = load_base(spec[0], tokenizer=spec[1])
    for (path, _), (adapter, _) in zip(asked, adapters, strict=True):
        check_base(adapter, model, path)
    if lost := cut_off(model.tokenizer, prompt):
        out.warn(f"the prompt is longer than 77 tokens; this was cut off: {lost!r}")
    read, paths = [one for one, _ in adapters], [path for path, _ in asked]
    cards = [from_metadata(one.metadata) for one in read]
    starts = starts_of(start_percent, cards, paths)
    late = _earlier(prompt, cards, starts, paths, len(seeds))
    if exact:
        check_alike(starts)
    words = [_target_of(*row) for row in zip(read, paths, strict=True)] if exact or local else []

    @contextmanager
    def acting(prompt: str = prompt) -> Iterator[None]:
        with ExitStack() as switched:
            for (adapter, strength), target in zip(adapters, words, strict=True) if exact else ():
                asking = asking_tokens(model.tokenizer, prompt, target)
                on = exactly(model.unet, adapter, strength, asking, start_percent=starts[0])
                switched.enter_context(on)
            if not exact:
                switched.enter_context(attached(model.unet, adapters, start_percent=starts))
            yield

    before = _without(prompt, cards)
    alone = [_without(prompt, [c for c in cards if c is not card]) for card in cards]
    alone = [text for text in dict.fromkeys(alone) if text != before]

    def locally(base: "Base", states: "Tensor", *words: Any, **how: Any) -> "Tensor":
        count = len(states)  # a batch of another size would be rounded otherwise
        each = [Asking(encode(base, [text] * count), partial(acting, text)) for text in alone]
        within = encode(base, [before] * count)
        return sample_locally(
            base, states, *words, within=within, acting=acting,
            each=each if len(each) > 1 else (), **how,
        )  # fmt: skip

    if local:
        for card in filter(None, cards):
            check_local(attribute_of(card))
        if before == prompt:
            out.warn("the prompt asks for no adapter: this is the base's picture")
    with nullcontext() if local else acting():
        pictures = sample(
            model, [prompt] * len(seeds), list(seeds), steps=steps, guidance=guidance, late=late,
            sampler=locally if local else sample_latents,
        )  # fmt: skip
    columns = min(len(pictures), 8)
    rows: list[Any] = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    buffer = io.BytesIO()
    contact_sheet(rows).save(buffer, "PNG")
    return buffer.getvalue()
