"""A stack as a ComfyUI workflow, of stock nodes or of ours, in both of ComfyUI's formats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from spf_lora.apps.stacks import StackedLora, stacked
from spf_lora.atomic import check_writable, write_text
from spf_lora.registry.stack import Known

CHECKPOINT = "v1-5-pruned-emaonly.safetensors"
_WIDTH, _GAP, _TITLE, _SOCKET, _WIDGET = 320, 60, 30, 20, 24  # of nodes on the page, in pixels
_MORE = {"CLIPTextEncode": 80, "SaveImage": 260, "MaskPreview": 280}  # height of text and pictures


class Kind(NamedTuple):
    """A kind of node: its sockets and widgets, in ComfyUI's order.

    Attributes:
        sockets: inputs that take links, with their types.
        widgets: names of the others.
        outputs: types of what it puts out.
    """

    sockets: tuple[tuple[str, str], ...]
    widgets: tuple[str, ...]
    outputs: tuple[str, ...]


_COND = "CONDITIONING"
KINDS: dict[str, Kind] = {
    "CheckpointLoaderSimple": Kind((), ("ckpt_name",), ("MODEL", "CLIP", "VAE")),
    "CLIPTextEncode": Kind((("clip", "CLIP"),), ("text",), (_COND,)),
    "CreateHookLora": Kind(
        (("prev_hooks", "HOOKS"),), ("lora_name", "strength_model", "strength_clip"), ("HOOKS",)
    ),
    "CreateHookKeyframe": Kind(
        (("prev_hook_kf", "HOOK_KEYFRAMES"),),
        ("strength_mult", "start_percent"),
        ("HOOK_KEYFRAMES",),
    ),
    "SetHookKeyframes": Kind((("hooks", "HOOKS"), ("hook_kf", "HOOK_KEYFRAMES")), (), ("HOOKS",)),
    "CombineHooks2": Kind((("hooks_A", "HOOKS"), ("hooks_B", "HOOKS")), (), ("HOOKS",)),
    "ConditioningSetProperties": Kind(
        (
            ("cond_NEW", _COND),
            ("mask", "MASK"),
            ("hooks", "HOOKS"),
            ("timesteps", "TIMESTEPS_RANGE"),
        ),
        ("strength", "set_cond_area"),
        (_COND,),
    ),
    "ConditioningSetTimestepRange": Kind((("conditioning", _COND),), ("start", "end"), (_COND,)),
    "ConditioningCombine": Kind(
        (("conditioning_1", _COND), ("conditioning_2", _COND)), (), (_COND,)
    ),
    "EmptyLatentImage": Kind((), ("width", "height", "batch_size"), ("LATENT",)),
    "KSampler": Kind(
        (("model", "MODEL"), ("positive", _COND), ("negative", _COND), ("latent_image", "LATENT")),
        ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
        ("LATENT",),
    ),
    "VAEDecode": Kind((("samples", "LATENT"), ("vae", "VAE")), (), ("IMAGE",)),
    "SaveImage": Kind((("images", "IMAGE"),), ("filename_prefix",), ()),
    "SpfLoraLocal": Kind(
        (("model", "MODEL"), ("base", _COND), ("full", _COND)),
        ("lora_name", "strength", "start_percent", "end_percent", "area_cap", "map_steps"),
        ("MODEL",),
    ),
    "SpfLoraLocalMap": Kind((("model", "MODEL"), ("samples", "LATENT")), (), ("MASK",)),
    "MaskPreview": Kind((("mask", "MASK"),), (), ()),
}


class Output(NamedTuple):
    """One output of a node."""

    node: int
    slot: int = 0


@dataclass
class Graph:
    """Nodes in the order they were added: kind and inputs, which are links or values."""

    nodes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def add(self, kind: str, **inputs: Any) -> Output:
        """Add a node and return its first output."""
        self.nodes.append((kind, inputs))
        return Output(len(self.nodes))

    def api(self) -> dict[str, Any]:
        """Return what the server's /prompt takes."""
        return {
            str(at): {
                "class_type": kind,
                "inputs": {
                    name: [str(value.node), value.slot] if isinstance(value, Output) else value
                    for name, value in inputs.items()
                },
            }
            for at, (kind, inputs) in enumerate(self.nodes, 1)
        }

    def ui(self) -> dict[str, Any]:
        """Return what the browser page opens."""
        links: list[list[Any]] = []
        nodes = [self._shown(at, *node, links) for at, node in enumerate(self.nodes, 1)]
        self._lay_out(nodes)
        for link, source, slot, *_ in links:
            nodes[source - 1]["outputs"][slot]["links"].append(link)
        return {
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _lay_out(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Put each node right of all that it reads from, below the others there."""
        columns: list[int] = []  # of each node
        ends: dict[int, int] = {}  # of each column, the height that is taken
        for shown, (_, inputs) in zip(nodes, self.nodes, strict=True):
            sources = [one for one in inputs.values() if isinstance(one, Output)]
            column = max((columns[one.node - 1] + 1 for one in sources), default=0)
            columns.append(column)
            top = ends.get(column, 0)
            shown["pos"] = [column * (_WIDTH + _GAP), top]
            ends[column] = top + shown["size"][1] + _TITLE + _GAP

    def _shown(
        self, at: int, kind: str, inputs: Mapping[str, Any], links: list[list[Any]]
    ) -> dict[str, Any]:
        sockets, widgets, outputs = KINDS[kind]
        rows = []
        for slot, (name, type_) in enumerate(sockets):
            row: dict[str, Any] = {"name": name, "type": type_, "link": None}
            if source := inputs.get(name):
                row["link"] = len(links) + 1
                links.append([len(links) + 1, source.node, source.slot, at, slot, type_])
            rows.append(row)
        values: list[Any] = []
        for name in widgets:  # the page has a menu behind a seed: what becomes of it after a run
            values += [inputs[name], "fixed"] if name == "seed" else [inputs[name]]
        height = _SOCKET * max(len(sockets), len(outputs)) + _WIDGET * len(values)
        return {
            "id": at,
            "type": kind,
            "pos": [0, 0],
            "size": [_WIDTH, height + _MORE.get(kind, 0) + _SOCKET],
            "flags": {},
            "order": at - 1,
            "mode": 0,
            "inputs": rows,
            "outputs": [{"name": one, "type": one, "links": []} for one in outputs],
            "properties": {"Node name for S&R": kind},
            "widgets_values": values,
        }


def write_workflows(
    members: Sequence[tuple[Known, float]],
    target: Path,
    prompt: str,
    *,
    local: bool,
    overwrite: bool,
) -> tuple[Path, Path]:
    """Write a stack's workflow for ComfyUI's page, and one for its server beside it.

    Args:
        members: the stack's adapters.
        target: the page's file; the server's has `.api` before its suffix.
        prompt: without what any adapter adds.
        local: whether it is of our nodes.
        overwrite: replace the files.

    Raises:
        OutputError: a file is there already, or cannot be written.
    """
    graph = (local_graph if local else stock_graph)(stacked(members), prompt)
    files = target, target.with_suffix(f".api{target.suffix}")
    for file in files:
        check_writable(file, overwrite=overwrite)
    for file, table in zip(files, (graph.ui(), graph.api()), strict=True):
        write_text(file, json.dumps(table, indent=1) + "\n", overwrite=overwrite)
    return files


def stock_graph(loras: Sequence[StackedLora], prompt: str) -> Graph:
    """Return a graph of ComfyUI's own nodes: LoRAs as hooks on both conditionings.

    Args:
        loras: of the stack.
        prompt: without what any of them adds.
    """
    graph = Graph()
    model = _checkpoint(graph)
    hooks: Output | None = None
    for one in loras:
        own = graph.add(
            "CreateHookLora",
            lora_name=one.file,
            strength_model=one.strength,
            strength_clip=one.strength,
        )
        if one.start:
            none = graph.add("CreateHookKeyframe", strength_mult=0.0, start_percent=0.0)
            frames = graph.add(
                "CreateHookKeyframe",
                strength_mult=1.0,
                start_percent=one.start,
                prev_hook_kf=none,
            )
            own = graph.add("SetHookKeyframes", hooks=own, hook_kf=frames)
        hooks = own if hooks is None else graph.add("CombineHooks2", hooks_A=hooks, hooks_B=own)
    positive = _words(graph, loras, prompt)
    negative = _text(graph, "")
    positive, negative = (
        graph.add(
            "ConditioningSetProperties",
            cond_NEW=one,
            strength=1.0,
            set_cond_area="default",
            hooks=hooks,
        )
        for one in (positive, negative)
    )
    _picture(graph, model, positive, negative)
    return graph


def local_graph(loras: Sequence[StackedLora], prompt: str) -> Graph:
    """Return a graph of our nodes: a LoRA Local for each, and the map of them all."""
    graph = Graph()
    model = _checkpoint(graph)
    base = _text(graph, prompt)
    for one in loras:
        full = _text(graph, asking(prompt, [one]))
        model = graph.add(
            "SpfLoraLocal",
            model=model,
            base=base,
            full=full,
            lora_name=one.file,
            strength=one.strength,
            start_percent=one.start,
            end_percent=1.0,
            area_cap=0.6,
            map_steps=0,
        )
    positive = full if len(loras) == 1 else _text(graph, asking(prompt, loras))
    samples = _picture(graph, model, positive, _text(graph, ""))
    where = graph.add("SpfLoraLocalMap", model=model, samples=samples)
    graph.add("MaskPreview", mask=where)
    return graph


def asking(prompt: str, loras: Sequence[StackedLora]) -> str:
    """Return a prompt with the words that ask for these."""
    return ", ".join([prompt, *(one.words for one in loras if one.words)])


def _checkpoint(graph: Graph) -> Output:
    return graph.add("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)


def _text(graph: Graph, text: str) -> Output:
    return graph.add("CLIPTextEncode", clip=Output(1, 1), text=text)


def _words(graph: Graph, loras: Sequence[StackedLora], prompt: str) -> Output:
    """Return the prompt's conditioning, of which each LoRA's words begin when it does."""
    moments = [0.0, *sorted({one.start for one in loras if one.start}), 1.0]
    spans = []
    for start, end in pairwise(moments):
        text = _text(graph, asking(prompt, [one for one in loras if one.start <= start]))
        if len(moments) > 2:
            text = graph.add(
                "ConditioningSetTimestepRange", conditioning=text, start=start, end=end
            )
        spans.append(text)
    whole = spans[0]
    for span in spans[1:]:
        whole = graph.add("ConditioningCombine", conditioning_1=whole, conditioning_2=span)
    return whole


def _picture(graph: Graph, model: Output, positive: Output, negative: Output) -> Output:
    """Add what draws, and return the latents."""
    samples = graph.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=graph.add("EmptyLatentImage", width=512, height=512, batch_size=1),
        seed=1,
        steps=25,
        cfg=7.0,
        sampler_name="ddim",
        scheduler="ddim_uniform",
        denoise=1.0,
    )
    image = graph.add("VAEDecode", samples=samples, vae=Output(1, 2))
    graph.add("SaveImage", images=image, filename_prefix="spf-lora")
    return samples
