import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from adapter_files import NAMES, adapter, heavy_imports, spf_lora

from spf_lora.adapters.format.adapter_file import Adapter, Module, read_adapter, write_adapter
from spf_lora.adapters.format.hashes import content_id

LOOKED_AT = (NAMES[0], NAMES[-1])


def second():
    """Another adapter of the same modules and base."""
    rng = np.random.default_rng(1)
    first = adapter(rank=2)
    modules = {
        name: Module(
            name,
            rng.normal(scale=0.05, size=one.down.shape).astype(np.float16),
            one.up,
            2.0,
        )
        for name, one in first.modules.items()
    }
    return Adapter(modules, first.metadata)


@pytest.fixture
def portrait(shelf):
    write_adapter(adapter(), shelf / "beard.safetensors")
    write_adapter(second(), shelf / "hat.safetensors")
    run("create", "portrait", "beard", "hat:-0.5", shelf=shelf)
    return shelf / "portrait.stack.toml"


def run(*words, shelf, code=0):
    return spf_lora("stack", *words, "--registry", shelf, code=code)


def change(path):
    """What a file does to a few weights, in float64."""
    return {
        name: one.scale * np.asarray(one.up, np.float64) @ np.asarray(one.down, np.float64)
        for name, one in read_adapter(path).modules.items()
        if name in LOOKED_AT
    }


def distance(found, wanted):
    error = sum(np.sum((found[name] - wanted[name]) ** 2) for name in wanted)
    return float(np.sqrt(error / sum(np.sum(one**2) for one in wanted.values())))


def wanted(shelf):
    first, other = change(shelf / "beard.safetensors"), change(shelf / "hat.safetensors")
    return {name: first[name] - 0.5 * other[name] for name in LOOKED_AT}


def test_create_prints_the_file_and_show_what_is_in_it(portrait, shelf):
    assert tomllib.loads(portrait.read_text())["base_id"] == "sd15:0123"
    shown = run("show", "portrait", shelf=shelf).stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["base", "adapter", "beard", "hat"]
    told = run("show", "portrait", "--json", shelf=shelf).json
    assert [(one["name"], one["strength"], one["state"]) for one in told["adapters"]] == [
        ("beard", 1.0, "ok"),
        ("hat", -0.5, "ok"),
    ]
    (row,) = run("list", "--json", shelf=shelf).json
    assert row == {"name": "portrait", "adapters": ["beard:1", "hat:-0.5"], "place": "--registry"}
    assert run("list", shelf=shelf).stdout.split() == [
        "portrait",
        "beard:1",
        "hat:-0.5",
        "--registry",
    ]


def test_show_tells_what_is_gone_and_what_cannot_be_used_is_refused(portrait, shelf):
    spf_lora("adapters", "remove", "hat", "--registry", shelf, code=1)
    spf_lora("adapters", "remove", "hat", "--force", "--registry", shelf)
    done = run("show", "portrait", shelf=shelf)
    assert "hat is missing, so the stack cannot be used" in done.stderr
    assert "the stack portrait needs hat" in run("export", "portrait", shelf=shelf, code=1).stderr
    assert not (shelf.parent / "out/portrait.safetensors").exists()


def test_list_names_a_stack_that_cannot_be_read_and_goes_on(portrait, shelf):
    (shelf / "broken.stack.toml").write_text("[")
    done = run("list", shelf=shelf)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["portrait"]
    assert "broken.stack.toml cannot be read" in done.stderr


def test_drop_and_add_say_what_is_left(portrait, shelf):
    assert "portrait: beard:1" in run("drop", "portrait", "hat", shelf=shelf).stderr
    assert "portrait: beard:1 hat:4" in run("add", "portrait", "hat:4", shelf=shelf).stderr
    assert "is already in" in run("add", "portrait", "hat", shelf=shelf, code=1).stderr
    assert "from -4 to 4" in run("add", "portrait", "hat:5", shelf=shelf, code=1).stderr
    trashed = run("remove", "portrait", shelf=shelf).stdout.strip()
    assert tomllib.loads(Path(trashed).read_text())["adapters"][1]["strength"] == 4.0
    assert "no stacks yet" in run("list", shelf=shelf).stderr


def test_one_file_is_the_exact_sum(portrait, shelf):
    done = run("export", "portrait", "--dtype", "fp32", "--json", shelf=shelf)
    assert done.json["exact"]
    assert done.json["ranks"] == {"6": len(NAMES)}
    # float64 arithmetic, factors rounded once to float32
    assert distance(change(shelf.parent / "out/portrait.safetensors"), wanted(shelf)) < 1e-6
    assert "exists" in run("export", "portrait", shelf=shelf, code=1).stderr
    run("export", "portrait", "--force", shelf=shelf)


