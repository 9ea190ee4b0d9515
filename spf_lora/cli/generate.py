"""`spf-lora generate`: draw pictures with the base and any adapters at any strength."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spf_lora.atomic import check_writable, write_bytes
from spf_lora.cli import out
from spf_lora.cli.acting import check_local, check_start, starts_of
from spf_lora.cli.options import AS_USUAL, ActingOptions, Steps, Tokenizer, with_groups
from spf_lora.cli.quiet import hush
from spf_lora.documents import is_unicode
from spf_lora.errors import PromptError

if TYPE_CHECKING:
    from spf_lora.adapters.module import Adapter
    from spf_lora.draw.act import Acting
    from spf_lora.draw.prompts import Prompt


@with_groups
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
    steps: Steps = 25,
    guidance: Annotated[float, typer.Option(min=0.0, max=50.0, help="Guidance scale.")] = 3.0,
    base: Annotated[
        str, typer.Option(help="`embedded`, a diffusers folder, a .safetensors or a hub id.")
    ] = "embedded",
    tokenizer: Tokenizer = None,
    output: Annotated[Path, typer.Option("--out", "-o", help="The grid, a PNG.")] = Path(
        "grid.png"
    ),
    act: ActingOptions = AS_USUAL,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
) -> None:
    """Draw a grid of pictures."""
    if not prompt.strip():
        raise PromptError("the prompt is empty", hint='write one: "a portrait of a person"')
    if not is_unicode(prompt):
        raise PromptError(f"the prompt {prompt!r} is no text in UTF-8", hint="write it anew")
    check_start(act.start_percent)
    check_writable(output, overwrite=force)
    adapters = [*_of_stack(stack), *(parse_adapter(text) for text in adapter or [])]
    request = _Request(prompt, adapters, range(seed, seed + count), steps, guidance, act)
    picture = _draw(request, base, tokenizer)
    write_bytes(output, picture, overwrite=force)
    out.show(str(output))


@dataclass(frozen=True)
class _Request:
    """Pictures to draw of one prompt, one for each seed."""

    prompt: str
    adapters: list[tuple[Path, float]]
    seeds: range
    steps: int
    guidance: float
    act: ActingOptions


def _of_stack(name: str | None) -> list[tuple[Path, float]]:
    if name is None:
        return []
    from spf_lora.registry.stack import adapters_of, find_stack

    return [(known.path, strength) for known, strength in adapters_of(find_stack(name))]


def parse_adapter(text: str) -> tuple[Path, float]:
    """Read "FILE_OR_NAME[:STRENGTH]"; a name is looked for in the registry.

    Raises:
        AdapterFileError: the strength is no number in [-4, 4], or there is no such file.
        RegistryError: there is no adapter of that name.
    """
    from spf_lora.adapters.strength import split_strength
    from spf_lora.registry.names import resolve

    name, strength = split_strength(text)
    return resolve(name), strength


def _draw(request: _Request, base: str, tokenizer: str | None) -> bytes:
    hush()
    import io

    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.adapters.format.base_match import refuse_other_base
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.base.load import load_base
    from spf_lora.base.texts import cut_off
    from spf_lora.draw.act import draw
    from spf_lora.draw.sample import contact_sheet

    adapters = [(path, read_adapter(path), strength) for path, strength in request.adapters]
    model = load_base(base, tokenizer=tokenizer)
    for path, adapter, _ in adapters:
        card = from_metadata(adapter.metadata, path=path)
        refuse_other_base(card, path, model.id, of=model.name)
    if lost := cut_off(model.tokenizer, request.prompt):
        out.warn(f"the prompt is longer than 77 tokens; this was cut off: {lost!r}")
    prompt, acts = _prompt_and_acting(request, adapters)
    pictures = draw(
        model,
        [prompt] * len(request.seeds),
        list(request.seeds),
        acts,
        steps=request.steps,
        guidance=request.guidance,
    )
    columns = min(len(pictures), 8)
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    buffer = io.BytesIO()
    contact_sheet(rows).save(buffer, "PNG")
    return buffer.getvalue()


def _prompt_and_acting(
    request: _Request, adapters: "list[tuple[Path, Adapter, float]]"
) -> "tuple[Prompt, Acting]":
    """Return what the cards say: which words ask for each adapter, and when it may begin."""
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.draw.act import acting
    from spf_lora.draw.prompts import asking, taught, words_of

    act, paths = request.act, [path for path, _, _ in adapters]
    cards = [from_metadata(adapter.metadata) for _, adapter, _ in adapters]
    starts = starts_of(act.start_percent, cards, paths)
    attributes = [taught(adapter) for _, adapter, _ in adapters]
    for path, start, attribute in zip(paths, starts, attributes, strict=True):
        if start and attribute is None:
            out.warn(f"{path} does not say which words ask for it: they act from the first step")
    needs_words = act.exact or act.local
    words = [words_of(one, str(path)) for path, one, _ in adapters] if needs_words else []
    acts = acting(
        [(adapter, strength) for _, adapter, strength in adapters],
        start_percent=starts,
        words=words if act.exact else (),
        local=act.local,
    )
    prompt = asking(request.prompt, attributes, starts, local=act.local)
    if act.local:
        for attribute in filter(None, attributes):
            check_local(attribute)
        if prompt.within == request.prompt:
            out.warn("the prompt asks for no adapter: this is the base's picture")
    return prompt, acts
