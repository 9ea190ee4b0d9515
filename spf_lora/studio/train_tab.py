"""Train: look at the pictures, fill in the recipe, estimate, start, watch, keep the best step."""

from itertools import groupby
from typing import Any

import gradio as gr

from spf_lora.api import load_recipe
from spf_lora.errors import SpfError
from spf_lora.studio import form, jobs, view, work
from spf_lora.studio.form import Field
from spf_lora.studio.job_panel import job_panel, shown_job
from spf_lora.studio.jobs import Job

_WORLD, _FOLDER = "the portrait world", "a folder of pictures with captions"


def train_tab(page: gr.Blocks, base: str) -> None:
    """Lay the tab out."""
    with gr.Row():
        attribute = gr.Dropdown(
            form.attributes(), value="beard", label="Attribute", elem_id="spf-attribute"
        )
        source = gr.Radio([_WORLD, _FOLDER], value=_WORLD, label="Pictures", elem_id="spf-source")
    with gr.Row(visible=False) as of_folder:
        folder = gr.Textbox(label="Folder on this machine", elem_id="spf-folder", scale=3)
        skip = gr.Checkbox(False, label="Leave faulty pictures out")
        check = gr.Button("Check the pictures", elem_id="spf-check")
    checked = gr.HTML(elem_id="spf-checked")
    known = form.fields()
    parts = dict.fromkeys(known)
    gr.Markdown("### Recipe")
    with gr.Row():
        for field in known:
            if field.key in form.BASIC:
                parts[field] = _part(field)
    with gr.Accordion("All other keys", open=False):
        folded = [field for field in known if field.key not in form.BASIC]
        for section, many in groupby(folded, key=lambda field: field.section):
            gr.Markdown(f"**{section}**")
            with gr.Row():
                for field in many:
                    parts[field] = _part(field)
    filled = list(parts.values())
    with gr.Row():
        every = gr.Number(
            50,
            label="Keep an adapter and draw samples every N steps; 0: never",
            precision=0,
            minimum=0,
        )
        estimate = gr.Button("Estimate time and memory", elem_id="spf-estimate")
        start = gr.Button("Start training", variant="primary", elem_id="spf-train")
    told = gr.HTML(elem_id="spf-told")
    panel = job_panel("train", ("train",), _result)
    with gr.Row():
        best = gr.Button("Compare the kept steps", elem_id="spf-best")
        which = gr.Textbox("finished", label="Adapter to keep: finished, or step N")
        name = gr.Textbox(label="Name to keep it by", elem_id="spf-keep-name")
        keep = gr.Button("Keep it in the registry", elem_id="spf-keep")
    kept = gr.HTML(elem_id="spf-kept")

    def show_folder(chosen: str) -> Any:
        return gr.Row(visible=chosen == _FOLDER)

    def fill(chosen: str) -> Any:
        if chosen not in form.attributes():
            return [gr.skip()] * len(filled)
        return form.values(load_recipe(chosen))

    def look(path: str, chosen: str) -> str:
        try:
            return view.folder_report(*work.check_folder(path, chosen, base))
        except SpfError as fault:
            return view.error(fault)

    def _pictures(chosen_source: str, path: str) -> str:
        if chosen_source == _FOLDER and not path.strip():
            raise SpfError("no folder is named", hint="write its whole path")
        return path if chosen_source == _FOLDER else ""

    def plan(chosen: str, of: str, path: str, *values: Any) -> str:
        try:
            return view.pre(work.estimate(chosen, values, _pictures(of, path), base))
        except SpfError as fault:
            return view.error(fault)

    def begin(
        chosen: str, of: str, path: str, leave: bool, steps: float | None, *values: Any
    ) -> tuple[Any, str]:
        try:
            pictures, each = _pictures(of, path), max(0, int(steps or 0))
            job = work.train(chosen, values, pictures, base, keep_every=each, skip=leave)
        except SpfError as fault:
            return gr.skip(), view.error(fault)
        return shown_job(job), ""

    def compare(chosen: str | None) -> str:
        try:
            job = work.compare_steps(jobs.find(str(chosen)), base)
        except SpfError as fault:
            return view.error(fault)
        return view.note(f"started: {job.title}; its table is in Measure")

    def keeping(chosen: str | None, label: str, called: str) -> str:
        try:
            entry = work.keep(jobs.find(str(chosen)), label.strip(), called.strip())
        except SpfError as fault:
            return view.error(fault)
        return view.note(f"kept as {entry.name}: it can be chosen in Try")

    source.change(show_folder, source, of_folder, show_progress="hidden")
    attribute.input(fill, attribute, filled, show_progress="hidden")
    page.load(fill, attribute, filled, show_progress="hidden")
    check.click(look, [folder, attribute], checked)
    estimate.click(plan, [attribute, source, folder, *filled], told)
    start.click(begin, [attribute, source, folder, skip, every, *filled], [panel.choice, told])
    best.click(compare, panel.choice, kept)
    keep.click(keeping, [panel.choice, which, name], kept)


def _part(field: Field) -> Any:
    """Return the control of one key."""
    label, name = field.key, f"spf-{field.key.replace('.', '-').replace('_', '-')}"
    about: dict[str, Any] = {"label": label, "info": field.note, "elem_id": name, "min_width": 160}
    if field.kind == "choice":
        return gr.Dropdown(list(field.choices), **about)
    if field.kind == "switch":
        return gr.Checkbox(**about)
    if field.kind in ("whole", "number"):
        whole = 0 if field.kind == "whole" else None
        return gr.Number(precision=whole, minimum=field.low, maximum=field.high, **about)
    return gr.Textbox(**about)


def _result(job: Job) -> str:
    """Return what a training has drawn, the last sheet first, and which adapters it has kept."""
    sheets = work.sheets(job)
    labels = ", ".join(work.candidates(job))
    pictures = "".join(view.picture(one, name) for name, one in list(sheets.items())[:2])
    return view.note(f"adapters so far: {labels}" if labels else "") + pictures
