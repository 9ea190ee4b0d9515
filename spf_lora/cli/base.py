"""`spf-lora base`: look at a base model before training on it."""

import dataclasses
from typing import Annotated

import typer

from spf_lora.cli import out
from spf_lora.cli.options import Json
from spf_lora.cli.out import printable
from spf_lora.cli.quiet import hush

app = typer.Typer(help="Look at base models.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    return


@app.command()
def inspect(
    base: Annotated[
        str,
        typer.Argument(help="`embedded`, a folder in diffusers layout, a .safetensors, a hub id."),
    ] = "embedded",
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of the tokenizer; a checkpoint has none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Load a base as training would, and show what it is; what is no SD 1.x is refused by name."""
    hush()
    from spf_lora.base.facts import LAYOUTS, base_facts

    facts = base_facts(base, tokenizer=tokenizer)
    if as_json:
        out.show_json(dataclasses.asdict(facts))
        return
    counts = ", ".join(f"{part} {count / 1e6:.1f} M" for part, count in facts.parameters.items())
    lines = {
        "id": facts.id,
        "origin": facts.origin,
        "layout": LAYOUTS[facts.layout],
        "weights": counts,
        "text": f"{facts.text_width} wide, {facts.prompt_tokens} tokens of {facts.vocabulary}",
        "pictures": f"{facts.resolution} px, latents {facts.latent_side} x {facts.latent_side}",
        "predicts": facts.prediction,
    }
    out.show(printable(facts.base))
    for label, text in lines.items():
        out.show(f"  {label:<12} {printable(text)}")
