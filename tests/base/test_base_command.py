"""`spf-lora base inspect`."""

import json

from spf_lora.base.load import embedded_card


def test_the_embedded_base_is_shown(cli):
    code, said, talk = cli("base", "inspect")
    assert code == 0
    assert talk == ""
    assert f"id           {embedded_card()['base_id']}" in said
    assert "unet 5.8 M" in said
    assert "64 px, latents 16 x 16" in said


def test_a_checkpoint_and_its_folder_are_told_to_be_one_base(cli, sd15_folder, sd15_file):
    code, said, _ = cli("base", "inspect", sd15_folder, "--json")
    assert code == 0
    folder = json.loads(said)
    code, said, _ = cli("base", "inspect", sd15_file, "--tokenizer", sd15_folder, "--json")
    assert code == 0
    file = json.loads(said)
    assert (folder["layout"], file["layout"]) == ("folder", "file")
    assert folder["parameters"].keys() == {"unet", "vae", "text_encoder"}
    differ = {key for key in folder if folder[key] != file[key]}
    assert differ == {"layout", "base"}


def test_what_cannot_be_trained_on_is_refused_in_one_sentence(cli, tmp_path):
    (tmp_path / "sd.ckpt").write_bytes(b"\x80\x02.")
    code, said, talk = cli("base", "inspect", tmp_path / "sd.ckpt")
    assert (code, said) == (1, "")
    assert "is a pickled file, which spf-lora never opens" in talk
    assert "hint: get the .safetensors file" in talk
