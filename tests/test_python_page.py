"""The library's names: every block of docs/python.md runs, and importing takes no time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from root import ROOT

import spf_lora

PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^## (.*?)\n\n```python\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE))


HASTY = {"draw_pictures": {"steps": 2}, "evaluate_adapter": {"steps": 1}}


def hasty(real, settings):
    """Do what the page asks in fewer steps."""
    return lambda *of, **how: real(*of, **{**how, **settings})


@pytest.fixture(scope="module")
def names(few_draws, tmp_path_factory):
    """What the first block leaves: a base, an adapter and two pictures, in an empty folder."""
    known = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("python"))
        for name, settings in HASTY.items():
            patched.setattr(spf_lora, name, hasty(getattr(spf_lora, name), settings), raising=False)
        exec(BLOCKS["Load a base and an adapter, draw"], known)
        yield known


def test_the_page_has_a_block_for_each_name_of_the_library():
    assert len(BLOCKS) == PAGE.count("```python") == 4
    code = "\n".join(BLOCKS.values())
    for name in spf_lora.__all__:
        assert name in code, f"docs/python.md has no {name}"
        assert callable(getattr(spf_lora, name))


def test_drawing_gives_the_pictures_that_the_page_says(names):
    assert names["before"].size == names["after"].size == (64, 64)
    assert names["before"].tobytes() != names["after"].tobytes()
    assert Path("beard.png").is_file()


def test_measuring_prints_response_and_pollution(names, capsys):
    exec(BLOCKS["Measure"], names)
    assert re.search(r"response [\d.]+.*\npollution [\d.]+", capsys.readouterr().out)


def test_merging_is_exact_and_the_file_is_sound(names, capsys):
    exec(BLOCKS["Merge and verify"], names)
    said = capsys.readouterr().out
    assert "0.0 lost;" in said
    assert "fail" not in said


def test_training_leaves_the_base_as_it_is_and_writes_a_file(names, capsys):
    before = [one.clone() for one in names["base"].unet.parameters()]
    exec(BLOCKS["Train"], names)
    written = spf_lora.read_adapter("glasses.safetensors")
    assert len(written.modules) == len(names["beard"].modules)
    assert capsys.readouterr().out.splitlines()[-1].startswith("4 ")
    after = names["base"].unet.parameters()
    assert all((one == other).all() for one, other in zip(before, after, strict=True))


def test_a_name_that_the_library_has_not_is_refused_with_those_it_has():
    with pytest.raises(AttributeError, match="no 'draw_picture'; it has load_base"):
        spf_lora.draw_picture  # noqa: B018


def test_importing_the_library_imports_nothing_heavy_and_takes_under_a_tenth_of_a_second():
    code = (
        "import sys, time\nbegan = time.process_time()\nimport spf_lora\n"
        "seconds = time.process_time() - began\n"
        "heavy = {'torch', 'numpy', 'typer', 'PIL', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert seconds < 0.1, seconds\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
