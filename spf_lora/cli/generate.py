"""`spf-lora generate`: draw pictures with the base and any adapters at any strength."""

import re
from pathlib import Path
from typing import Annotated

import typer

from spf_lora.atomic import check_writable, numbered, write_bytes
from spf_lora.cli import out
from spf_lora.cli.acting import starts_of
from spf_lora.cli.options import (
    AS_USUAL,
    ActingOptions,
    Guidance,
    SamplerName,
    Steps,
    Tokenizer,
    with_groups,
)
from spf_lora.cli.quiet import hush
from spf_lora.documents import is_unicode
from spf_lora.errors import PromptError

_LARGEST = 4096  # pixels of a side


@with_groups
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Or many: a text file, one prompt a line.")
    ] = None,
    negative: Annotated[str, typer.Option(help="What to lead away from.")] = "",
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|NAME[:STRENGTH]", help="An adapter, as beard:1.0; repeatable."),
    ] = None,
    stack: Annotated[
        str | None, typer.Option(metavar="STACK", help="All adapters of a stack, before others.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Draw the base's pictures above, from the same noise.")
    ] = False,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT=A,B,...",
            help="Columns, and the second time rows: strength, adapter, seed, steps, guidance, "
            "sampler or start.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63, help="Of the first picture; the next has one more.")
    ] = 1,
    count: Annotated[
        int | None, typer.Option(min=1, max=256, help="Pictures of each prompt; 8 by default.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="PX|WxH", help="Of a picture; the base's by default.")
    ] = None,
    sampler: SamplerName = "ddim",
    steps: Steps = 25,
    guidance: Guidance = 3.0,
    base: Annotated[
        str, typer.Option(help="`embedded`, a diffusers folder, a .safetensors or a hub id.")
    ] = "embedded",
    tokenizer: Tokenizer = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A PNG; out/grid.png by default; one that is there is numbered."
        ),
    ] = None,
    act: ActingOptions = AS_USUAL,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
) -> None:
    """Draw pictures on one sheet; `spf-lora inspect` and A1111 read from it how they were drawn."""
    texts = _prompts(prompt, prompts, negative)
    pixels = _size(size) if size else None
    from spf_lora.draw.grid import Cell, lines_of, parse_axes
    from spf_lora.draw.schedulers import check_sampler

    check_sampler(sampler)
    adapters = (*_of_stack(stack), *(parse_adapter(text) for text in adapter or []))
    axes = parse_axes(grid or [])
    names = {axis.name for axis in axes}
    starts_of(act.start_percent, 1 if "adapter" in names else len(adapters))
    if "strength" in names and not adapters and "adapter" not in names:
        raise PromptError("a strength needs something to be strong", hint="name an --adapter")
    if axes and count not in (None, 1):
        raise PromptError(
            "a grid shows one picture of each kind", hint="leave --count out, or --grid seed=1,2,3"
        )
    target = out.place(output, "grid.png")
    check_writable(target, overwrite=True)
    cell = Cell("", seed, adapters, steps, guidance, sampler, act.start_percent)
    lines = lines_of(texts, cell, count or 8, axes, compare=compare, local=act.local)
    columns = axes[0].titles() if axes else ()
    hush()
    from spf_lora.cli.generate_sheet import Request, draw_sheet
    from spf_lora.draw.parameters import png

    request = Request(lines, columns, (base, tokenizer), negative, pixels, act.exact, act.local)
    picture, text = draw_sheet(request)
    path = target if force else numbered(target)
    write_bytes(path, png(picture, text), overwrite=force)
    out.show(str(path))


def _prompts(prompt: str | None, file: Path | None, negative: str) -> list[str]:
    if (prompt is None) == (file is None):
        raise PromptError(
            "there is no prompt" if prompt is None else "there are a prompt and a file of prompts",
            hint='write one: "a portrait of a person", or name a file: --prompts FILE',
        )
    for text in (prompt, negative):
        if text and not is_unicode(text):
            raise PromptError(f"the prompt {text!r} is no text in UTF-8", hint="write it anew")
    if file is not None:
        from spf_lora.data.prompt_file import read_prompt_lines

        return [line for _, line in read_prompt_lines(file)]
    if not prompt or not prompt.strip():
        raise PromptError("the prompt is empty", hint='write one: "a portrait of a person"')
    return [prompt]


def _size(text: str) -> tuple[int, int]:
    """Return width and height in pixels."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 8 <= min(width, height) <= max(width, height) <= _LARGEST:
        raise PromptError(
            f"the size {text!r} is none", hint="write it like --size 512 or --size 512x768"
        )
    return width, height


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
