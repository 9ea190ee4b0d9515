"""What holds for every file of the repository, and for the start of every command."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from root import ROOT

MAX_LINES = 400
SLOW_MODULES = {"accelerate", "bitsandbytes", "diffusers", "peft", "torch", "transformers"}
# Names that stand for any machine in examples, tests and explanations.
ANY_ONE = r"(?!(?:x|me|you|user|someone|alice|bob|ada)\b)"
MACHINE_PATH = re.compile(
    rf"(?<![\w:/.-])/(?:home|Users|root|work|farm)/{ANY_ONE}[A-Za-z]".encode()
)


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


def test_no_file_of_code_passes_400_lines() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in committed()
        if path.suffix == ".py" and (lines := path.read_text("utf-8").count("\n")) > MAX_LINES
    }
    assert not too_long, f"split these: {too_long}"


def test_no_committed_file_holds_a_path_of_one_machine() -> None:
    # Weights are not looked at: a few letters in them are a path by chance only.
    texts = {p: text for p in committed() if b"\0" not in (text := p.read_bytes())}
    found = {str(p.relative_to(ROOT)): MACHINE_PATH.findall(text) for p, text in texts.items()}
    found = {name: places for name, places in found.items() if places}
    assert not found, f"paths of a machine: {found}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "spf_lora" / "cli").glob("*.py")), ids=lambda p: p.name
)
def test_a_command_imports_nothing_slow_before_it_runs(path: Path) -> None:
    top = {
        name.split(".")[0]
        for node in ast.parse(path.read_text("utf-8")).body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not top & SLOW_MODULES, f"import them inside the command: {top & SLOW_MODULES}"


@pytest.mark.parametrize("words", [["--help"], ["attributes"], ["recipe", "show", "beard"]])
def test_what_needs_no_torch_does_not_load_it(words: list[str]) -> None:
    code = (
        "import sys\nfrom spf_lora.cli.app import main\n"
        f"sys.argv = ['spf-lora', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        f"loaded = set({sorted(SLOW_MODULES)!r}) & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "spf_lora" / "cli").glob("*.py")), ids=lambda p: p.name
)
def test_no_help_has_words_in_square_brackets(path: Path) -> None:
    """The help's pages take them for colours and show nothing."""
    texts = [
        word.value.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "help" and isinstance(word.value, ast.Constant)
    ]
    assert not [text for text in texts if re.search(r"\[[a-z]", str(text))]


def test_every_result_of_a_benchmark_has_its_three_parts() -> None:
    results = [p for p in committed() if "results" in p.parts and p.suffix == ".json"]
    assert len(results) > 50
    parts = {p.name: [*json.loads(p.read_text("utf-8"))] for p in results}
    assert not {n for n, own in parts.items() if own != ["run", "measure", "environment"]}
