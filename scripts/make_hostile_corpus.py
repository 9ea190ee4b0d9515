"""Writes a folder of files that lie, one fault each: what an adapter reader must refuse or survive.

    python scripts/make_hostile_corpus.py FOLDER

Each entry of `CORPUS` is a name, what is wrong, and a function from a sound file's parts to bytes.
The tests read every one; other readers are welcome to.
"""

import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BODY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
DOWN, UP, ALPHA = f"{BODY}.lora_down.weight", f"{BODY}.lora_up.weight", f"{BODY}.alpha"
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I64": 8, "BOOL": 1, "F8_E4M3": 1}

Header = dict[str, Any]


def entry(dtype: str, shape: list[int], start: int) -> Header:
    """One tensor of a header."""
    count = 1
    for size in shape:
        count *= size
    return {
        "dtype": dtype,
        "shape": shape,
        "data_offsets": [start, start + count * SIZES.get(dtype, 1)],
    }


def header() -> Header:
    """The header of a sound file: rank 4, 768 to 32, fp16."""
    return {
        ALPHA: entry("F16", [], 0),
        DOWN: entry("F16", [4, 768], 2),
        UP: entry("F16", [32, 4], 6146),
    }


def data() -> bytearray:
    """The sound file's numbers: alpha 4, every weight 0.5."""
    return bytearray(b"\x00\x44" + b"\x00\x38" * (4 * 768 + 32 * 4))


def pack(head: Header | bytes, body: bytes | bytearray, length: int | None = None) -> bytes:
    """Put a file together; `length` replaces the declared header length."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    declared = len(text) if length is None else length
    return declared.to_bytes(8, "little") + text + bytes(body)


def changed(name: str, **fields: Any) -> bytes:
    """A sound file with some fields of one tensor replaced."""
    head = header()
    head[name] = {**head[name], **fields}
    return pack(head, data())


def renamed(old: str, new: str) -> bytes:
    """A sound file with one tensor under another name."""
    return pack({new if key == old else key: one for key, one in header().items()}, data())


def without(name: str) -> bytes:
    """A sound file that lacks the last tensor."""
    head = header()
    del head[name]
    end = max(one["data_offsets"][1] for one in head.values())
    return pack(head, data()[:end])


def with_number(bits: bytes) -> bytes:
    """A sound file with one weight replaced."""
    body = data()
    body[100:102] = bits
    return pack(header(), body)


def with_rank(shape: list[int]) -> bytes:
    """A sound file whose up factor has another shape."""
    head = header()
    head[UP] = entry("F16", shape, 6146)
    return pack(head, data()[:6146] + bytes(head[UP]["data_offsets"][1] - 6146))


def with_duplicate() -> bytes:
    """A header that names a tensor twice."""
    text = json.dumps(header())
    return pack((text[:-1] + f', "{UP}": {json.dumps(header()[UP])}}}').encode(), data())


def with_metadata(value: Any) -> bytes:
    """A sound file with another `__metadata__`."""
    return pack({"__metadata__": value, **header()}, data())


def in_text(old: str, new: str) -> bytes:
    """A sound file with a piece of its header's text replaced."""
    return pack(json.dumps(header()).replace(old, new).encode(), data())


def with_alpha(bits: bytes) -> bytes:
    """A sound file with another alpha."""
    body = data()
    body[:2] = bits
    return pack(header(), body)


