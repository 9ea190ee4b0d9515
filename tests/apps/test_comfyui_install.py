"""`comfyui install` copies, upgrades, links and refuses."""

import tomllib

import pytest
from root import ROOT

import spf_lora
from spf_lora.apps.comfyui.install import files, install
from spf_lora.errors import OutputError


def test_install_copies_upgrades_and_links(comfyui):
    folder = install(comfyui)
    names = {path.name for path in folder.iterdir()}
    assert names == {*files()} >= {"nodes.py", "control_map.py", "pyproject.toml"}
    home = ROOT / "spf_lora/method/control_map.py"
    assert (folder / "control_map.py").read_bytes() == home.read_bytes()
    (folder / "old.py").write_text("")  # of an older version
    (folder / "nodes.py").write_text("")
    assert install(comfyui) == folder
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "nodes.py").read_text()
    install(comfyui, link=True)
    assert (folder / "nodes.py").resolve() == files()["nodes.py"].resolve()
    install(comfyui)
    assert not (folder / "nodes.py").is_symlink()
    assert [path.name for path in (comfyui / "custom_nodes").iterdir()] == ["spf_lora"]


def test_install_refuses_what_is_no_comfyui_and_what_is_not_ours(comfyui, tmp_path, cli):
    code, _, talk = cli("comfyui", "install", tmp_path / "nowhere")
    assert code == 1
    assert "is no ComfyUI" in talk
    other = comfyui / "custom_nodes" / "spf_lora"
    other.mkdir(parents=True)
    (other / "theirs.py").touch()
    with pytest.raises(OutputError, match="is not ours"):
        install(comfyui)
    assert (other / "theirs.py").exists()
    (other / "theirs.py").unlink()
    code, said, _ = cli("comfyui", "install", comfyui)
    assert (code, said.strip()) == (0, str(other))


def test_the_pack_can_be_published_at_our_version():
    table = tomllib.loads(files()["pyproject.toml"].read_text())
    assert table["project"]["version"] == spf_lora.__version__
    assert table["project"]["dependencies"] == []
    assert table["tool"]["comfy"]["DisplayName"]
