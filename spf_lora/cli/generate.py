"""`spf-lora generate`: draw pictures with the base and any adapters at any strength."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spf_lora.atomic import check_writable, write_bytes
from spf_lora.cli import out
from spf_lora.cli.acting import (
    Exact,
    Local,
    StartPercent,
    check_local,
    check_start,
    starts_of,
)
from spf_lora.cli.quiet import hush
from spf_lora.documents import is_unicode
from spf_lora.errors import AdapterFileError, PromptError

if TYPE_CHECKING:
    from spf_lora.adapters.format.adapter_file import Adapter
    from spf_lora.base.load import Base


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


def check_base(adapter: "Adapter", base: "Base", path: Path) -> None:
    """Refuse an adapter whose card says it was trained on another base.

    Raises:
        AdapterFileError: it was.
    """
    from spf_lora.adapters.format.card import from_metadata

    card = from_metadata(adapter.metadata)
    if card is not None and card.base_id and card.base_id != base.id:
        raise AdapterFileError(
            f"{path} was trained on the base {card.base_id}, but {base.name} is {base.id}",
            hint="name the base it was trained on with --base, or train it again on this one",
        )


def _draw(
    prompt: str,
    asked: list[tuple[Path, float]],
    spec: tuple[str, str | None],
    seeds: range,
    steps: int,
    guidance: float,
    exact: bool,
    local: bool,
    start_percent: str,
) -> bytes:
    hush()
    import io

    from spf_lora.adapters.format.adapter_file import read_adapter
    from spf_lora.adapters.format.card import from_metadata
    from spf_lora.base.load import load_base
    from spf_lora.base.texts import cut_off
    from spf_lora.draw.act import acting, draw
    from spf_lora.draw.prompts import asking, taught, words_of
    from spf_lora.draw.sample import contact_sheet

    paths = [path for path, _ in asked]
    adapters = [read_adapter(path) for path in paths]
    model = load_base(spec[0], tokenizer=spec[1])
    for path, adapter in zip(paths, adapters, strict=True):
        check_base(adapter, model, path)
    if lost := cut_off(model.tokenizer, prompt):
        out.warn(f"the prompt is longer than 77 tokens; this was cut off: {lost!r}")
    starts = starts_of(start_percent, [from_metadata(one.metadata) for one in adapters], paths)
    attributes = [taught(one) for one in adapters]
    for path, start, attribute in zip(paths, starts, attributes, strict=True):
        if start and attribute is None:
            out.warn(f"{path} does not say which words ask for it: they act from the first step")
    needed = zip(adapters, paths, strict=True) if exact or local else ()
    words = [words_of(adapter, str(path)) for adapter, path in needed]
    rows = [(one, strength) for one, (_, strength) in zip(adapters, asked, strict=True)]
    acts = acting(rows, start_percent=starts, words=words if exact else (), local=local)
    asks = asking(prompt, attributes, starts, local=local)
    if local:
        for attribute in filter(None, attributes):
            check_local(attribute)
        if asks.within == prompt:
            out.warn("the prompt asks for no adapter: this is the base's picture")
    pictures = draw(model, [asks] * len(seeds), list(seeds), acts, steps=steps, guidance=guidance)
    columns = min(len(pictures), 8)
    rows_of_pictures = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    buffer = io.BytesIO()
    contact_sheet(rows_of_pictures).save(buffer, "PNG")
    return buffer.getvalue()
