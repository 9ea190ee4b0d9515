"""Measure: what is on screen at once, the full report as a job, and how a stack's parts meet."""

from typing import Any

import gradio as gr

from spf_lora.errors import SpfError
from spf_lora.studio import jobs, view, work
from spf_lora.studio.drawing import Desk
from spf_lora.studio.job_panel import job_panel, shown_job
from spf_lora.studio.jobs import Job


def measure_tab(page: gr.Blocks, desk: Desk, pictures: gr.HTML) -> None:
    """Lay the tab out.

    Args:
        page: the whole page.
        desk: what draws.
        pictures: changes when a row is drawn.
    """
    gr.Markdown("### The pictures on screen")
    live = gr.HTML(view.measured(None), elem_id="spf-live")
    gr.Markdown("### The full report")
    with gr.Row():
        adapter = gr.Dropdown([], label="Adapter to report on", elem_id="spf-report-adapter")
        quick = gr.Checkbox(True, label="Quick: 16 prompts, 2 seeds")
        report = gr.Button("Make the report", variant="primary", elem_id="spf-report")
    with gr.Row():
        stack = gr.Dropdown([], label="Stack", elem_id="spf-stack")
        talk = gr.Button("Measure the stack's cross-talk", elem_id="spf-crosstalk")
    refused = gr.HTML()
    panel = job_panel("measure", ("evaluate", "stack", "compare"), _result)
    cell = gr.HTML(elem_id="spf-cell")

    def shown(request: gr.Request) -> str:
        return view.measured(desk.shown(str(request.session_hash)))

    def begin(start: Any) -> Any:
        def clicked(*values: Any) -> tuple[Any, str]:
            try:
                return shown_job(start(*values)), ""
            except SpfError as fault:
                return gr.skip(), view.error(fault)

        return clicked

    def clicked(chosen: str | None, event: gr.EventData) -> str:
        try:
            table = work.cross_talk(jobs.find(str(chosen)))
        except SpfError as fault:
            return view.error(fault)
        return _pair(table, str(event.cell)) if table else ""

    pictures.change(shown, outputs=live, show_progress="hidden")
    report.click(
        begin(lambda name, few: work.measure(str(name), desk.name, quick=bool(few))),
        [adapter, quick],
        [panel.choice, refused],
    )
    talk.click(
        begin(lambda name: work.measure_stack(str(name), desk.name)),
        stack,
        [panel.choice, refused],
    )
    panel.choice.change(lambda: "", outputs=cell, show_progress="hidden")
    panel.status.click(clicked, panel.choice, cell, show_progress="hidden")

    def refresh() -> list[Any]:
        return [
            gr.Dropdown(choices=names, value=names[0] if names else None)
            for names in (work.adapter_names(), work.stacks())
        ]

    page.load(refresh, outputs=[adapter, stack], show_progress="hidden")


def _result(job: Job) -> str:
    """Return the report's page, a stack's matrix, or what a comparison printed."""
    if job.state() != "done":
        return ""
    if job.kind == "stack":
        table = work.cross_talk(job)
        return view.matrix(table["adapters"], table["cross_talk"]) if table else ""
    if job.kind == "compare":
        return view.pre(job.result())
    return view.page(work.document(job), job.title)


def _pair(table: dict[str, Any], cell: str) -> str:
    """Return what is known of two adapters, of "i,j" that a page sent."""
    i, _, j = cell.partition(",")
    names = table["adapters"]
    if not (i.isdecimal() and j.isdecimal() and int(i) < len(names) and int(j) < len(names)):
        return ""
    one, other = int(i), int(j)
    value = table["cross_talk"][one][other]
    rows = [
        [
            f"how much more of {names[one]} there is when {names[other]} is asked for",
            f"{value:+.3f}",
        ]
    ]
    rows += [
        [f"overlap of their weights: {name}", f"{number:.3f}"]
        for name, number in table["overlap"][one][other].items()
    ]
    return view.table((f"{names[one]} and {names[other]}", ""), rows)
