"""`spf-lora studio`: the same in a browser, on this machine alone."""

from importlib.util import find_spec
from typing import Annotated, Literal

import typer

from spf_lora.cli import out
from spf_lora.errors import SpfError


def studio(
    base: Annotated[
        str, typer.Option(help="`embedded`, a diffusers folder, a .safetensors or a hub id.")
    ] = "embedded",
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Of the local address.")] = 7860,
    share: Annotated[
        Literal["never"], typer.Option(help="Nobody else sees the page; there is no other value.")
    ] = "never",
) -> None:
    """Open a page to try, measure, train and clean adapters in a browser."""
    if find_spec("gradio") is None:
        raise SpfError(
            "the studio needs gradio, which is not installed",
            hint='pip install "spf-lora[studio]", or in a clone: pip install -e ".[studio]"',
        )
    _check_port(port)
    from spf_lora.cli.quiet import hush

    hush()
    from spf_lora.studio.app import HOST, serve
    from spf_lora.studio.drawing import Desk

    desk = Desk(base)
    out.say(f"{desk.base.name} is loaded")  # or refused, before there is a page
    out.say(f"studio: http://{HOST}:{port} (Ctrl-C ends it; jobs go on)")
    serve(desk, port)


def _check_port(port: int) -> None:
    """Refuse a port that another program has."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SpfError(
                f"port {port} is taken", hint=f"choose another: --port {port + 1}"
            ) from error
