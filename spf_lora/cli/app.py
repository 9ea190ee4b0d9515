"""The command line's one entry: registers the commands, turns errors into text and exit codes."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from spf_lora import __version__
from spf_lora.cli import adapters, base, comfyui, data, out, portraits, recipe, stack
from spf_lora.cli.attributes import attributes
from spf_lora.cli.audit import audit
from spf_lora.cli.card import card
from spf_lora.cli.clean import clean
from spf_lora.cli.convert import convert
from spf_lora.cli.evaluate import compare, evaluate
from spf_lora.cli.generate import generate
from spf_lora.cli.hub import pull, push
from spf_lora.cli.inspect import inspect
from spf_lora.cli.merge import merge
from spf_lora.cli.metadata import metadata
from spf_lora.cli.resize import resize
from spf_lora.cli.stack_report import report
from spf_lora.cli.studio import studio
from spf_lora.cli.train import train
from spf_lora.cli.verify import verify
from spf_lora.errors import SpfError
from spf_lora.signals import Stopped, ending_politely

app = typer.Typer(
    name="spf-lora",
    help="Train, measure, stack and merge attribute LoRAs for Stable Diffusion 1.5.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"spf-lora {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    return


app.command()(train)
app.command()(clean)
app.command()(audit)
app.command()(generate)
app.command()(evaluate)
app.command()(compare)
app.command()(attributes)
app.add_typer(recipe.app, name="recipe")
app.add_typer(data.app, name="data")
app.add_typer(portraits.app, name="portraits")
app.add_typer(base.app, name="base")
app.add_typer(adapters.app, name="adapters")
stack.app.command()(report)
app.add_typer(stack.app, name="stack")
app.add_typer(comfyui.app, name="comfyui")
app.command()(inspect)
app.command()(verify)
app.command()(convert)
app.command()(resize)
app.command()(merge)
app.command()(metadata)
app.command()(card)
app.command()(push)
app.command()(pull)
app.command()(studio)


def main() -> None:
    """Run the command line; an `SpfError` becomes one sentence, a hint and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        try:
            with ending_politely():
                app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except SpfError as error:
        _end(error)
    except OSError as error:
        if error.filename is None:  # if it was stdout, it must not be tried again at the end
            with suppress(OSError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # whoever read it has seen enough
            sys.exit(1)
        _end(_refused(error))
    except Stopped as stopped:
        out.say("stopped")
        sys.exit(stopped.exit_code)


def _end(error: SpfError) -> NoReturn:
    out.say(f"error: {error.message}")
    out.say(f"hint: {error.hint}")
    sys.exit(error.exit_code)


def _refused(error: OSError) -> SpfError:
    """Return what to tell where the system refused a path or stdout and no command said so."""
    what = "" if error.filename is None else f"{error.filename}: "
    return SpfError(
        f"{what}{error.strerror or error}",
        hint="look at the path, its permissions and the room on its disk",
    )
