"""A tab's jobs: choose one, see how far it is, stop it, let it go on."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from spf_lora.errors import SpfError
from spf_lora.studio import jobs, view
from spf_lora.studio.jobs import Job

_EVERY = 2.0  # seconds
# a click on a cell of a matrix tells which
_CLICK = (
    "element.addEventListener('click', event => {"
    " const cell = event.target.closest('[data-cell]');"
    " if (cell) trigger('click', {cell: cell.dataset.cell}); });"
)


class Panel(NamedTuple):
    """What a tab uses of its panel."""

    choice: gr.Dropdown
    status: gr.HTML  # a click on a cell of a matrix has its name, `cell`


def job_panel(name: str, kinds: Sequence[str], result: Callable[[Job], str]) -> Panel:
    """Lay a panel out.

    Args:
        name: for element ids.
        kinds: commands whose jobs are shown.
        result: returns what a job has to show, as HTML.
    """
    with gr.Row():
        choice = gr.Dropdown([], label="Job", elem_id=f"spf-{name}-job", scale=3)
        stop = gr.Button("Stop", elem_id=f"spf-{name}-stop", scale=1)
        resume = gr.Button("Go on", elem_id=f"spf-{name}-resume", scale=1)
    status = gr.HTML(elem_id=f"spf-{name}-status", js_on_load=_CLICK)
    seen = gr.State("")

    def look(chosen: str | None, before: str) -> tuple[Any, Any, Any]:
        known = [job for job in jobs.jobs() if job.kind in kinds][::-1][:20]
        choices = [(f"{job.title} ({job.state()})", job.id) for job in known]
        if chosen not in {job.id for job in known}:
            chosen = known[0].id if known else None
        one = next((job for job in known if job.id == chosen), None)
        now = repr((choices, chosen, one and one.stamp()))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip()
        return gr.Dropdown(choices=choices, value=chosen), shown(one) if one else "", now

    def shown(one: Job) -> str:
        try:
            return view.job(one) + result(one)
        except SpfError as fault:
            return view.job(one) + view.error(fault)

    def act(what: Callable[[Job], None]) -> Callable[[str | None], Any]:
        def clicked(chosen: str | None) -> Any:
            try:
                what(jobs.find(str(chosen)))
            except SpfError as fault:
                return view.error(fault)
            return gr.skip()

        return clicked

    quiet: dict[str, Any] = {"show_progress": "hidden"}
    timer = gr.Timer(_EVERY)
    timer.tick(look, [choice, seen], [choice, status, seen], **quiet)
    choice.input(look, [choice, seen], [choice, status, seen], **quiet)
    stop.click(act(jobs.stop), choice, status, **quiet)
    resume.click(act(jobs.resume), choice, status, **quiet)
    return Panel(choice, status)


def shown_job(job: Job) -> Any:
    """Return the update that shows a new job in its panel's choice."""
    return gr.Dropdown(choices=[(job.title, job.id)], value=job.id)
