"""Exported workflows in the real ComfyUI's server: `COMFYUI_PATH=FOLDER pytest -m comfyui`.

The checkpoint is a random one of SD1.5's size, so it takes 7 GB of memory and 4 GB of disk.
"""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from base import layouts
from PIL import Image
from root import ROOT

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.module import Adapter, Module
from spf_lora.adapters.sd15 import weight_shapes
from spf_lora.apps.comfyui.workflow import CHECKPOINT

pytestmark = pytest.mark.comfyui
SIDE, STEPS, SECONDS = 64, 2, 900
OWN = ("custom_nodes", "models", "input", "output", "temp", "user")  # folders of one installation


def spf_lora(*words):
    subprocess.run([sys.executable, "-m", "spf_lora", *map(str, words)], check=True, cwd=ROOT)


def asked(address, path, given=None):
    """Return what the server says of a path."""
    data = None if given is None else json.dumps(given).encode()
    with urllib.request.urlopen(f"{address}/{path}", data, timeout=SECONDS) as said:
        return json.load(said)


def patiently(look):
    """Return the first thing that `look` finds."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.5)
    raise TimeoutError(f"nothing came in {SECONDS} s")


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory):
    """A ComfyUI with models of its own; its code is that of COMFYUI_PATH."""
    if "COMFYUI_PATH" not in os.environ:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    folder, real = tmp_path_factory.mktemp("comfyui"), Path(os.environ["COMFYUI_PATH"]).resolve()
    for entry in real.iterdir():
        if entry.name not in OWN:
            (folder / entry.name).symlink_to(entry)
    (folder / "models/loras").mkdir(parents=True)
    (folder / "models/checkpoints").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A registry whose stack `portrait` has a beard, and glasses that begin late."""
    registry = tmp_path_factory.mktemp("registry")
    for seed, (name, words) in enumerate((("beard", "a beard"), ("glasses", "glasses"))):
        noise = torch.Generator().manual_seed(seed)
        modules = {}
        for path, (out, width, *_) in weight_shapes().items():
            if path.endswith("attn2.to_k"):
                factors = (torch.randn(s, generator=noise) for s in ((2, width), (out, 2)))
                modules[path] = Module(path, *(0.1 * one.numpy() for one in factors), 2.0)
        card = Card(name, words, words, "sd15:0123", metrics={"start_percent": 0.4 * seed})
        said = file_metadata(card, rank=2, alpha=2.0, title=name)
        write_adapter(Adapter(modules, said), registry / f"{name}.safetensors")
    spf_lora("stack", "create", "portrait", "beard", "glasses:0.8", "--registry", registry)
    return registry


@pytest.fixture(scope="module")
def server(comfyui, stack, tmp_path_factory):
    """The address of a server with our nodes, the stack's LoRAs and a random checkpoint."""
    spf_lora("comfyui", "install", comfyui)
    spf_lora("comfyui", "install", comfyui, "--link")  # in the place of the copy
    kit = tmp_path_factory.mktemp("kit")
    spf_lora("stack", "export", "portrait", "--each", kit / "each", "--registry", stack)
    for file in (kit / "each").glob("*.safetensors"):
        shutil.copy(file, comfyui / "models/loras")
    noise = torch.empty(2**26).uniform_(-0.06, 0.06).half()

    def quick(name, shape):
        one = "norm" in name and name.endswith("weight")
        return noise[: math.prod(shape)].view(shape) + one

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(layouts, "_random", quick)
        models = layouts.make_models(kit / "models", vocabulary=49408, **layouts.FULL)
    layouts.make_checkpoint(models, comfyui / "models/checkpoints" / CHECKPOINT)
    shutil.rmtree(models)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = f"--cpu --listen 127.0.0.1 --port {port} --disable-auto-launch --disable-api-nodes"
    main = Path(os.environ["COMFYUI_PATH"]).resolve() / "main.py"
    command = [sys.executable, ROOT / "tests/apps/comfyui_main.py", main, *words.split()]
    own = ["--base-directory", comfyui, "--database-url", f"sqlite:///{comfyui}/comfyui.db"]
    address, log = f"http://127.0.0.1:{port}", comfyui / "server.log"
    with log.open("w") as out:
        running = subprocess.Popen([*command, *own], stdout=out, stderr=subprocess.STDOUT)

    def ready():
        if running.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            return asked(address, "system_stats")
        except urllib.error.URLError:
            return None

    try:
        patiently(ready)
        yield address
    finally:
        running.terminate()
        running.wait()


@pytest.mark.parametrize("words", [(), ("--local",)])
def test_a_stacks_workflow_draws_on_the_server(server, comfyui, stack, tmp_path, words):
    flow = tmp_path / "flow.json"
    spf_lora("stack", "export", "portrait", "--comfyui", flow, *words, "--registry", stack)
    graph = json.loads((tmp_path / "flow.api.json").read_text())
    for node in graph.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"] |= {"width": SIDE, "height": SIDE}
        if node["class_type"] == "KSampler":
            node["inputs"] |= {"steps": STEPS}
    queued = asked(server, "prompt", {"prompt": graph})
    assert queued["node_errors"] == {}
    number = queued["prompt_id"]
    done = patiently(lambda: asked(server, f"history/{number}").get(number))
    assert done["status"]["status_str"] == "success", done["status"]
    shown = {graph[at]["class_type"]: put_out["images"] for at, put_out in done["outputs"].items()}
    assert set(shown) == ({"SaveImage", "MaskPreview"} if words else {"SaveImage"})
    for image in (image for images in shown.values() for image in images):
        file = comfyui / image["type"] / image["subfolder"] / image["filename"]
        assert Image.open(file).size == (SIDE, SIDE)


def test_the_server_lists_our_nodes_from_linked_files(server, comfyui):
    assert (comfyui / "custom_nodes/spf_lora/nodes.py").is_symlink()
    info = asked(server, "object_info")
    ours = {name for name, node in info.items() if node["category"] == "spf-lora"}
    assert ours == {"SpfLoraLocal", "SpfLoraByCard", "SpfLoraControlMap", "SpfLoraLocalMap"}
    (files,) = info["SpfLoraLocal"]["input"]["required"]["lora_name"][:1]
    assert files == ["beard.safetensors", "glasses.safetensors"]