def test_a_smaller_rank_is_the_best_there_is_and_its_error_is_told(portrait, shelf):
    told = run(
        "export",
        "portrait",
        "-o",
        "small.safetensors",
        "--rank",
        3,
        "--dtype",
        "fp32",
        "--json",
        shelf=shelf,
    ).json
    whole, cut = wanted(shelf), {}
    for name, matrix in whole.items():
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        cut[name] = (left[:, :3] * values[:3]) @ right[:3]
    assert distance(change("small.safetensors"), cut) < 1e-5
    # both adapters have the same spectrum in every module, so a few stand for all, nearly
    assert told["relative_error"] == pytest.approx(distance(cut, whole), rel=0.05)
    assert (
        "useful maximum"
        in run("export", "portrait", "-o", "x.safetensors", "--rank", 7, shelf=shelf, code=1).stderr
    )


def test_each_writes_a_folder_with_the_lines_that_load_it(portrait, shelf):
    shown = run("export", "portrait", "--each", "kit", shelf=shelf).stdout
    kit = shelf.parent / "kit"
    assert sorted(one.name for one in kit.iterdir()) == [
        "beard.safetensors",
        "hat.safetensors",
        "prompts.txt",
    ]
    for name in ("beard", "hat"):
        copied, source = (folder / f"{name}.safetensors" for folder in (kit, shelf))
        assert copied.read_bytes() == source.read_bytes()
    assert "<lora:beard:1> <lora:hat:-0.5>" in shown
    assert "<lora:beard.safetensors:1:1> <lora:hat.safetensors:-0.5:-0.5>" in shown
    assert "a beard" in shown
    assert "is not empty" in run("export", "portrait", "--each", "kit", shelf=shelf, code=1).stderr


def test_each_writes_any_layout_as_kohya(portrait, shelf):
    write_adapter(second(), shelf / "old.safetensors", layout="diffusers")
    run("create", "mixed", "old", shelf=shelf)
    run("export", "mixed", "--each", "kit", shelf=shelf)
    written = shelf.parent / "kit" / "old.safetensors"
    assert content_id(read_adapter(written)) == content_id(read_adapter(shelf / "old.safetensors"))
    assert spf_lora("inspect", written, "--json").json[0]["layout"] == "kohya"


def test_a_folder_that_cannot_be_written_leaves_nothing(portrait, shelf, monkeypatch):
    import errno
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = sorted(one.name for one in shelf.parent.iterdir())
    assert "No space left" in run("export", "portrait", "--each", "kit", shelf=shelf, code=1).stderr
    assert "No space left" in run("export", "portrait", shelf=shelf, code=1).stderr
    assert (
        "does not exist" in run("export", "portrait", "--each", "a/b", shelf=shelf, code=1).stderr
    )
    assert sorted(one.name for one in shelf.parent.iterdir()) == sorted([*before, "out"])
    assert not any((shelf.parent / "out").iterdir())


def test_stacks_need_no_torch(portrait, shelf):
    every = (["show", "portrait"], ["export", "portrait", "--force"], ["list"])
    assert heavy_imports(*(["stack", *words, "--registry", shelf] for words in every)) == []


def test_export_for_comfyui_writes_one_file_for_its_page_and_one_for_its_server(portrait, shelf):
    flow = shelf / "flow.json"
    said = run("export", "portrait", "--comfyui", flow, shelf=shelf)
    assert said.stdout.strip() == str(flow)
    kinds = [node["type"] for node in json.loads(flow.read_text())["nodes"]]
    assert kinds.count("CreateHookLora") == 2
    run("export", "portrait", "--comfyui", flow, shelf=shelf, code=1)
    run("export", "portrait", "--comfyui", flow, "--local", "--force", shelf=shelf)
    server = json.loads((shelf / "flow.api.json").read_text())
    assert [one["class_type"] for one in server.values()].count("SpfLoraLocal") == 2


def test_export_for_a1111_prints_the_prompt(portrait, shelf):
    said = run("export", "portrait", "--a1111", "--prompt", "a man", shelf=shelf).stdout
    assert "a man" in said
    assert "<lora:beard:1> <lora:hat:-0.5>" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--a1111", "--rank", "4"), "--rank does nothing for --a1111"),
        (("--a1111", "--force"), "--force does nothing for --a1111"),
        (("--a1111", "--json"), "--json does nothing for --a1111"),
        (("--each", "kit", "--force"), "--force does nothing for --each"),
        (("--each", "kit", "--prompt", "a man"), "it is for --comfyui, --a1111"),
        (("--comfyui", "x.json", "-o", "x.safetensors"), "--out does nothing for --comfyui"),
        (("--prompt", "a man"), "--prompt does nothing for one merged file"),
        (("--local",), "--local does nothing for one merged file"),
        (("--a1111", "--each", "kit"), "--each and --a1111 are two exports"),
    ],
)
def test_exports_for_apps_refuse_what_does_not_go_together(portrait, shelf, words, said):
    assert said in run("export", "portrait", *words, shelf=shelf, code=1).stderr
