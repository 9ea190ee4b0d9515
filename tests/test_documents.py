"""Whatever text is read, it ends in plain values that are bounded, or in one sentence."""

import ast
import os
import time
from pathlib import Path

import pytest
from root import ROOT

from spf_lora.documents import DEEPEST, parse_json, parse_toml, read_json, read_text

PACKAGE = ROOT / "spf_lora"
KIB = 1 << 10
LARGE = 256 * KIB  # what a recipe's file may have

BAD_JSON = {
    "[" * 100_000: "it nests too deep",
    '{"a":' * 100_000: "it nests too deep",
    "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1): "it nests too deep",
    '{"a": [1, {"b": 1e999}]}': r"a\.1\.b is not a finite number",
    '{"a": -1e999}': "a is not a finite number",
    "[NaN]": "0 is not a finite number",
    "Infinity": "the whole of it is not a finite number",
    '{"seed": 1' + "0" * 30 + "}": "seed is a number that fits no 64 bits",
    "9" * 5000: "it holds a number of thousands of digits",
    r'{"a": "\ud800"}': "a is no text in UTF-8",
    r'{"\ud800": 1}': "the whole of it has a key that is no text in UTF-8",
    "": "it is no valid JSON",
    "{'a': 1}": "it is no valid JSON",
}
BAD_TOML = {
    "a = " + "[" * LARGE: "it nests too deep|Unclosed array",
    "a = " + "[" * 500 + "]" * 500: "it nests too deep",
    "a = " + "{a = " * (LARGE // 5): "it nests too deep",
    "a." * (LARGE // 2) + "a = 1": "it nests too deep",
    '"a".' * (LARGE // 4) + "a = 1": "it nests too deep",
    "a  .  " * (LARGE // 6) + "a = 1": "it nests too deep",
    f"a = 0x{'f' * LARGE}": "it holds a number of thousands of digits",
    '"' * LARGE: "after a key",
    "'''a" * (LARGE // 4): "after a key",
    '\\"""' * (LARGE // 4): "Invalid statement",
    "a" * LARGE: "after a key",
}


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: text[:20])
def test_json_that_no_tool_would_write_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=BAD_JSON[text]) as caught:
        parse_json(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", BAD_TOML, ids=lambda text: text[:20])
def test_toml_that_no_tool_would_write_is_refused_in_one_sentence_within_a_second(
    text: str,
) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=BAD_TOML[text]) as caught:
        parse_toml(text)
    assert time.process_time() - begun < 1
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_what_is_within_the_limits_is_read_as_it_is() -> None:
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert str(parse_json(deep)) == deep
    assert parse_json('{"a": [1.5, -9223372036854775808, "é", null]}') == {
        "a": [1.5, -(2**63), "é", None]
    }
    dotted = ".".join("a" * (DEEPEST - 1))
    assert parse_toml(f'{dotted} = 1 # [[[[\nb = "{"[" * 100}"')["b"] == "[" * 100


def test_a_file_is_read_up_to_its_limit_without_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path, most_bytes=11) == {"a": 1}
    with pytest.raises(ValueError, match="larger than 0 KiB"):
        read_text(path, most_bytes=10)
    os.truncate(path, 1 << 40)  # no bytes on disk
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        read_text(path, most_bytes=1 << 20)


def test_a_file_that_is_none_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="no regular file"):
        read_text(tmp_path / "fifo", most_bytes=10)
    with pytest.raises(ValueError, match="no regular file"):
        read_text(Path("/dev/zero"), most_bytes=10)
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_text(tmp_path / "latin", most_bytes=10)


# what is no document: a container's header with bounds of its own, what came with a package or
# was written a moment before, and what runs inside of ComfyUI without the rest of the package
OTHERS = {
    "adapters/format/container.py",
    "adapters/format/glance.py",
    "apps/comfyui/pack/lora.py",
    "cli/stack_report.py",
    "data/worlds/world.py",
    "documents.py",
    "evaluate/report/bars.py",
    "recipe/load.py",
}


def test_nothing_else_reads_json_or_toml() -> None:
    reading = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("json.loads", "json.load", "json.JSONDecoder") or "tomllib" in name:
                reading.add(path.relative_to(PACKAGE).as_posix())
    assert reading == OTHERS
