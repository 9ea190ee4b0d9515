"""A stack's workflow has the nodes that ComfyUI says it has, linked as they want it."""

import json
from itertools import combinations

import pytest
from root import ROOT

from spf_lora.adapters.format.card import Card
from spf_lora.apps.comfyui.workflow import KINDS, Output, local_graph, stock_graph
from spf_lora.apps.stacks import StackedLora, a1111_lines, stacked
from spf_lora.registry.stack import Known

PROMPT = "a portrait of a person"
BEARD = StackedLora("beard", 1.0, "a beard", 0.0)
GLASSES = StackedLora("glasses", 0.8, "glasses", 0.4)
# what the server said of the nodes at /object_info: names and types, see its "version"
INFO = json.loads((ROOT / "tests/apps/object_info.json").read_text("utf-8"))


@pytest.fixture(params=["stock", "local"])
def graph(request):
    return (stock_graph if request.param == "stock" else local_graph)([BEARD, GLASSES], PROMPT)


def test_every_kind_of_node_is_as_the_server_says():
    for name, kind in KINDS.items():
        if name.startswith("SpfLora"):
            continue  # test_comfyui_pack.py
        told = INFO["nodes"][name]
        sockets = {key: type_ for key, type_ in told["inputs"].items() if key in dict(kind.sockets)}
        assert sockets == dict(kind.sockets), name
        assert {*kind.widgets} == {*told["inputs"]} - {*sockets}, name
        assert list(kind.outputs) == told["outputs"], name
        assert {*told["required"]} <= {*told["inputs"]}


def test_every_required_input_is_given_and_every_link_has_its_type(graph):
    for at, (kind, inputs) in enumerate(graph.nodes, 1):
        sockets, widgets, _ = KINDS[kind]
        assert {*inputs} <= {*dict(sockets), *widgets}
        required = INFO["nodes"].get(kind, {"required": [*dict(sockets), *widgets]})["required"]
        assert {*required} <= {*inputs}, kind
        for name, value in inputs.items():
            if isinstance(value, Output):
                source = KINDS[graph.nodes[value.node - 1][0]]
                assert source.outputs[value.slot] == dict(sockets)[name]
                assert value.node < at


def test_the_page_and_the_server_get_the_same_graph(graph):
    page, server = graph.ui(), graph.api()
    assert json.loads(json.dumps(server)) == server
    assert [node["type"] for node in page["nodes"]] == [n["class_type"] for n in server.values()]
    for link, source, slot, target, socket, type_ in page["links"]:
        row = page["nodes"][target - 1]["inputs"][socket]
        assert (row["link"], row["type"]) == (link, type_)
        assert link in page["nodes"][source - 1]["outputs"][slot]["links"]
        assert server[str(target)]["inputs"][row["name"]] == [str(source), slot]
    links = sum(isinstance(v, list) for n in server.values() for v in n["inputs"].values())
    assert len(page["links"]) == links
    sampler = next(node for node in page["nodes"] if node["type"] == "KSampler")
    assert sampler["widgets_values"] == [1, "fixed", 25, 7.0, "ddim", "ddim_uniform", 1.0]


def test_on_the_page_links_lead_to_the_right_and_no_node_covers_another(graph):
    page = graph.ui()
    nodes = {node["id"]: node for node in page["nodes"]}
    for _, source, _, target, _, _ in page["links"]:
        left, width = nodes[source]["pos"][0], nodes[source]["size"][0]
        assert left + width < nodes[target]["pos"][0]
    for one, other in combinations(page["nodes"], 2):
        if one["pos"][0] == other["pos"][0]:
            above, below = sorted((one, other), key=lambda node: node["pos"][1])
            assert above["pos"][1] + above["size"][1] < below["pos"][1]


def test_stock_nodes_hook_both_conditionings_and_words_begin_with_their_lora():
    nodes = stock_graph([BEARD, GLASSES], PROMPT).nodes
    kinds = [kind for kind, _ in nodes]
    assert kinds.count("CreateHookLora") == 2
    hooked = [inputs for kind, inputs in nodes if kind == "ConditioningSetProperties"]
    assert len({one["hooks"] for one in hooked}) == 1
    (sampler,) = (inputs for kind, inputs in nodes if kind == "KSampler")
    both = [nodes[sampler[side].node - 1][1] for side in ("positive", "negative")]
    assert both == hooked
    ranges = [inputs for kind, inputs in nodes if kind == "ConditioningSetTimestepRange"]
    said = [
        (nodes[one["conditioning"].node - 1][1]["text"], one["start"], one["end"]) for one in ranges
    ]
    beard, both_words = f"{PROMPT}, a beard", f"{PROMPT}, a beard, glasses"
    assert said == [(beard, 0.0, 0.4), (both_words, 0.4, 1.0)]
    frames = [inputs for kind, inputs in nodes if kind == "CreateHookKeyframe"]
    assert [(one["strength_mult"], one["start_percent"]) for one in frames] == [(0, 0), (1, 0.4)]


def test_our_nodes_are_chained_with_one_prompt_each():
    nodes = local_graph([BEARD, GLASSES], PROMPT).nodes
    ours = [(at, inputs) for at, (kind, inputs) in enumerate(nodes, 1) if kind == "SpfLoraLocal"]
    (first, one), (second, two) = ours
    assert two["model"] == Output(first)
    assert one["base"] == two["base"]
    full = [nodes[inputs["full"].node - 1][1]["text"] for inputs in (one, two)]
    assert full == [f"{PROMPT}, a beard", f"{PROMPT}, glasses"]
    assert (two["strength"], two["start_percent"]) == (0.8, 0.4)
    (sampler,) = (inputs for kind, inputs in nodes if kind == "KSampler")
    assert sampler["model"] == Output(second)
    assert nodes[sampler["positive"].node - 1][1]["text"] == f"{PROMPT}, a beard, glasses"


def test_a1111_gets_words_that_begin_late_and_loractl_the_lora_too():
    plain, timed = a1111_lines([BEARD, GLASSES], PROMPT).split("\n\n")
    words = f"{PROMPT}, a beard, [glasses:0.4]"
    assert plain.splitlines()[1] == f"{words}, <lora:beard:1> <lora:glasses:0.8>"
    assert timed.splitlines()[1] == f"{words}, <lora:beard:1> <lora:glasses:0@0.39,0.8@0.4>"
    assert "loractl" not in a1111_lines([BEARD], PROMPT)


def test_a_card_says_words_and_start_and_cannot_steer_a_terminal(tmp_path):
    card = Card("hat", "a hat", "a\x1b[2Jhat", "", metrics={"start_percent": 0.2})
    rows = [(Known("hat", tmp_path, "", card), 0.5), (Known("bare", tmp_path, "", None), 1.0)]
    assert stacked(rows) == [
        StackedLora("hat", 0.5, "a?[2Jhat", 0.2),
        StackedLora("bare", 1.0, "", 0.0),
    ]
