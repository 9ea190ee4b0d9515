"""The page: four tabs, served to this machine alone."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

# read when gradio is imported: no telemetry, no look for a newer version
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from spf_lora.studio import jobs, view
from spf_lora.studio.clean_tab import clean_tab
from spf_lora.studio.drawing import Desk
from spf_lora.studio.measure_tab import measure_tab
from spf_lora.studio.train_tab import train_tab
from spf_lora.studio.try_tab import try_tab
from spf_lora.studio.uploads import MOST_BYTES

HOST = "127.0.0.1"
_MOST_ASKED = 4 << 20  # bytes of anything but a file
_NAMES = ["127.0.0.1", "localhost"]
_SYSTEM, _MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
# whatever a page asks for comes from this server; the browser refuses the rest
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'"
)


def build(desk: Desk) -> gr.Blocks:
    """Return the page.

    Args:
        desk: draws for it.
    """
    with gr.Blocks(title="spf-lora studio", analytics_enabled=False) as page:
        gr.HTML(view.head(desk.name))
        with gr.Tabs():
            with gr.Tab("Try", id="try") as tab:
                tried = try_tab(page, tab, desk)
            with gr.Tab("Measure", id="measure"):
                measure_tab(page, desk, tried)
            with gr.Tab("Train", id="train"):
                train_tab(page, desk.name)
            with gr.Tab("Clean", id="clean"):
                clean_tab(desk.name)
        with gr.Accordion("All jobs, one at a time", open=False):
            every = gr.HTML(elem_id="spf-queue")
        timer = gr.Timer(3)
        timer.tick(_queue, outputs=every, show_progress="hidden")
        page.load(_queue, outputs=every, show_progress="hidden")
    page.queue(default_concurrency_limit=4, max_size=64, api_open=False)
    return page


def _queue() -> str:
    states = [(job, job.state()) for job in jobs.jobs()[-50:]]
    jobs.wake([state for _, state in states])
    return view.queue(states)


def served(desk: Desk, uploads: Path) -> FastAPI:
    """Return the application that serves the page.

    Args:
        desk: draws for its pages.
        uploads: where the files of this server's pages lie; nothing else is served.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_NAMES)
    app.add_middleware(BaseHTTPMiddleware, dispatch=_guarded)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        build(desk),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        theme=gr.themes.Default(font=_SYSTEM, font_mono=_MONO).set(
            block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300"
        ),
        css_paths=Path(__file__).with_name("studio.css"),
        head='<meta name="referrer" content="no-referrer">',
    )
    return mounted


async def _guarded(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Refuse other sites, and what is too large to read; tell the browser to ask nobody else."""
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if request.headers.get("origin", own) != own:
        return Response("another site may not ask", status_code=403)
    most = MOST_BYTES + _MOST_ASKED if request.url.path.endswith("/upload") else _MOST_ASKED
    length = request.headers.get("content-length", "")
    if request.method == "POST" and not (length.isdecimal() and int(length) <= most):
        return Response("too large", status_code=413)
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def serve(desk: Desk, port: int) -> None:
    """Serve the page until it is stopped; jobs go on without it.

    Args:
        desk: draws for its pages.
        port: of the local address.
    """
    with TemporaryDirectory(prefix="spf-lora-studio-") as uploads:
        application = served(desk, Path(uploads))
        uvicorn.run(application, host=HOST, port=port, log_level="warning", access_log=False)