def zipped() -> bytes:
    """A zip, as torch.save writes."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return memory.getvalue()


def million_keys() -> bytes:
    """A header of 10^6 tensors."""
    one = '"dtype":"F16","shape":[1],"data_offsets":'
    body = ",".join(f'"k{at}":{{{one}[{2 * at},{2 * at + 2}]}}' for at in range(1_000_000))
    return pack(f"{{{body}}}".encode(), b"")


def many_keys() -> bytes:
    """A header of 50,000 tensors, small enough to be parsed."""
    one = '"dtype":"F16","shape":[1],"data_offsets":'
    body = ",".join(f'"k{at}":{{{one}[{2 * at},{2 * at + 2}]}}' for at in range(50_000))
    return pack(f"{{{body}}}".encode(), bytes(100_000))


CORPUS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("no byte at all", lambda: b""),
    "seven-bytes": ("shorter than a header length", lambda: b"\x01" * 7),
    "truncated-header": ("ends inside the header", lambda: pack(header(), data())[:60]),
    "truncated-data": ("ends inside the tensors", lambda: pack(header(), data())[:-10]),
    "one-byte-more": ("something appended", lambda: pack(header(), data()) + b"\0"),
    "header-huge": ("header length 2^63", lambda: pack(header(), data(), 1 << 63)),
    "header-negative": ("header length -1", lambda: pack(header(), data(), (1 << 64) - 1)),
    "header-past-end": ("header longer than the file", lambda: pack(header(), data(), 1 << 20)),
    "header-zero": ("header length 0", lambda: pack(header(), data(), 0)),
    "header-short": ("header length cuts the JSON", lambda: pack(header(), data(), 40)),
    "header-100-mb": ("100 MB of header", lambda: pack(b"{" + b" " * 100_000_000 + b"}", b"")),
    "header-8-mb-lists": ("8 MB of nested lists", lambda: pack(b'{"a":' + b"[" * 8_000_000, b"")),
    "header-8-mb-empty-lists": (
        "8 MB of empty lists",
        lambda: pack(b'{"a":[' + b"[]," * 2_700_000 + b"[]]}", b""),
    ),
    "header-8-mb-strings": (
        "8 MB of short texts",
        lambda: pack(b'{"a":[' + b'"ab",' * 1_600_000 + b'"ab"]}', b""),
    ),
    "header-8-mb-quotes": ("8 MB of open quotes", lambda: pack(b'{"' + b'\\"' * 4_000_000, b"")),
    "million-keys": ("10^6 tensors", million_keys),
    "many-keys": ("50,000 tensors", many_keys),
    "deep-json": ("100,000 brackets deep", lambda: pack(b'{"a":' * 100_000, b"")),
    "not-json": ("a header of noise", lambda: pack(b"\x93noise" * 10, data())),
    "not-utf8": ("a header that is no UTF-8", lambda: pack(b'{"\xff\xfe": 1}', data())),
    "json-list": ("a header that is a list", lambda: pack(b"[1, 2]", data())),
    "json-nan": ("NaN as a number of the header", lambda: in_text("[4, 768]", "[NaN, 768]")),
    "long-integer": ("an integer of 5000 digits", lambda: in_text("768", "7" * 5000)),
    "float-shape": ("a size that is no integer", lambda: in_text("768", "768.0")),
    "true-shape": ("a size that is a truth value", lambda: in_text("[4, 768]", "[true, 768]")),
    "negative-shape": ("negative sizes", lambda: changed(DOWN, shape=[-4, -768])),
    "overflow-shape": ("sizes whose product overflows", lambda: changed(DOWN, shape=[1 << 40] * 8)),
    "many-dimensions": ("nine dimensions", lambda: changed(DOWN, shape=[4, 768] + [1] * 7)),
    "duplicate-key": ("a tensor named twice", with_duplicate),
    "overlap": ("tensors that overlap", lambda: changed(UP, data_offsets=[6000, 6256])),
    "hole": ("a hole between tensors", lambda: changed(UP, data_offsets=[6148, 6404])),
    "reversed-offsets": ("end before start", lambda: changed(UP, data_offsets=[6402, 6146])),
    "offsets-past-end": ("offsets past the end", lambda: changed(UP, data_offsets=[9000, 9256])),
    "three-offsets": ("three offsets", lambda: changed(UP, data_offsets=[6146, 6402, 6500])),
    "wrong-dtype": ("a dtype that is none", lambda: changed(DOWN, dtype="float16")),
    "dtype-list": ("a dtype that is a list", lambda: changed(DOWN, dtype=["F16"])),
    "bool-factor": ("a factor of truth values", lambda: changed(DOWN, dtype="BOOL")),
    "integer-factor": ("a factor of integers", lambda: changed(DOWN, dtype="I16")),
    "extra-field": ("a field too many", lambda: changed(DOWN, loader="os.system")),
    "entry-is-text": ("a tensor that is a text", lambda: pack({DOWN: "F16"}, b"")),
    "no-tensors": ("an empty header", lambda: pack({}, b"")),
    "zero-d-factor": ("a factor without dimensions", lambda: with_rank([])),
    "empty-factor": ("a factor without elements", lambda: with_rank([32, 0])),
    "rank-disagrees": ("down has rank 4, up rank 3", lambda: with_rank([32, 3])),
    "three-dimensional": ("a factor of three dimensions", lambda: with_rank([32, 4, 1])),
    "mixed-kinds": ("a linear down, a convolution's up", lambda: with_rank([32, 4, 1, 1])),
    "missing-up": ("no up factor", lambda: without(UP)),
    "only-alpha": ("an alpha without factors", lambda: pack({ALPHA: header()[ALPHA]}, data()[:2])),
    "alpha-vector": ("an alpha that is a vector", lambda: changed(ALPHA, shape=[1, 1])),
    "alpha-nan": ("an alpha that is NaN", lambda: with_alpha(b"\x00\x7e")),
    "nan": ("a weight that is NaN", lambda: with_number(b"\x00\x7e")),
    "infinite": ("a weight that is infinite", lambda: with_number(b"\x00\x7c")),
    "path-parts": ("a name with path parts", lambda: renamed(UP, "../../etc/passwd")),
    "nul-name": ("a name with a NUL", lambda: renamed(UP, f"{BODY}\0.lora_up.weight")),
    "escape-name": ("a name that steers terminals", lambda: renamed(UP, "\x1b[2J.lora_up.weight")),
    "unicode-digits": (
        "Arabic digits in a block number",
        lambda: renamed(UP, UP.replace("_0_", "_\u0660_")),
    ),
    "stranger": ("a tensor of no module", lambda: renamed(UP, "lora_unet_foo.lora_up.weight")),
    "metadata-numbers": ("metadata that is no text", lambda: with_metadata({"a": 1})),
    "metadata-list": ("metadata that is a list", lambda: with_metadata(["a"])),
    "metadata-surrogate": ("half a character", lambda: with_metadata({"a": "\ud800"})),
    "card-deep": (
        "a card of 100,000 brackets",
        lambda: with_metadata({"spf_lora": "[" * 100_000}),
    ),
    "peft-regex": (
        "a regular expression that never ends",
        lambda: with_metadata(
            {
                "lora_adapter_metadata": json.dumps(
                    {"unet.r": 4, "unet.lora_alpha": 4, "unet.rank_pattern": {"(a+)+$": 4}}
                )
            }
        ),
    ),
    "pickle": ("a pickle that would run a command", lambda: pickle.dumps(Trap(), protocol=4)),
    "pickle-2": ("an old pickle", lambda: pickle.dumps(Trap(), protocol=2)),
    "zip": ("a zip", zipped),
    "web-page": ("a web page", lambda: b"<!DOCTYPE html><html><body>Sign in</body></html>"),
    "lfs-pointer": ("a git-lfs pointer", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
    "loha": ("LoHa", lambda: renamed(UP, f"{BODY}.hada_w1_a")),
    "lokr": ("LoKr", lambda: renamed(UP, f"{BODY}.lokr_w1")),
    "dora": ("DoRA", lambda: renamed(UP, f"{BODY}.dora_scale")),
    "oft": ("OFT", lambda: renamed(UP, f"{BODY}.oft_blocks")),
    "diff": ("a full difference", lambda: renamed(UP, f"{BODY}.diff")),
    "sdxl-text": (
        "the second text encoder of SDXL",
        lambda: renamed(UP, "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"),
    ),
    "peft-without-config": (
        "a peft file whose configuration is lost",
        lambda: pack(
            {
                "base_model.model.conv_in.lora_A.weight": entry("F16", [1, 4, 3, 3], 0),
                "base_model.model.conv_in.lora_B.weight": entry("F16", [2, 1, 1, 1], 72),
            },
            bytes(76),
        ),
    ),
}


class Trap:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch pickle-was-opened",))


def sound() -> bytes:
    """The file that all others were made from."""
    return pack(header(), data())


def write(folder: Path) -> Iterator[Path]:
    """Write the corpus, and what is no plain file: a FIFO, a folder, links."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, make) in CORPUS.items():
        path = folder / f"{name}.safetensors"
        path.write_bytes(make())
        yield path
    (folder / "real.bin").write_bytes(sound())
    for name, target in (("link-to-nothing", "nowhere"), ("link-to-itself", "link-to-itself")):
        link = folder / f"{name}.safetensors"
        suffix = ".safetensors" if target == name else ""
        link.symlink_to(f"{target}{suffix}")
        yield link
    fifo = folder / "fifo.safetensors"
    os.mkfifo(fifo)
    yield fifo
    inside = folder / "folder.safetensors"
    inside.mkdir()
    yield inside


if __name__ == "__main__":
    for written in write(Path(sys.argv[1])):
        print(written)
