"""What is fuzzed: each reader with sound files of its kind, and what is done with what it accepts.

A reader takes the bytes of a file and a folder to lay it down in. It must come back, or raise an
`SpfError` (a `ValueError` where its caller says where), in little time and memory.
"""

import io
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sound_files
from hostile import changed, dumped, edited
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from root import ROOT

from spf_lora.adapters.check.checks import verify
from spf_lora.adapters.check.facts import inspect
from spf_lora.adapters.format import card as cards
from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.glance import glance
from spf_lora.adapters.format.multiplied import method_of, read_multiplied
from spf_lora.adapters.format.peft import read_config
from spf_lora.base.outline import read_outline
from spf_lora.cli import facts_view
from spf_lora.data.captions import base_phrases, base_prompt, full_prompt
from spf_lora.data.completion import load_vocabulary
from spf_lora.data.folder import scan_folder
from spf_lora.data.pictures import open_picture
from spf_lora.draw.infotext import ENTRY, parse, read_infotext
from spf_lora.errors import MeasureError, SpfError
from spf_lora.evaluate.protocol import read_prompts
from spf_lora.evaluate.result import from_json
from spf_lora.publish.folder import Manifest, read_manifest
from spf_lora.publish.submission import read_submission
from spf_lora.recipe.digest import canonical_json, table_hash
from spf_lora.recipe.load import load_recipe, recipe_hash
from spf_lora.recipe.schema import Attribute
from spf_lora.registry.names import Place
from spf_lora.registry.stack import onto_members, read_stack, to_toml

