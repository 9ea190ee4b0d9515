"""Imports point only downwards: a change of a high layer cannot break a low one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "spf_lora"

# Top to bottom; a module may import from its own layer and from those below it.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"studio"},
    {"evaluate", "merge"},
    {"training"},
    {"method"},
    {"adapters"},
    {"data"},
    {"base"},
    {"recipe"},
    {"recipe_files"},
    {"atomic", "shipped", "strict"},
    {"documents"},
    {"errors"},
    {"__init__"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def room(module: str) -> str:
    """Return the layer's name of a dotted module: "spf_lora.data.folder" is in "data"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


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
                yield node.module


def faults(source: str, target: str) -> bool:
    """Tell whether an import between two layers points upwards or sideways."""
    return source != target and RANK[target] <= RANK[source]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_imports_point_downwards(path: Path) -> None:
    own = room(".".join(("spf_lora", *path.relative_to(PACKAGE).with_suffix("").parts)))
    assert own in RANK, f"{own} has no place in LAYERS: put it there"
    wrong = [name for name in imported(path) if faults(own, room(name))]
    assert not wrong, f"{path.relative_to(PACKAGE)} imports upwards or sideways: {wrong}"


def test_upwards_and_sideways_are_told_from_downwards() -> None:
    assert faults("base", "data")
    assert faults("evaluate", "merge")
    assert faults("errors", "recipe")
    assert not faults("data", "base")
    assert not faults("data", "data")


def test_imports_inside_functions_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("def f():\n    from spf_lora.cli import out\n    import spf_lora.data.folder\n")
    assert set(imported(path)) == {"spf_lora.cli", "spf_lora.data.folder"}
