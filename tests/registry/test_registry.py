import errno
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from spf_lora.adapters.format import card as cards
from spf_lora.adapters.format.adapter_file import Adapter, Module, read_adapter, write_adapter
from spf_lora.adapters.format.glance import glance
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.format.rewrite import convert
from spf_lora.errors import AdapterFileError, OutputError, RegistryError
from spf_lora.registry import edit, names
from spf_lora.shipped import shipped_folder

NAMES = [f"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_{one}" for one in "kv"]


@pytest.fixture
def beard(tmp_path, make_adapter, full_metadata):
    path = tmp_path / "beard.safetensors"
    write_adapter(make_adapter(NAMES, metadata=full_metadata), path)
    return path


def test_a_registry_that_is_a_link_to_itself_is_told(shelf, tmp_path, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv(names.VARIABLE, str(tmp_path / "loop"))
    with pytest.raises(RegistryError, match="symbolic links"):
        listed()


def test_a_registry_that_is_a_file_is_told_when_something_is_added(shelf, beard, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is a file, so it cannot be a folder"):
        edit.add(beard, "beard", tmp_path / "file")


def listed(folder=None):
    return [entry.name for entry in names.entries(folder)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_sound_kohya_file_is_copied_byte_for_byte_with_its_picture(shelf, beard):
    beard.with_suffix(".png").write_bytes(b"picture")
    done = edit.add(beard, "beard", shelf)
    assert done.entry.path == shelf / "beard.safetensors"
    assert done.picture
    assert not done.rewritten
    assert done.entry.path.read_bytes() == beard.read_bytes()
    assert (shelf / "beard.png").read_bytes() == b"picture"
    assert listed(shelf) == ["beard"]


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_any_layout_is_taken_as_one_kohya_file_with_its_content_and_card(
    shelf, beard, tmp_path, layout, card
):
    source = tmp_path / f"source-{layout}"
    convert(beard, source, layout=layout, dtype=None, overwrite=False)
    done = edit.add(source, "beard", shelf)
    assert done.rewritten == f"its layout is {layout}"
    added = read_adapter(done.entry.path)
    assert content_id(added) == content_id(read_adapter(beard))
    assert cards.from_metadata(added.metadata) == card
    assert all(one.status == "ok" for one in names.verify(done.entry))


def test_a_taken_name_is_refused_and_what_was_there_stays(shelf, beard, tmp_path, make_adapter):
    edit.add(beard, "beard", shelf)
    write_adapter(make_adapter(NAMES, seed=1), tmp_path / "other.safetensors")
    with pytest.raises(RegistryError, match="the name beard is taken"):
        edit.add(tmp_path / "other.safetensors", "beard", shelf)
    edit.add(tmp_path / "other.safetensors", "hat", shelf)
    with pytest.raises(RegistryError, match="the name beard is taken"):
        edit.rename("hat", "beard", shelf)
    assert listed(shelf) == ["beard", "hat"]
    assert (shelf / "beard.safetensors").read_bytes() == beard.read_bytes()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../beard", "is no name"),
        ("a/b", "is no name"),
        ("/etc/passwd", "is no name"),
        ("a\\b", "is no name"),
        ("..", "is no name"),
        ("", "is no name"),
        ("beard.safetensors", "is no name"),
        ("Beard", "is no name"),
        ("beard\n", "is no name"),
        ("bart-größe", "is no name"),
        ("-rf", "is no name"),
        ("b" * 65, "is no name"),
        ("con", "reserved word"),
        ("LPT1", "reserved word"),
        ("embedded", "reserved word"),
        ("all", "reserved word"),
    ],
)
def test_paths_and_reserved_words_are_no_names(shelf, beard, name, reason):
    for change in (
        lambda: edit.add(beard, name, shelf),
        lambda: edit.remove(name, shelf),
        lambda: names.find(name, shelf),
        lambda: edit.rename(name, "other", shelf),
    ):
        with pytest.raises(RegistryError, match=reason):
            change()
    assert listed(shelf) == []


@pytest.mark.parametrize("damage", ["nan", "cut", "card", "no file"])
def test_what_cannot_be_used_is_not_added(shelf, beard, tmp_path, damage):
    bad = tmp_path / "bad.safetensors"
    if damage == "nan":
        data = bytearray(beard.read_bytes())
        data[-2:] = b"\x00\x7e"
        bad.write_bytes(data)
    elif damage == "cut":
        bad.write_bytes(beard.read_bytes()[:-1])
    elif damage == "card":
        entries = {cards.KEY: "{}"}
        write_adapter(Adapter(read_adapter(beard).modules, entries), bad)
    reason = {"nan": "NaN", "cut": "should be", "card": "card cannot be used"}
    with pytest.raises(AdapterFileError, match=reason.get(damage, "does not exist")):
        edit.add(bad, "bad", shelf)
    assert content(shelf) == {}


def test_a_wrong_declared_hash_is_put_right(shelf, beard, tmp_path):
    data = beard.read_bytes()
    at = data.index(b'"sshs_model_hash":"') + len(b'"sshs_model_hash":"')
    lying = tmp_path / "lying.safetensors"
    lying.write_bytes(data[:at] + b"0" * 64 + data[at + 64 :])
    done = edit.add(lying, "beard", shelf)
    assert done.rewritten == "it declared a wrong hash"
    assert done.entry.path.read_bytes() == data


def test_remove_can_be_undone(shelf, beard):
    beard.with_suffix(".png").write_bytes(b"picture")
    edit.add(beard, "beard", shelf)
    before = content(shelf)
    trashed = edit.remove("beard", shelf)
    assert listed(shelf) == []
    assert not (shelf / "beard.png").exists()
    edit.add(trashed, trashed.stem, shelf)
    assert content(shelf) == before


def test_rename_moves_the_picture_too_and_leaves_the_bytes(shelf, beard):
    beard.with_suffix(".png").write_bytes(b"picture")
    edit.add(beard, "beard", shelf)
    edit.rename("beard", "long-beard", shelf)
    assert listed(shelf) == ["long-beard"]
    assert (shelf / "long-beard.safetensors").read_bytes() == beard.read_bytes()
    assert (shelf / "long-beard.png").exists()


def test_the_first_folder_in_the_search_order_wins(shelf, beard, tmp_path, monkeypatch):
    user = tmp_path / "data" / "spf-lora" / "adapters"
    for folder in (shelf, tmp_path / "told", tmp_path / "adapters", user, tmp_path / "shipped"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(beard, folder)
    monkeypatch.setenv(names.VARIABLE, str(tmp_path / "told"))
    found = [place.label for place in names.places(shelf)]
    assert found == ["--registry", names.VARIABLE, "./adapters", "user data", "shipped"]
    for at, place in enumerate(names.places(shelf)):
        assert names.find("beard", shelf).place.label == found[at]
        assert len(listed(shelf)) == 1
        (place.folder / "beard.safetensors").unlink()
    with pytest.raises(RegistryError, match="no adapter is called beard"):
        names.find("beard", shelf)


def test_additions_go_to_the_user_folder_where_nothing_else_is_asked_for(shelf, beard, tmp_path):
    assert edit.add(beard, "beard").entry.place.label == "user data"
    (tmp_path / "adapters").mkdir()
    assert edit.add(beard, "beard").entry.place.label == "./adapters"


def test_shipped_adapters_and_those_of_other_registries_are_not_removed(shelf, beard, tmp_path):
    (tmp_path / "shipped").mkdir()
    shutil.copy(beard, tmp_path / "shipped")
    with pytest.raises(RegistryError, match="came with spf-lora"):
        edit.remove("beard")
    with pytest.raises(RegistryError, match="has no beard; it is in"):
        edit.remove("beard", shelf)
    assert names.find("beard").path.exists()


def test_adapters_beside_the_shipped_ones_do_not_pass_for_shipped():
    folder = shipped_folder("adapters")
    assert folder.is_dir()
    assert folder.name == "demo"


def test_a_near_name_is_suggested(shelf, beard):
    edit.add(beard, "beard", shelf)
    with pytest.raises(RegistryError) as caught:
        names.find("baerd", shelf)
    assert caught.value.hint == "did you mean beard?"


def test_a_name_is_resolved_in_the_registry_first_and_a_path_as_a_path(shelf, beard, tmp_path):
    edit.add(beard, "hat", shelf)
    (tmp_path / "hat").mkdir()
    assert names.resolve("hat", shelf) == shelf / "hat.safetensors"
    assert names.resolve(str(beard), shelf) == beard
    assert names.resolve("beard.safetensors", shelf) == Path("beard.safetensors")
    with pytest.raises(AdapterFileError, match="does not exist"):
        names.resolve("./missing", shelf)
    with pytest.raises(RegistryError, match="no adapter is called missing"):
        names.resolve("missing", shelf)


def test_a_read_only_registry_is_refused_before_anything_is_written(shelf, beard, monkeypatch):
    edit.add(beard, "beard", shelf)
    before = content(shelf)
    monkeypatch.setattr(os, "access", lambda *_: False)
    for change in (
        lambda: edit.add(beard, "hat", shelf),
        lambda: edit.remove("beard", shelf),
        lambda: edit.rename("beard", "hat", shelf),
    ):
        with pytest.raises(OutputError, match="read-only"):
            change()
    assert content(shelf) == before
    assert listed(shelf) == ["beard"]


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(shelf, beard, monkeypatch):
    edit.add(beard, "beard", shelf)
    before = content(shelf)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        edit.add(beard, "hat", shelf)
    assert content(shelf) == before


def test_glance_reads_what_is_there_and_survives_what_is_not(tmp_path, beard):
    assert glance(beard).attribute == "beard"
    assert glance(beard).target_text == "a beard"
    assert glance(beard).parents == 1
    table = json.dumps({"a.weight": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}})
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes(len(table).to_bytes(8, "little") + table.encode())
    assert glance(bare).attribute == ""
    for data in (b"", b"PK\x03\x04" * 9, b"\xff" * 64, (40).to_bytes(8, "little") + b"[" * 40):
        bare.write_bytes(data)
        with pytest.raises(AdapterFileError, match=r"bare\.safetensors"):
            glance(bare)
    deep = '{"__metadata__":' + "[" * 100_000
    bare.write_bytes(len(deep).to_bytes(8, "little") + deep.encode() + b"x" * 8)
    with pytest.raises(AdapterFileError, match=r"bare\.safetensors"):
        glance(bare)
    large = read_adapter(beard)
    bare.unlink()
    write_adapter(Adapter(large.modules, {**large.metadata, "a": "x" * 300_000}), bare)
    assert glance(bare).attribute == "beard"


def work(folder, source, worker, seed, operations):
    """Add, remove, rename and list at random; return the names left and what was refused."""
    rng = np.random.default_rng([seed, worker])
    mine, refused, serial = [], [], 0
    for _ in range(operations):
        action = rng.integers(5) if mine else 0
        if action == 0:
            mine.append(f"w{worker}-{serial}")
            serial += 1
            edit.add(source, mine[-1], folder)
        elif action == 1:
            edit.remove(mine.pop(int(rng.integers(len(mine)))), folder)
        elif action == 2:
            at = int(rng.integers(len(mine)))
            edit.rename(mine[at], f"w{worker}-{serial}", folder)
            mine[at] = f"w{worker}-{serial}"
            serial += 1
        elif action == 3:
            assert set(mine) <= set(listed(folder))
        else:  # all workers want this name; who holds it takes it away again
            try:
                edit.add(source, "contested", folder)
            except RegistryError as error:
                refused.append(error.message)
            else:
                edit.remove("contested", folder)
    return mine, refused


def test_four_processes_with_200_operations_each_lose_nothing(shelf, tmp_path):
    source = tmp_path / "tiny.safetensors"
    down, up = np.ones((1, 3), np.float16), np.ones((2, 1), np.float16)
    write_adapter(Adapter({name: Module(name, down, up, 1.0) for name in NAMES}), source)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        ended = pool.starmap(work, [(shelf, source, worker, 0, 200) for worker in range(4)])
    assert sorted(listed(shelf)) == sorted(name for mine, _ in ended for name in mine)
    assert all("the name contested is taken" in one for _, refused in ended for one in refused)
    for name in listed(shelf):
        assert (shelf / f"{name}.safetensors").read_bytes() == source.read_bytes()
    assert not [path for path in shelf.iterdir() if path.suffix in (".add", ".tmp")]


def test_ten_thousand_adapters_are_listed_by_their_headers_alone(shelf, beard):
    edit.add(beard, "a0", shelf)
    for at in range(1, 10_000):
        os.link(shelf / "a0.safetensors", shelf / f"a{at}.safetensors")
    began = time.process_time()
    found = [glance(entry.path).attribute for entry in names.entries(shelf)]
    listed = time.process_time() - began
    assert found == ["beard"] * 10_000
    began = time.process_time()
    assert names.find("a7777", shelf).path.exists()
    found_one = time.process_time() - began
    # processor seconds, so that a busy machine fails nothing; the wall clock is the benchmark's
    assert listed < 1.5
    assert found_one < listed / 5