BEARD = Attribute(
    name="beard", target_text="a beard", aliases=("beard", "bearded"), replaces=("* hair",)
)
Edit = Callable[[bytes, Any], bytes]


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        sound: makes the files that it must accept, by name.
        read: reads bytes, given a folder that is its own.
        edit: makes a hostile file of a sound one.
        refuses: what it may raise.
        share: of the time that all readers have.
    """

    sound: Callable[[], Mapping[str, bytes]]
    read: Callable[[bytes, Path], object]
    edit: Edit = edited
    refuses: type[Exception] = SpfError
    share: float = 1.0


def _put(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def _adapter(data: bytes, folder: Path) -> object:
    path = _put(data, folder, "a.safetensors")
    for finding in verify(path):  # never raises
        assert finding.detail
    with suppress(SpfError):
        glance(path)
    facts = inspect(path)
    json.dumps(facts.as_json(), allow_nan=False).encode()
    facts_view.show_facts([facts], as_json=False)
    return read_adapter(path)


def _multiplied(data: bytes, folder: Path) -> object:
    path = _put(data, folder, "a.safetensors")
    assert method_of(path) or read_adapter(path)
    weight = np.linspace(-1, 1, 48, dtype=np.float32).reshape(8, 6)
    adapter = read_multiplied(path, lambda name: weight)
    for module in adapter.modules.values():
        assert np.isfinite(module.up).all()
        assert np.isfinite(module.down).all()
    return adapter


def _header_edited(data: bytes, rng: Any) -> bytes:
    """Edit the header and keep the lengths true, or a few numbers, or anything at all."""
    length = int.from_bytes(data[:8], "little")
    head, body = data[8 : 8 + length], bytearray(data[8 + length :])
    kind = rng.randrange(5)
    if kind == 0:
        return edited(data, rng)
    if kind == 1:
        for _ in range(rng.randint(1, 9)):  # NaN, inf, the largest, a denormal, as fp16 has them
            at = rng.randrange(len(body) - 4)
            body[at : at + 2] = rng.choice((b"\x00\x7e", b"\x00\x7c", b"\xff\x7b", b"\x01\x00"))
    elif kind == 2:
        head = edited(head, rng)
    else:
        table = json.loads(head)
        where = table.setdefault("__metadata__", {}) if kind == 3 else table
        if kind == 3 and cards.KEY in where and rng.random() < 0.7:
            where[cards.KEY] = _card_edited(where[cards.KEY].encode(), rng).decode(
                "utf-8", "replace"
            )
        else:
            table = changed(table, rng)
        head = dumped(table).encode("utf-8", "surrogatepass")
    return len(head).to_bytes(8, "little") + head + bytes(body)


def _card(data: bytes, _: Path) -> object:
    card = cards.from_metadata({cards.KEY: data.decode("utf-8", "replace")})
    assert card is not None
    canonical_json(cards.as_table(card)).encode()
    cards.file_metadata(card, rank=4, alpha=4.0, title="a")
    cards.attribute_of(card)
    with suppress(SpfError):
        onto_members(card)
    return card


def _card_edited(data: bytes, rng: Any) -> bytes:
    if rng.random() < 0.2:
        return edited(data, rng)
    table = changed(json.loads(data), rng)
    if rng.random() < 0.8 and isinstance(table, dict):  # else its own hash gives every change away
        with suppress(ValueError):
            table["recipe_hash"] = table_hash(table.get("recipe"))
    return dumped(table).encode("utf-8", "surrogatepass")


def _json_edited(data: bytes, rng: Any) -> bytes:
    if rng.random() < 0.3:
        return edited(data, rng)
    return dumped(changed(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def _stack(data: bytes, folder: Path) -> object:
    _put(data, folder, "a.stack.toml")
    stack = read_stack("a", Place("x", folder))
    _put(to_toml(stack).encode(), folder, "b.stack.toml")
    again = read_stack("b", Place("x", folder))
    assert (again.base_id, again.members) == (stack.base_id, stack.members)
    return stack


def _recipe(data: bytes, folder: Path) -> object:
    return recipe_hash(load_recipe(_put(data, folder, "beard.toml")))


def _report(data: bytes, _: Path) -> object:
    result = from_json(data.decode("utf-8", "replace"))
    assert from_json(result.to_json()) == result
    for figure in result.numbers.values():
        figure.text()
    return result


def _submission(data: bytes, folder: Path) -> object:
    read = read_submission(_put(data, folder, "mine.json"))
    assert read_submission(_put(read.to_json().encode(), folder, "again.json")) == read
    return read


def _submission_edited(data: bytes, rng: Any) -> bytes:
    table = changed(json.loads(data), rng)
    if rng.random() < 0.8 and isinstance(table, dict):  # else its signature gives it away
        table.pop("signature", None)
        with suppress(ValueError):
            table["signature"] = table_hash(table)
    return dumped(table).encode("utf-8", "surrogatepass")


def _manifest(data: bytes, folder: Path) -> object:
    try:
        manifest = read_manifest(_put(data, folder, "spf-lora.json"))
    except ValueError as error:
        raise MeasureError(str(error), hint="as `pull` does") from error
    assert "/" not in manifest.name
    return manifest


def _captions(data: bytes, folder: Path) -> object:
    name = {b"{": "metadata.jsonl", b"f": "metadata.csv"}.get(data[:1], "a.txt")
    for stale in ("metadata.jsonl", "metadata.csv", "a.txt"):
        (folder / stale).unlink(missing_ok=True)
    if not (folder / "a.png").exists():
        Image.new("RGB", (8, 8)).save(folder / "a.png")
    _put(data, folder, name)
    scan = scan_folder(folder, BEARD)
    assert all(str(fault) for fault in scan.faults)
    for example in scan.examples:
        prompt = base_prompt(example.caption, BEARD)
        base_phrases(prompt, BEARD)
        full_prompt(prompt, BEARD).encode()
    return scan


def _picture(data: bytes, folder: Path) -> object:
    picture = open_picture(_put(data, folder, "a.png"), shorter_side_px=32)
    assert picture.image.mode == "RGB"
    assert min(picture.image.size) <= 32
    return picture


def _infotext(data: bytes, folder: Path) -> object:
    found = read_infotext(_put(data, folder, "a.png"))
    if found is not None:
        parse(found.text())
        assert all(math.isfinite(weight) for _, weight in found.adapters)
    return found


def _info_edited(data: bytes, rng: Any) -> bytes:
    """Edit the text and pack it again, or any byte at all."""
    if rng.random() < 0.3:
        return edited(data, rng)
    with Image.open(io.BytesIO(data)) as picture:
        text = edited(picture.info.get(ENTRY, "Steps: 1, Seed: 2, Size: 3").encode(), rng)
        info = PngInfo()
        info.add_text(ENTRY, text.decode("latin-1").replace("\0", "?"), zip=rng.random() < 0.5)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _vocabulary(data: bytes, folder: Path) -> object:
    return load_vocabulary(str(_put(data, folder, "words.toml")))


def _base(data: bytes, folder: Path) -> object:
    for part in ("unet", "vae"):
        _put(data, folder / part, "config.json")
    outline = read_outline(folder)
    assert 1 <= outline.resolution <= 8192
    assert 1 <= outline.step <= 8192
    return outline


def _peft(data: bytes, folder: Path) -> object:
    scale = read_config(_put(data, folder, "adapter_config.json"))
    module = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    with suppress(SpfError):
        scale.alpha_for(module, scale.rank, folder)
    return scale


def _checkpoint(data: bytes, folder: Path) -> object:
    from spf_lora.training.checkpoint import load_checkpoint

    return load_checkpoint(_put(data, folder, "c.safetensors"))


def _prompts(data: bytes, folder: Path) -> object:
    return read_prompts(_put(data, folder, "prompts.txt"))


READERS = {
    "adapter": Reader(
        lambda: {"demo": sound_files.demo("beard")}, _adapter, _header_edited, share=2
    ),
    "multiplied": Reader(
        lambda: {"methods": sound_files.other_methods()}, _multiplied, _header_edited
    ),
    "card": Reader(lambda: {"card": sound_files.true_card()}, _card, _card_edited),
    "stack": Reader(lambda: {"stack": sound_files.STACK.encode()}, _stack),
    "recipe": Reader(
        lambda: {name: (ROOT / name).read_bytes() for name in sound_files.RECIPES}, _recipe
    ),
    "report": Reader(lambda: {"report": sound_files.small_report()}, _report, _json_edited),
    "submission": Reader(
        lambda: {"submission": sound_files.submission()}, _submission, _submission_edited
    ),
    "manifest": Reader(
        lambda: {"manifest": Manifest("beard", "ab" * 32).to_json().encode()},
        _manifest,
        _json_edited,
    ),
    "captions": Reader(lambda: sound_files.CAPTIONS, _captions),
    "pictures": Reader(sound_files.pictures, _picture, refuses=ValueError, share=2),
    "infotext": Reader(sound_files.drawn, _infotext, _info_edited),
    "vocabulary": Reader(
        lambda: {"words": (ROOT / "recipes/vocabularies/portraits.toml").read_bytes()}, _vocabulary
    ),
    "base config": Reader(
        lambda: {"unet": (sound_files.BASE / "unet/config.json").read_bytes()}, _base, _json_edited
    ),
    "peft config": Reader(
        lambda: {"peft": json.dumps(sound_files.PEFT).encode()}, _peft, _json_edited
    ),
    "checkpoint": Reader(
        lambda: {"checkpoint": sound_files.saved_checkpoint()}, _checkpoint, _header_edited
    ),
    "prompts": Reader(
        lambda: {"prompts": b"# who\na woman, red hair\na man in a coat\n"}, _prompts
    ),
}
