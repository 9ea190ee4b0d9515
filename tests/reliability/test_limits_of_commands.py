"""Every command, on large or many files, stays within limits of memory and of processor time."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import typer
from PIL import Image
from root import ROOT

from spf_lora.adapters import sd15
from spf_lora.adapters.format.adapter_file import Adapter, Module, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.cli.app import app

pytestmark = pytest.mark.slow
MANY = 1000  # adapters in a registry
LIGHT = (150, 8)  # MB, seconds: lists and small files; twice what a slow machine took
FILES = (200, 20)  # adapters of 80 MB
DRAWS = (1800, 180)  # torch, the embedded base, a few pictures
TRAIN = (
    "train -a beard --steps 2 --set data.count=4 --set data.batch_size=2 --set distil.steps=0 "
    "--set data.vocabulary=none --out trained.safetensors"
)
# command -> words and limits; what one writes, later ones use, in this order
COMMANDS = {
    "attributes": ("attributes --registry many", (150, 20)),
    "recipe show": ("recipe show sd15/beard", LIGHT),
    "recipe new": ("recipe new crown --target a+crown --out crown.toml", LIGHT),
    "portraits export": ("portraits export photos --attribute beard --count 32", (150, 20)),
    "data check": ("data check photos --attribute beard", (500, 30)),
    "data cache": ("data cache", (500, 20)),
    "base inspect": ("base inspect embedded", (900, 40)),
    "adapters list": ("adapters list --registry many", LIGHT),
    "adapters where": ("adapters where --registry many", LIGHT),
    "adapters verify": ("adapters verify --registry many", (150, 20)),
    "adapters add": ("adapters add large.safetensors --name large --registry own", FILES),
    "adapters show": ("adapters show large --registry own", FILES),
    "adapters rename": ("adapters rename large big --registry own", LIGHT),
    "stack create": ("stack create s big --registry own", FILES),
    "stack list": ("stack list --registry own", LIGHT),
    "stack show": ("stack show s --registry own", FILES),
    "stack add": ("stack add s a1:0.5 --registry own", FILES),
    "stack drop": ("stack drop s a1 --registry own", FILES),
    "stack export": ("stack export s --registry own --out s.safetensors", FILES),
    "stack remove": ("stack remove s --registry own", LIGHT),
    "adapters remove": ("adapters remove big --registry own", FILES),
    "inspect": ("inspect large.safetensors --full", FILES),
    "verify": ("verify large.safetensors", FILES),
    "convert": ("convert large.safetensors peft --to peft", FILES),
    "resize": ("resize large.safetensors small.safetensors --rank 4", (250, 40)),
    "merge": ("merge large.safetensors small.safetensors --out m.safetensors", FILES),
    "metadata": ("metadata m.safetensors --strip", FILES),
    "comfyui install": ("comfyui install comfy", LIGHT),
    "train": (TRAIN, DRAWS),
    "generate": ("generate a+portrait --steps 2 --adapter trained.safetensors --out g.png", DRAWS),
    "card": ("card large.safetensors --license mit --picture p.png -o card", FILES),
    "push": ("push large.safetensors --repo a/b --card ready --dry-run", FILES),
    "evaluate": ("evaluate trained.safetensors --prompts p.txt {few} --out e", DRAWS),
    "compare": ("compare trained.safetensors beard --prompts p.txt {few}", DRAWS),
    "clean": (
        "clean beard --steps 2 --set distil.pairs=8 --set distil.sampler_steps=4 -o k.safetensors",
        DRAWS,
    ),
    "audit": ("audit trained.safetensors --prompts 2 --out au", (1800, 400)),
    "stack report": ("stack report two --registry pair --prompts 4 {few} --out r", DRAWS),
}
FEW = "--seeds 1 --steps 2"


def every_command(group=None, above=""):
    """Yield the names of all commands that there are."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, f"{above}{name} ")
        else:
            yield f"{above}{name}"


def test_every_command_has_limits():
    known_elsewhere = {"pull", "studio"}  # they need a hub, a browser: publish/, studio/
    assert set(every_command()) - known_elsewhere == set(COMMANDS)


def adapter(names, rank, dtype=np.float16):
    rng = np.random.default_rng(0)
    shapes, modules = sd15.weight_shapes(), {}
    for name in names:
        out, into, *taps = shapes[name]
        down = rng.standard_normal((rank, into, *taps), np.float32).astype(dtype)
        up = rng.standard_normal((out, rank, *(1 for _ in taps)), np.float32).astype(dtype)
        modules[name] = Module(name, down, up, float(rank))
    card = Card("beard", "a beard", "a beard", "sd15:0123", recipe={"steps": 10})
    return Adapter(modules, file_metadata(card, rank=rank, alpha=rank, title="beard"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a large adapter, a registry of many, and prompts."""
    folder = tmp_path_factory.mktemp("limits")
    names = [name for name in sd15.weight_shapes() if ".conv" not in name]
    write_adapter(adapter(names, 64), folder / "large.safetensors")
    assert (folder / "large.safetensors").stat().st_size > 50e6
    small = adapter([name for name in names if name.endswith("attn2.to_k")][:2], 1)
    for registry, count in (("many", MANY), ("own", 2)):
        (folder / registry).mkdir()
        write_adapter(small, folder / registry / "a0.safetensors")
        for number in range(1, count):
            shutil.copy(
                folder / registry / "a0.safetensors", folder / registry / f"a{number}.safetensors"
            )
    for name in ("nodes.py", "folder_paths.py", "comfy/samplers.py"):  # a ComfyUI by its files
        (folder / "comfy" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "comfy" / name).touch()
    (folder / "p.txt").write_text("a portrait of a person, tan skin\na portrait of a person\n")
    run(folder, "stack create two beard hat --registry pair")
    Image.new("RGB", (8, 8)).save(folder / "p.png")
    run(folder, "card large.safetensors --license mit --picture p.png -o ready")
    return folder


# A child counts the memory of the process that forked it, so a small one starts the command.
LAUNCH = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps([code, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime]))
"""


def run(folder, words):
    """Run a command line; return its exit code, its MB and processor seconds, and what it said."""
    arguments = [word.replace("+", " ") for word in words.format(few=FEW).split()]
    told = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCH, sys.executable, "-m", "spf_lora", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | told | {"SPF_LORA_CACHE": str(folder / "cache")},
    )
    return *json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stays_within_its_memory_and_time(name, place, record_property):
    words, (most_megabytes, most_seconds) = COMMANDS[name]
    code, megabytes, seconds, said = run(place, words)
    assert code in (0, 3), said
    record_property(
        "told",
        f"{name}: {megabytes:.0f} of {most_megabytes} MB, {seconds:.1f} of {most_seconds} s",
    )
    assert megabytes < most_megabytes
    assert seconds < most_seconds
