"""A small adapter on disk and a way to run a command, for the tests of the file commands."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from spf_lora.adapters import sd15
from spf_lora.adapters.format.adapter_file import Adapter, Module, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.cli.app import main

NAMES = [
    name
    for name in sd15.weight_shapes()
    if name.endswith(("attn2.to_k", "attn2.to_v")) and "up_blocks.2" not in name
]
CARD = Card(
    attribute="beard",
    target_text="a beard",
    trigger="a beard",
    base_id="sd15:0123",
    recipe={"steps": 10},
    parents=("ab" * 32,),
    dataset_digest="cd" * 32,
    metrics={"response": 0.25},
    versions={"spf-lora": "0.1.0"},
    seed=7,
)


def adapter(rank=4, alpha=2.0, metadata=None):
    rng = np.random.default_rng(0)
    modules = {}
    for name in NAMES:
        out, into = sd15.weight_shapes()[name]
        down = rng.normal(scale=0.05, size=(rank, into)).astype(np.float16)
        up = rng.normal(scale=0.05, size=(out, rank)).astype(np.float16)
        modules[name] = Module(name, down, up, alpha)
    full = file_metadata(CARD, rank=rank, alpha=alpha, title="Beard") if metadata is None else {}
    return Adapter(modules, {**full, **(metadata or {})})


def sound_file(folder, name="a.safetensors", **settings):
    path = folder / name
    write_adapter(adapter(**settings), path)
    return path


@dataclass
class Ran:
    """What a command printed."""

    stdout: str
    stderr: str
    returncode: int
    json: Any = None


def spf_lora(*arguments, code=0):
    """Run a command and return what it printed, parsed if JSON was asked for."""
    words = [str(one) for one in arguments]
    stdout, stderr, ended = io.StringIO(), io.StringIO(), 0
    argv = mock.patch.object(sys, "argv", ["spf-lora", *words])
    with argv, redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            main()
        except SystemExit as end:
            ended = end.code or 0
    ran = Ran(stdout.getvalue(), stderr.getvalue(), ended)
    assert ran.returncode == code, ran.stderr
    if "--json" in words and ran.stdout:
        ran.json = json.loads(ran.stdout)
    return ran


PROBE = """
import json, sys
import spf_lora.cli.app as app
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["spf-lora", *words]
    try:
        app.main()
    except SystemExit as end:
        codes.append(end.code)
heavy = [name for name in ("torch", "diffusers", "transformers", "peft") if name in sys.modules]
print(json.dumps({"codes": codes, "heavy": heavy}), file=sys.stderr)
"""


def heavy_imports(*commands):
    """Which heavy packages commands imported, one after the other; all must have ended well."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    result = json.loads(done.stderr.splitlines()[-1])
    assert not any(result["codes"]), done.stderr
    assert len(result["codes"]) == len(commands), done.stderr
    return result["heavy"]
