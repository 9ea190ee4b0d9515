"""`spf-lora comfyui`: our nodes in a ComfyUI."""

from pathlib import Path
from typing import Annotated

import typer

from spf_lora.cli import out

app = typer.Typer(help="Nodes for ComfyUI.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    return


@app.command()
def install(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The folder with ComfyUI's main.py.")
    ],
    link: Annotated[
        bool, typer.Option("--link", help="Link the files, to develop the nodes.")
    ] = False,
) -> None:
    """Put our nodes into ComfyUI, or the newer ones in the place of the older."""
    from spf_lora.apps.comfyui.install import install as write

    out.show(str(write(path, link=link)))
    out.say("restart ComfyUI; the nodes are in the category spf-lora")
