"""Try: one prompt three ways from one noise."""

from typing import Any

import gradio as gr

from spf_lora.errors import SpfError
from spf_lora.studio import view, work
from spf_lora.studio.drawing import LATEST, MOST_PICTURES, STRONGEST, WEAKEST, Asked, Chosen, Desk

_SLOTS = 3
_NONE = "none"
_PROMPT = "a portrait of a person, tan skin, black hair, a bob, a beard"


def try_tab(page: gr.Blocks, tab: gr.Tab, desk: Desk) -> gr.HTML:
    """Lay the tab out; return what shows the pictures."""
    prompt = gr.Textbox(_PROMPT, label="Prompt", lines=2, elem_id="spf-prompt")
    slots: list[Any] = []
    with gr.Row():
        slots += _slot(1)
    with gr.Accordion("More adapters", open=False):
        for number in range(2, _SLOTS + 1):
            with gr.Row():
                slots += _slot(number)
    with gr.Row():
        seed = gr.Number(1, label="First seed", precision=0, minimum=0)
        count = gr.Slider(1, MOST_PICTURES, 4, step=1, label="Pictures")
        local = gr.Checkbox(True, label="Draw locally too")
    with gr.Accordion("Sampler", open=False), gr.Row():
        steps = gr.Slider(1, 100, 25, step=1, label="Steps")
        guidance = gr.Slider(0, 20, 3, step=0.5, label="Guidance scale")
    with gr.Row():
        go = gr.Button("Draw", variant="primary", elem_id="spf-draw")
        cancel = gr.Button("Cancel", elem_id="spf-cancel")
    pictures = gr.HTML(elem_id="spf-pictures")
    same = gr.Code(label="The same as commands", language="shell", interactive=False, visible=False)

    def draw(
        values: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # gradio looks for it there
    ) -> tuple[Any, Any]:
        rows = zip(slots[::3], slots[1::3], slots[2::3], strict=True)
        chosen = [
            Chosen(str(values[name]), float(values[strength]), float(values[start]))
            for name, strength, start in rows
        ]
        asked = Asked(
            prompt=str(values[prompt]),
            adapters=tuple(one for one in chosen if one.name != _NONE),
            seed=int(values[seed] or 0),
            count=int(values[count]),
            steps=int(values[steps]),
            guidance=float(values[guidance]),
            local=bool(values[local]),
        )
        progress(0, desc="drawing")
        try:
            drawn = desk.draw(
                asked,
                str(request.session_hash),
                lambda done, total: progress((done, total), desc="drawing"),
            )
        except SpfError as fault:
            return view.error(fault), gr.skip()
        commands = "\n".join(drawn.commands.values())
        return view.row(drawn), gr.Code(commands, visible=bool(commands))

    def stop(request: gr.Request) -> None:
        desk.cancel(str(request.session_hash))

    def refresh() -> list[Any]:
        names = work.adapter_names()
        first = "beard" if "beard" in names else _NONE
        return [
            gr.Dropdown(choices=[_NONE, *names], value=_NONE if at else first)
            for at in range(_SLOTS)
        ]

    def again() -> list[Any]:  # others may have come meanwhile; what was chosen stays
        names = [_NONE, *work.adapter_names()]
        return [gr.Dropdown(choices=names) for _ in range(_SLOTS)]

    inputs = {prompt, seed, count, steps, guidance, local, *slots}
    gr.on(
        [go.click, prompt.submit],
        draw,
        inputs,
        [pictures, same],
        concurrency_id="model",
        concurrency_limit=1,
        show_progress_on=[pictures],
    )
    cancel.click(stop, queue=False, show_progress="hidden")
    page.load(refresh, outputs=slots[::3], show_progress="hidden")
    tab.select(again, outputs=slots[::3], show_progress="hidden")
    return pictures


def _slot(number: int) -> list[Any]:
    """Return an adapter's name, its strength, and when it begins."""
    return [
        gr.Dropdown(
            [_NONE], value=_NONE, label=f"Adapter {number}", elem_id=f"spf-adapter-{number}"
        ),
        gr.Slider(WEAKEST, STRONGEST, 1, step=0.05, label=f"Strength {number}"),
        gr.Slider(0, LATEST, 0, step=0.05, label=f"Start {number} (share of steps)"),
    ]
