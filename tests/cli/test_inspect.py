from adapter_files import heavy_imports, sound_file, spf_lora

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.hashes import autov2, autov3, content_id


def test_inspect_tells_every_fact_as_json(tmp_path):
    path = sound_file(tmp_path)
    (facts,) = spf_lora("inspect", path, "--json").json
    assert facts["family"] == "Stable Diffusion 1"
    assert facts["modules"] == 26
    assert facts["ranks"] == {"4": 26}
    assert facts["alphas"] == {"2": 26}
    assert facts["dtypes"] == {"F16": 26}
    assert facts["declared"]["trigger"] == "a beard"
    assert facts["card"]["parents"] == ["ab" * 32]
    assert facts["hashes"] == {
        "content id": content_id(read_adapter(path)),
        "AutoV2": autov2(path),
        "AutoV3": autov3(path),
    }
    assert set(facts["norms"]) == {
        *(f"unet.down_blocks.{at}" for at in range(3)),
        *(f"unet.up_blocks.{at}" for at in (1, 3)),
        "unet.mid_block",
    }
    assert {one["read"] for one in facts["apps"].values()} == {78}
    assert {one["refused"] for one in facts["apps"].values()} == {None}


def test_inspect_draws_a_bar_for_each_block_and_the_provenance(tmp_path):
    shown = spf_lora("inspect", sound_file(tmp_path)).stdout
    bars = {line.split()[0]: line.count("#") for line in shown.splitlines() if "#" in line}
    assert max(bars.values()) == 24
    assert len(bars) == 6
    assert "parent abababababab" in shown
    assert "beard: 'a beard', seed 7" in shown


def test_a_large_file_is_not_read_whole_unless_asked(tmp_path, monkeypatch):
    from spf_lora.adapters.check import facts

    path = sound_file(tmp_path)
    monkeypatch.setattr(facts, "WHOLE_READ_BYTES", 1000)
    assert facts.inspect(path).hashes is None
    assert facts.inspect(path).norms is None
    assert facts.inspect(path, whole=True).hashes["AutoV3"] == autov3(path)


def test_text_from_a_file_cannot_steer_the_terminal(tmp_path):
    path = sound_file(tmp_path, metadata={"modelspec.title": "x\x1b[2J\x9b[bold]y"})
    shown = spf_lora("inspect", path).stdout
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "[bold]y" in shown


def test_inspect_refuses_with_one_sentence_a_hint_and_no_traceback(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    done = spf_lora("inspect", tmp_path / "x.safetensors", code=1)
    assert done.stdout == ""
    assert "error: " in done.stderr
    assert "hint: pickles can run code" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_imports_no_torch(tmp_path):
    assert heavy_imports(["inspect", sound_file(tmp_path)]) == []


def test_help_imports_neither_torch_nor_numpy():
    import subprocess
    import sys

    script = (
        "import sys; sys.argv = ['spf-lora', '--help']; import spf_lora.cli.app as app\n"
        "try: app.main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"
