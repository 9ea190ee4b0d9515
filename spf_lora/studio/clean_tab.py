"""Clean: drop a LoRA, see what it does and moves, clean it, compare."""

from pathlib import Path
from typing import Any

import gradio as gr

from spf_lora.errors import SpfError
from spf_lora.registry.names import find
from spf_lora.studio import jobs, uploads, view, work
from spf_lora.studio.job_panel import job_panel, shown_job
from spf_lora.studio.jobs import Job


def clean_tab(base: str) -> None:
    """Lay the tab out."""
    with gr.Row():
        dropped = gr.File(
            label="A LoRA file (.safetensors)", type="filepath", elem_id="spf-drop", height=140
        )
        named = gr.Textbox(label="Or a name of the registry", elem_id="spf-clean-name")
    target = gr.Textbox(
        label="What asks for it, where the file does not say",
        placeholder="a beard",
        elem_id="spf-target",
    )
    with gr.Row():
        look = gr.Button("See what it does", elem_id="spf-look")
        clean = gr.Button("Clean it", variant="primary", elem_id="spf-clean")
        compare = gr.Button("Compare before and after", elem_id="spf-compare")
    facts = gr.HTML(elem_id="spf-facts")
    panel = job_panel("clean", ("audit", "clean", "compare"), _result)
    with gr.Row():
        name = gr.Textbox(label="Name to keep the cleaned one by", elem_id="spf-clean-keep-name")
        keep = gr.Button("Keep it in the registry", elem_id="spf-clean-keep")
    kept = gr.HTML(elem_id="spf-clean-kept")

    def begin(start: Any) -> Any:
        def clicked(sent: str | None, known: str, words: str) -> tuple[Any, str]:
            try:
                file, title, told = _chosen(sent, known)
                return shown_job(start(file, title, base, words)), told
            except SpfError as fault:
                return gr.skip(), view.error(fault)

        return clicked

    def compared(chosen: str | None) -> tuple[Any, str]:
        try:
            return shown_job(work.compare_cleaned(jobs.find(str(chosen)), base)), ""
        except SpfError as fault:
            return gr.skip(), view.error(fault)

    def keeping(chosen: str | None, called: str) -> str:
        try:
            entry = work.keep(jobs.find(str(chosen)), "finished", called)
        except SpfError as fault:
            return view.error(fault)
        return view.note(f"kept as {entry.name}: it can be chosen in Try")

    def told(sent: str | None) -> str:
        if sent is None:
            return ""
        try:
            return _chosen(sent, "")[2]
        except SpfError as fault:
            return view.error(fault)

    dropped.change(told, dropped, facts)
    look.click(begin(work.audit), [dropped, named, target], [panel.choice, facts])
    clean.click(begin(work.clean), [dropped, named, target], [panel.choice, facts])
    compare.click(compared, panel.choice, [panel.choice, facts])
    keep.click(keeping, [panel.choice, name], kept)


def _chosen(sent: str | None, known: str) -> tuple[Path, str, str]:
    """Return the file to work on, what to call it, and what it is, as HTML."""
    if sent is not None:
        path, facts = uploads.take(Path(sent), jobs.home() / "uploads")
        return path, path.stem, view.facts(facts)
    if not known.strip():
        raise SpfError("there is no file", hint="drop one, or write a name of the registry")
    return find(known.strip()).path, known.strip(), ""


def _result(job: Job) -> str:
    """Return a cleaning's pictures, an audit's page, or what a comparison printed."""
    if job.kind == "clean":
        return "".join(view.picture(one, name) for name, one in work.sheets(job).items())
    if job.state() != "done":
        return ""
    return (
        view.pre(job.result())
        if job.kind == "compare"
        else view.page(work.document(job), job.title)
    )
