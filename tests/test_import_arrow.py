"""Imports point only downwards: a change of a high layer cannot break a low one."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from root import ROOT

PACKAGE = ROOT / "spf_lora"

# Top to bottom; a module may import from its own room and from those below it. A room within a
# room has its own place: `evaluate.report` may import from `evaluate`, not the other way round.
ROOMS = (
    {"__main__"},
    {"cli"},
    {"studio"},
    {"apps.comfyui"},
    {"apps"},
    {"api"},
    {"publish"},
    {"evaluate.report", "evaluate.judges.photographs"},
    {"evaluate", "merge"},
    {"evaluate.judges"},
    {"training"},
    {"draw"},
    {"method"},
    {"registry"},
    {"adapters.check"},
    {"adapters.format"},
    {"adapters"},
    {"data"},
    {"data.sentences"},
    {"data.worlds"},
    {"base"},
    {"recipe"},
    {"locks"},
    {"atomic", "shipped", "signals", "strict"},
    {"documents"},
    {"errors"},
    {"__init__"},
)
RANK = {name: rank for rank, rooms in enumerate(ROOMS) for name in rooms}


def room(module: str) -> str:
    """Return the room of a dotted module: "spf_lora.data.worlds.portraits" is in "data.worlds"."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in RANK), parts[0] if parts else "__init__")


def imported(path: Path) -> Iterator[str]:
    """Yield every module of ours that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "spf_lora")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            if node.module == "spf_lora":
                # `from spf_lora import x` imports a module, or a name of the package itself.
                yield from (f"spf_lora.{n.name}" for n in node.names if n.name in RANK)
            elif node.module and node.module.startswith("spf_lora."):
                # `from spf_lora.evaluate import report` imports from the room within.
                yield from (f"{node.module}.{name.name}" for name in node.names)


def faults(source: str, target: str) -> bool:
    """Tell whether an import between two rooms points upwards or sideways."""
    return source != target and RANK[target] <= RANK[source]


def module_of(path: Path) -> str:
    """Return the dotted name of a file of ours."""
    return ".".join(("spf_lora", *path.relative_to(PACKAGE).with_suffix("").parts))


# these files are copied into ComfyUI, where our package is not: they import each other and torch
PACK = PACKAGE / "apps" / "comfyui" / "pack"
FOREIGN = {"comfy", "folder_paths", "node_helpers"}  # ComfyUI's own

# the library's ten names are functions of every room; it imports them when they are asked for
DOOR = PACKAGE / "__init__.py"


@pytest.mark.parametrize(
    "path", sorted({*PACKAGE.rglob("*.py")} - {DOOR, *PACK.glob("*.py")}), ids=module_of
)
def test_imports_point_downwards(path: Path) -> None:
    own = room(module_of(path))
    assert own in RANK, f"{own} has no place in ROOMS: put it there"
    wrong = [name for name in imported(path) if faults(own, room(name))]
    assert not wrong, f"{path.relative_to(PACKAGE)} imports upwards or sideways: {wrong}"


def test_every_folder_has_its_own_place_and_every_place_is_there() -> None:
    ours = {*PACKAGE.rglob("*.py")} - {*PACK.glob("*.py")}
    folders = {module_of(path.parent / "x").rpartition(".")[0] for path in ours}
    rooms = {name.removeprefix("spf_lora.") for name in folders - {"spf_lora"}}
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert set(RANK) == rooms | files


@pytest.mark.parametrize("path", sorted(PACK.glob("*.py")), ids=lambda path: path.stem)
def test_the_comfyui_pack_needs_nothing_but_what_comfyui_has(path: Path) -> None:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [name.name.split(".")[0] for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert (PACK / f"{node.module}.py").is_file() or node.module == "control_map"
    assert {*names} <= {"torch", *FOREIGN, *sys.stdlib_module_names}


def test_no_command_imports_another() -> None:
    app = PACKAGE / "cli" / "app.py"
    helpers = {"out"}
    commands = {name.split(".")[2] for name in imported(app) if name.startswith("spf_lora.cli.")}
    commands -= helpers
    assert len(commands) > 15
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        others = {name.split(".")[2] for name in imported(path) if name.startswith("spf_lora.cli.")}
        wrong = (others & commands) - {path.stem}
        assert path == app or not wrong, f"{path.name} imports the commands {sorted(wrong)}"


def test_upwards_and_sideways_are_told_from_downwards() -> None:
    assert faults("base", "data")
    assert faults("evaluate", "merge")
    assert faults("errors", "recipe")
    assert not faults("data", "base")
    assert not faults("data", "data")
    assert faults("adapters.format", "adapters.check")
    assert not faults("evaluate.report", "evaluate")


def test_a_room_within_a_room_is_told_from_it() -> None:
    assert room("spf_lora.evaluate.report.page") == "evaluate.report"
    assert room("spf_lora.evaluate.run.evaluate") == "evaluate"
    assert room("spf_lora.__init__") == "__init__"


def test_imports_inside_functions_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("def f():\n    from spf_lora.cli import out\n    import spf_lora.data.folder\n")
    assert set(imported(path)) == {"spf_lora.cli.out", "spf_lora.data.folder"}
