import json
import shutil

import pytest
from adapter_files import heavy_imports, sound_file, spf_lora

from spf_lora.cli.adapters import _COLUMNS


@pytest.fixture
def beard(shelf):
    return sound_file(shelf, "beard.safetensors")


def run(*words, shelf, code=0):
    return spf_lora("adapters", *words, "--registry", shelf, code=code)


def test_list_shows_what_the_cards_say(shelf, beard):
    shown = run("list", shelf=shelf).stdout.splitlines()
    assert shown[0].split() == list(_COLUMNS)
    assert shown[1].split()[:2] == ["beard", "beard"]
    (row,) = run("list", "--json", shelf=shelf).json
    assert row["name"] == "beard"
    assert row["target_text"] == "a beard"
    assert row["base_id"] == "sd15:0123"
    assert row["file"] == str(beard)
    assert row["fault"] is None


def test_list_names_a_broken_file_and_one_that_cannot_be_called_and_goes_on(shelf, beard):
    (shelf / "broken.safetensors").write_bytes(b"PK\x03\x04 not one")
    shutil.copy(beard, shelf / "My Beard (v2).safetensors")
    done = run("list", shelf=shelf)
    assert len(done.stdout.splitlines()) == 3
    assert "broken.safetensors cannot be read" in done.stderr
    assert "My Beard (v2).safetensors cannot be called by name" in done.stderr


def test_an_empty_registry_says_where_it_looked(shelf):
    done = run("list", shelf=shelf)
    assert done.stdout == ""
    assert "adapters where" in done.stderr
    assert run("list", "--json", shelf=shelf).json == []


def test_a_registry_that_is_no_folder_is_refused(shelf):
    assert "is no folder" in run("list", shelf=shelf / "missing", code=1).stderr


def test_show_tells_what_inspect_tells(shelf, beard):
    assert run("show", "beard", shelf=shelf).stdout == spf_lora("inspect", beard).stdout
    (facts,) = run("show", "beard", "--json", shelf=shelf).json
    assert facts["card"]["attribute"] == "beard"
    assert "no adapter is called hat" in run("show", "hat", shelf=shelf, code=1).stderr


def test_add_takes_the_file_name_as_the_name_and_makes_the_folder(shelf, beard):
    new = shelf / "new"
    done = run("add", beard, shelf=new)
    assert done.stdout.strip() == str(new / "beard.safetensors")
    assert "is taken" in run("add", beard, shelf=new, code=1).stderr
    run("add", beard, "--name", "beard-2", shelf=new)
    assert [row["name"] for row in run("list", "--json", shelf=new).json] == ["beard", "beard-2"]


def test_what_remove_prints_undoes_it(shelf, beard):
    before = beard.read_bytes()
    done = run("remove", "beard", shelf=shelf)
    assert not beard.exists()
    undo = next(line for line in done.stderr.splitlines() if line.startswith("undo: "))
    spf_lora(*undo.removeprefix("undo: spf-lora ").split())
    assert beard.read_bytes() == before


def test_rename_prints_the_new_file(shelf, beard):
    done = run("rename", "beard", "goatee", shelf=shelf)
    assert done.stdout.strip() == str(shelf / "goatee.safetensors")
    assert not beard.exists()


def test_verify_exits_3_for_a_damaged_file_and_names_it(shelf, beard):
    assert "all 1 are sound" in run("verify", shelf=shelf).stdout
    data = bytearray(beard.read_bytes())
    data[-2:] = b"\x00\x7e"
    (shelf / "hat.safetensors").write_bytes(data)
    done = run("verify", shelf=shelf, code=3)
    assert "1 of 2 adapters did not pass: hat" in done.stderr
    assert "NaN" in done.stdout
    assert run("verify", "beard", "--json", shelf=shelf).json.keys() == {"beard"}


def test_where_shows_the_search_order_and_one_file(shelf, beard):
    rows = run("where", "--json", shelf=shelf).json
    assert [row["place"] for row in rows] == ["--registry", "./adapters", "user data", "shipped"]
    assert [row["adds_here"] for row in rows] == [True, False, False, False]
    assert "adds go here" in run("where", shelf=shelf).stdout
    assert run("where", "beard", shelf=shelf).stdout.strip() == str(beard)
    assert json.loads(run("where", "beard", "--json", shelf=shelf).stdout)["file"] == str(beard)


def test_text_of_a_card_cannot_steer_the_terminal(shelf):
    sound_file(shelf, "evil.safetensors", metadata={"modelspec.title": "\x1b[2Jred[bold]"})
    shown = run("list", shelf=shelf).stdout
    assert "\x1b" not in shown


def test_the_registry_imports_no_torch(shelf, beard):
    every = (["list"], ["show", "beard"], ["verify"], ["where"])
    assert heavy_imports(*(["adapters", *words, "--registry", shelf] for words in every)) == []
