"""The model card says what is known of this very file, in the form that the hub reads."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from root import ROOT
from safetensors.numpy import load_file, save_file

from spf_lora.adapters.check.checks import verify
from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import KEY, MEASURED, from_metadata, to_json
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.format.metadata_edit import edit_metadata, read_metadata
from spf_lora.adapters.format.rewrite import convert
from spf_lora.publish.model_card import plain

LICENSE = ("--license", "cc-by-4.0")


def header_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def card_of(desk, name="beard"):
    text = (desk / "out" / "cards" / name / "README.md").read_text("utf-8")
    return header_of(text), text


def write_report(desk, report):
    (desk / "report.json").write_text(report.to_json(), "utf-8")
    return "report.json"


def test_a_card_of_a_report_has_pairs_of_pictures_and_figures_with_intervals(
    cli, desk, put, make_report
):
    report = make_report(put())
    code, said, talk = cli("card", "beard", *LICENSE, "--report", write_report(desk, report))
    assert code == 0, talk
    assert said == "out/cards/beard\n"
    header, text = card_of(desk)
    assert header["license"] == "cc-by-4.0"
    assert header["base_model"] == "someone/sd15"
    assert header["instance_prompt"] == "a beard"
    assert {"lora", "text-to-image", "diffusers"} <= set(header["tags"])
    urls = [one["output"]["url"] for one in header["widget"]]
    assert urls == [f"images/{n}.png" for n in range(4)]
    assert header["widget"][0]["text"] == report.cases[0].prompt
    for url in urls:
        with Image.open(desk / "out" / "cards" / "beard" / url) as pair:
            colours = {colour for _, colour in pair.getcolors(1 << 20)}
            assert {(0, 0, 128), (128, 0, 0)} <= colours  # base and adapter
    assert f"| {report.numbers['P@1'].text()} |" in text
    assert f"| {report.numbers['P@0'].text()} |" in text
    assert "not measured on" in text
    assert "5 prompts: intervals are wide" in text
    assert str(desk) not in text
    assert 'from_pretrained("someone/sd15"' in text
    assert "models/loras" in text
    assert "<lora:beard:1>" in text


def test_figures_of_other_numbers_are_left_out(cli, desk, put, picture, make_report):
    report = make_report(put())
    changed = put(seed=1)
    assert content_id(read_adapter(changed)) != report.adapter_id
    code, _, talk = cli("card", "beard", *LICENSE, "--report", write_report(desk, report))
    assert code == 0, talk
    assert "the figures are left out: the report is of another content id" in talk
    header, text = card_of(desk)
    assert report.numbers["P@1"].text() not in text
    assert "Nothing: no figures of this very file are known" in text
    assert len(header["widget"]) == 1  # the picture beside it, and none of the report


@pytest.mark.parametrize("measured", ["its own", "another", "none"])
def test_figures_of_the_card_are_told_if_they_are_of_its_numbers(cli, desk, put, picture, measured):
    path = put()
    card = from_metadata(read_metadata(path))
    told = to_json(replace(card, metrics={"response": 0.91, "pollution": 0.376, "strength": 1.0}))
    own = content_id(read_adapter(path))
    state = {"its own": own, "another": "0" * 64, "none": ""}[measured]
    edit_metadata(path, changes={KEY: told, MEASURED: state}, strip=False)
    code, _, talk = cli("card", "beard", *LICENSE)
    assert code == 0, talk
    assert ("| 0.38 |" in card_of(desk)[1]) == (measured == "its own")
    assert ("the figures are left out" in talk) == (measured != "its own")


@pytest.mark.parametrize("key", ["../../../secret", "", "a" * 39])
def test_a_report_names_no_file_of_this_disk(cli, desk, put, make_report, key):
    report = make_report(put())
    draws = tuple(replace(one, pictures={"I0": key, "I1": key}) for one in report.draws)
    words = ("--report", write_report(desk, replace(report, draws=draws)))
    code, _, talk = cli("card", "beard", *LICENSE, *words)
    assert (code, "the report does not name its picture I0" in talk) == (1, True)


def test_a_report_without_pictures_is_told_as_one_without(cli, desk, put, make_report):
    report = write_report(desk, replace(make_report(put()), draws=(), sampler={}))
    code, _, talk = cli("card", "beard", *LICENSE, "--report", report)
    assert (code, "there are no pictures of beard" in talk) == (1, True)


def test_what_a_report_says_is_no_markup(cli, desk, put, make_report):
    report = replace(make_report(put()), judge="<b>[x](y)", sampler={"name": "<i>", "steps": "x"})
    code, _, talk = cli("card", "beard", *LICENSE, "--report", write_report(desk, report))
    assert code == 0, talk
    assert r"judge: \<b>\[x\](y)" in card_of(desk)[1]
    assert r"sampler: name \<i>, steps x" in card_of(desk)[1]


def test_a_file_that_some_app_draws_otherwise_is_published_as_one_that_all_read(
    cli, desk, put, picture
):
    path = put()
    before = content_id(read_adapter(path))
    for kind in ("layout", "alpha"):
        if kind == "layout":
            write_adapter(read_adapter(path), path, layout="diffusers", overwrite=True)
        else:
            convert(path, desk / "a.safetensors", layout="kohya", dtype=None, overwrite=True)
            tensors = load_file(desk / "a.safetensors")
            alpha = next(key for key in tensors if key.endswith(".alpha"))
            tensors[alpha] = np.asarray(tensors[alpha] / 2)
            save_file(tensors, path)
            before = content_id(read_adapter(path))
            assert {one.check: one.status for one in verify(path, ())}["alpha"] == "fail"
        code, _, talk = cli("card", "beard", *LICENSE, "--force")
        assert code == 0, talk
        assert "does not read every part" not in card_of(desk)[1]
        published = desk / "out" / "cards" / "beard" / "beard.safetensors"
        checked = verify(published, ("diffusers", "ComfyUI", "A1111"))
        assert not [one for one in checked if one.status == "fail"]
        assert content_id(read_adapter(published)) == before


def test_sidecars_are_written_on_request(cli, desk, put, picture):
    put()
    cli("card", "beard", *LICENSE)
    folder = desk / "out" / "cards" / "beard"
    plain_files = {path.name for path in folder.iterdir()}
    assert plain_files == {"README.md", "spf-lora.json", "beard.safetensors", "images"}
    code, _, talk = cli("card", "beard", *LICENSE, "--sidecars", "--force")
    assert code == 0, talk
    info = json.loads((folder / "beard.civitai.info").read_text("utf-8"))
    assert info["trainedWords"] == ["a beard"]
    assert info["baseModel"] == "SD 1.5"
    import hashlib

    digest = hashlib.sha256((folder / "beard.safetensors").read_bytes()).hexdigest()
    (file,) = info["files"]
    assert (file["primary"], file["hashes"]["SHA256"].lower()) == (True, digest)
    assert (folder / "beard.txt").read_text("utf-8") == "a beard\n"
    with Image.open(folder / "beard.png") as alone:
        assert alone.size == (64, 64)


def test_a_card_that_is_written_anew_leaves_no_picture_of_the_old_one(
    cli, desk, put, picture, make_report
):
    report = write_report(desk, make_report(put()))
    cli("card", "beard", *LICENSE, "--report", report)
    folder = desk / "out" / "cards" / "beard"
    (folder / "notes.md").write_text("mine")
    assert len([*folder.glob("images/*")]) == 4
    assert cli("card", "beard", *LICENSE, "--force")[0] == 0
    assert len([*folder.glob("images/*")]) == 1
    assert (folder / "notes.md").read_text() == "mine"
    assert not [*folder.parent.glob(".*")]


def test_what_a_users_picture_says_besides_its_pixels_stays_behind(cli, desk, put):
    put()
    info = PngInfo()
    info.add_text("parameters", "a man, a beard\nSteps: 20, Seed: 1, Size: 8x8")
    info.add_text("workflow", "C:\\me\\secret")
    Image.new("RGBA", (8, 8), "red").save(desk / "mine.png", pnginfo=info)
    code, _, talk = cli("card", "beard", *LICENSE, "--picture", "mine.png")
    assert code == 0, talk
    header, _ = card_of(desk)
    assert header["widget"][0]["text"] == "a man, a beard"
    assert b"secret" not in (desk / "out/cards/beard/images/0.png").read_bytes()


def test_the_embedded_base_is_called_what_it_is(cli, desk):
    code, _, talk = cli("card", ROOT / "adapters" / "demo" / "beard.safetensors", *LICENSE)
    assert code == 0, talk
    header, text = card_of(desk)
    assert "base_model" not in header
    assert header["library_name"] == "spf-lora"
    assert not {"diffusers", "stable-diffusion"} & set(header["tags"])
    assert "It fits no other model and no other app" in text
    assert "diffusers, ComfyUI and A1111 are of no use here" in text
    assert "load_lora_weights" not in text


def test_a_file_of_others_is_published_with_what_it_says(cli, desk, put, picture):
    put(card=False, **{"modelspec.license": "CC0-1.0", "ss_output_name": "x"})
    code, _, talk = cli("card", "beard")
    assert code == 0, talk
    header, text = card_of(desk)
    assert header["license"] == "cc0-1.0"
    assert "base_model" not in header
    assert "--base-model OWNER/NAME says it" in talk
    assert "does not say which words ask for it" in text
    code, _, talk = cli("card", "beard", "--base-model", "a/b", "--force")
    assert card_of(desk)[0]["base_model"] == "a/b", talk


def test_no_text_of_a_file_becomes_markup(cli, desk, put, picture):
    wild = 'a "beard"\n---\nlicense: mit\n<script>alert(1)</script> [x](javascript:y) `|`'
    put(card=False, **{"modelspec.trigger_phrase": wild, "modelspec.title": "<b>|`"})
    code, _, talk = cli("card", "beard", *LICENSE)
    assert code == 0, talk
    header, text = card_of(desk)
    assert header["license"] == "cc-by-4.0"
    body = text.split("---\n", 2)[2]
    assert "<script" not in body.replace("\\<", "")
    assert "](javascript" not in body.replace("\\]", "")
    assert plain("a|b\nc") == r"a\|b c"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "nobody said under which licence"),
        (("--license", "cc-by-4"), "did you mean cc-by-4.0"),
        (("--license", "other"), "needs the address of its text"),
        (("--license", "other", "--license-link", "file:///x"), "needs the address of its text"),
        (("--license", "mit", "--license-link", "https://x.org"), "the text of mit is known"),
        (LICENSE, "there are no pictures of beard"),
        ((*LICENSE, "--picture", "none.png"), "none.png cannot be read as a picture"),
        ((*LICENSE, "--picture", "text.png"), "text.png cannot be read as a picture"),
        ((*LICENSE, "--report", "none.json"), "none.json cannot be read"),
        ((*LICENSE, "--report", "text.png"), "is no report of this version"),
        ((*LICENSE, "--base-model", "../x"), "is no repository on the hub"),
        ((*LICENSE, "-o", "full"), "full exists and holds something"),
    ],
)
def test_what_cannot_be_published_is_refused_and_nothing_is_written(cli, desk, put, words, what):
    put()
    (desk / "text.png").write_text("no picture")
    (desk / "full").mkdir()
    (desk / "full" / "thesis.txt").write_text("mine")
    code, said, talk = cli("card", "beard", *words)
    assert (code, said) == (1, "")
    assert what in talk
    assert "hint: " in talk
    assert not (desk / "out").exists()
    assert [path.name for path in (desk / "full").iterdir()] == ["thesis.txt"]


def test_a_name_that_no_repository_should_hold_is_refused(cli, desk, put):
    path = put()
    path.rename(desk / "adapters" / "My Beard.safetensors")
    code, _, talk = cli("card", "adapters/My Beard.safetensors", *LICENSE)
    assert code == 1
    assert "call it my-beard" in talk


def test_a_damaged_file_is_not_published(cli, desk, put, picture):
    path = put()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    code, _, talk = cli("card", "beard", *LICENSE)
    assert code == 3
    assert "declared hash" in talk
