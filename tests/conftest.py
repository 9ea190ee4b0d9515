import gc
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes share the cores; torch reads it once
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the hub: looking for it takes long

import hypothesis
import pytest
import torch
import typer
from tiny_base import Mould, make_tiny_base

from spf_lora.base import load
from spf_lora.base.load import EMBEDDED, Base, load_base
from spf_lora.base.parts import Parts

hypothesis.settings.register_profile("ours", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("ours")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests want told though they pass, as the slow tier its seeds and counts."""
    for report in [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]:
        for name, value in getattr(report, "user_properties", ()):
            if name == "told" and report.when == "call":
                terminalreporter.write_line(str(value))


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported stays: looking through it was a tenth of the tests' time
    gc.set_threshold(20_000, 20, 50)  # seldom: what is made anew is small


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPF_LORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_command_tree() -> Iterator[None]:
    """Build the tree of commands once for all calls of `cli`; it takes 35 ms."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def _small_sums(pytestconfig: pytest.Config) -> Iterator[None]:
    """Add up convolutions as they come: oneDNN's preparations take longer than the tiny base's.

    The slow tier compares with processes of their own, bit for bit, so it adds up as they do.
    """
    with torch.backends.mkldnn.flags(enabled="not slow" not in pytestconfig.option.markexpr):
        yield


@pytest.fixture
def one_dnn() -> Iterator[None]:
    """Add up as users' machines do, where memory or a batch's last digit is what is tested."""
    with torch.backends.mkldnn.flags(enabled=True):
        yield


@pytest.fixture(scope="session", autouse=True)
def read_once() -> Iterator[set[Path]]:
    """Read these folders of a base once and hand out copies; every other one is read each time."""
    folders, known, read = {EMBEDDED}, dict[Path, tuple[Parts, Mould]](), load._read

    def copied(place: load.BasePlace, tokenizer: str | None) -> Parts:
        if place.path not in folders or tokenizer:
            return read(place, tokenizer)
        if place.path not in known:
            parts = read(place, None)
            models = {name: part for name, part in vars(parts).items() if name != "tokenizer"}
            known[place.path] = parts, Mould(models)
        parts, mould = known[place.path]
        return replace(parts, **mould.cast())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(load, "_read", copied)
        yield folders


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, read_once: set[Path]) -> Path:
    folder = make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")
    read_once.add(folder)
    gc.freeze()  # it imported diffusers and transformers
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> Base:
    return load_base(str(tiny_folder), device=torch.device("cpu"))


@pytest.fixture(scope="session")
def embedded() -> Base:
    """The base that ships with the package, loaded once; leave it as it is."""
    return load_base("embedded", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def few_draws() -> Iterator[None]:
    """Train as always, but on hasty and few pictures of the base's own, and a hasty preview.

    A random base and a few steps give pairs that could teach nothing; here they may.
    """
    from hasty import make_hasty

    with pytest.MonkeyPatch.context() as patched:
        make_hasty(patched)
        yield


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process as a user would; return exit code, stdout, stderr."""
    import sys

    from spf_lora.cli.app import main

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["spf-lora", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as done:
            code = int(done.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A registry folder and nothing else to find: no shipped, no user folder, an empty cwd."""
    from spf_lora.registry import names

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(names.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(names, "shipped_folder", lambda _: tmp_path / "shipped")
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def in_a_clone(tmp_path, monkeypatch):
    """Work in a folder that has an empty `adapters/`, as a clone has."""
    (tmp_path / "adapters").mkdir()
    monkeypatch.chdir(tmp_path)
