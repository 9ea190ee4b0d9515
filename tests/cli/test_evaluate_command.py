import json
import sys

import pytest
from made_evaluations import random_adapter

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import MEASURED, Card, file_metadata, from_metadata
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter
from spf_lora.evaluate.result import from_json
from spf_lora.recipe.digest import table_hash


def card_of(base_id: str) -> dict[str, str]:
    card = Card(
        attribute="beard",
        target_text="a beard",
        trigger="a beard",
        base_id=base_id,
        recipe={},
        dataset_digest="",
        versions={},
        seed=0,
    )
    return file_metadata(
        card, rank=4, alpha=4.0, title="beard", description="noise", usage_hint="none"
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory, tiny_folder):
    """A folder with two adapters and prompts, and a picture cache that all tests here share."""
    import torch

    from spf_lora.base.load import load_base

    folder = tmp_path_factory.mktemp("desk")
    base = load_base(str(tiny_folder), device=torch.device("cpu"))
    for seed, name in enumerate(("one", "two")):
        adapter = random_adapter(base.unet, seed=seed, metadata=card_of(base.id))
        write_adapter(adapter, folder / f"{name}.safetensors")
    write_adapter(Adapter(adapter.modules, card_of("0" * 16)), folder / "stranger.safetensors")
    write_adapter(Adapter(adapter.modules, {}), folder / "silent.safetensors")
    (folder / "prompts.txt").write_text("a man\na woman, red hair\n")
    return folder


@pytest.fixture
def run(cli, desk, tiny_folder, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.setenv("SPF_LORA_CACHE", str(desk / "cache"))
    how = (
        "--base",
        tiny_folder,
        "--judge",
        "world",
        "--prompts",
        "prompts.txt",
        "--seeds",
        "1",
        "--strengths",
        "0,1",
        "--steps",
        "1",
    )

    def call(command, *words, without=()):
        pairs = [pair for pair in zip(how[::2], how[1::2], strict=True) if pair[0] not in without]
        return cli(command, *words, *(word for pair in pairs for word in pair))

    return call


def test_a_report_is_written_for_people_and_for_programs(run, desk) -> None:
    code, said, talk = run("evaluate", "one.safetensors", "-o", "report")
    assert code == 0, talk
    assert "one reaches a response of" in said
    assert "pollution P" in said
    assert "report: report/report.html" in talk
    assert "drawn" not in said
    result = from_json((desk / "report" / "report.json").read_text("utf-8"))
    assert (result.adapter, result.attribute, len(result.cases)) == ("one", "beard", 2)
    assert str(desk) not in (desk / "report" / "report.json").read_text("utf-8")
    page = (desk / "report" / "report.html").read_text("utf-8")
    assert "one reaches a response of" in page


def test_against_puts_others_beside_it_and_json_has_the_differences(run) -> None:
    code, said, talk = run(
        "evaluate", "one.safetensors", "--against", "two.safetensors", "-o", "versus", "--json"
    )
    assert code == 0, talk
    table = json.loads(said)
    assert [a["name"] for a in table["adapters"]] == ["one", "two"]
    assert {d["figure"] for d in table["differences"]} >= {"rho@1", "P@1", "auc"}
    assert all(d["n"] == 2 for d in table["differences"])
    assert table["adapters"][0]["figures"]["P@1"]["n"] == 2


def test_an_adapter_is_measured_late_on_its_words_alone_or_where_it_answers(run, desk) -> None:
    found = {}
    for start in ("0", "0.6"):
        code, _, talk = run(
            "evaluate",
            "one.safetensors",
            "-o",
            f"from-{start}",
            "--steps",
            "2",
            "--start-percent",
            start,
            without=("--steps",),
        )
        assert code == 0, talk
        found[start] = from_json((desk / f"from-{start}" / "report.json").read_text("utf-8"))
    assert found["0.6"].sampler["start_percent"] == 0.6
    assert "start_percent" not in found["0"].sampler
    assert found["0.6"].numbers["P@0"] == found["0"].numbers["P@0"]
    assert found["0.6"].numbers["P@1"].value != found["0"].numbers["P@1"].value
    code, _, talk = run("evaluate", "one.safetensors", "-o", "exact", "--exact")
    assert code == 0, talk
    exact = from_json((desk / "exact" / "report.json").read_text("utf-8"))
    assert exact.sampler["runtime"] == "exact"
    assert exact.numbers["BL@1"].value == 0
    assert exact.numbers["P@1"].value != exact.numbers["P@0"].value
    code, _, talk = run("evaluate", "one.safetensors", "-o", "local", "--local")
    assert code == 0, talk
    local = from_json((desk / "local" / "report.json").read_text("utf-8"))
    assert local.sampler["runtime"] == "local"
    assert local.numbers["BL@1"].value == 0
    assert local.numbers["P@1"].value < found["0"].numbers["P@1"].value
    code, _, talk = run("evaluate", "one.safetensors", "--start-percent", "1")
    assert code == 1
    assert "--start-percent 1 is no share" in talk


def test_an_adapter_is_measured_with_another_sampler(run, desk) -> None:
    plain, other = ("--steps", "2"), ("--steps", "2", "--sampler", "euler", "--guidance", "7")
    found = []
    for name, how in (("ddim", plain), ("euler", other)):
        code, _, talk = run("evaluate", "one.safetensors", "-o", name, *how, without=("--steps",))
        assert code == 0, talk
        found.append(from_json((desk / name / "report.json").read_text("utf-8")))
    assert (found[0].sampler["name"], found[0].sampler["guidance"]) == ("ddim", 3)
    assert (found[1].sampler["name"], found[1].sampler["guidance"]) == ("euler", 7)
    assert found[0].numbers["P@1"].value != found[1].numbers["P@1"].value


def test_figures_go_into_the_card_and_the_tensors_stay(run, cli, desk) -> None:
    import shutil

    shutil.copy(desk / "one.safetensors", desk / "told.safetensors")
    code, _, talk = run("evaluate", "told.safetensors", "-o", "told", "--into-card")
    assert code == 0, talk
    assert "figures written into the card of told.safetensors" in talk
    report = from_json((desk / "told" / "report.json").read_text("utf-8"))
    before, after = (read_adapter(desk / f"{name}.safetensors") for name in ("one", "told"))
    assert content_id(after) == content_id(before) == report.adapter_id
    assert after.metadata[MEASURED] == report.adapter_id
    metrics = from_metadata(after.metadata).metrics
    assert metrics["pollution"] == pytest.approx(report.numbers["P@1"].value, abs=1e-4)
    assert metrics["shown_unasked"] == report.numbers["unasked@1"].value
    assert (metrics["strength"], metrics["prompts"]) == (1, 2)
    code, said, _ = cli("inspect", "told.safetensors")
    assert "pollution" in said
    code, _, talk = run("evaluate", "told.safetensors", "--into-card", "--local", "-o", "no")
    assert (code, "what a file does in any app" in talk) == (1, True)


def test_a_submission_holds_the_figures_of_the_report(run, desk, tiny, monkeypatch) -> None:
    from spf_lora.cli import evaluate as command
    from spf_lora.publish import submission

    # a protocol of two prompts on the tiny base; that the options must be the real one's is tested
    # where the protocol is
    monkeypatch.setattr(command, "_check_protocol", lambda *_: None)
    lines = (desk / "prompts.txt").read_text().splitlines()
    pairs = [[f"{line}, a beard", line, [10_000 + 1000 * n]] for n, line in enumerate(lines)]
    figures = [f"{name}@{at}" for at in (0, 1) for name in submission.MEASURES]
    for name, value in {
        "BASE": tiny.id,
        "COUNT": 2,
        "PROMPTS": {"beard": table_hash(pairs)},
        "SAMPLER": {**submission.SAMPLER, "steps": 1},
        "STRENGTHS": (0.0, 1.0),
        "FIGURES": (*figures, *submission.OF_THE_SWEEP),
    }.items():
        monkeypatch.setattr(submission, name, value)
    code, _, talk = run("evaluate", "one.safetensors", "-o", "sent", "--submit", "sent.json")
    assert code == 0, talk
    report = from_json((desk / "sent" / "report.json").read_text("utf-8"))
    sent = submission.read_submission(desk / "sent.json")
    assert sent.figures == {name: report.numbers[name] for name in submission.FIGURES}
    assert sent.adapter_id == report.adapter_id
    assert str(desk) not in (desk / "sent.json").read_text("utf-8")


def test_what_changes_the_whole_picture_is_not_measured_where_it_answers(run, desk) -> None:
    code, _, talk = run("evaluate", "one.safetensors", "--attribute", "sd15/old", "--local")
    assert code == 1
    assert "old changes the whole picture" in " ".join(talk.split())
    assert "hint: leave --local out" in " ".join(talk.split())


def test_compare_says_which_differences_are_real_and_writes_nothing(run, desk) -> None:
    before = set(desk.iterdir())
    code, said, talk = run("compare", "one.safetensors", "two.safetensors")
    assert code == 0, talk
    assert "P@1: one - two = " in said
    assert set(desk.iterdir()) - before <= {desk / "cache"}
    code, said, _ = run("compare", "one.safetensors", "two.safetensors", "--json")
    assert code == 0
    assert json.loads(said)["differences"]


def test_a_gate_that_does_not_hold_exits_3_after_the_report_is_written(run, desk) -> None:
    code, said, talk = run(
        "evaluate", "one.safetensors", "-o", "gated", "--gate", "P<0.0001,response>=0"
    )
    assert code == 3
    assert "gate P<0.0001: does not hold" in said
    assert "gate response>=0: holds" in said
    assert "the gate does not hold: P<0.0001 (found " in talk
    assert (desk / "gated" / "report.json").is_file()
    code, _, _ = run("evaluate", "one.safetensors", "-o", "passed", "--gate", "P>=0")
    assert code == 0


def test_a_folder_that_holds_something_is_refused_before_anything_is_drawn(run, desk) -> None:
    (desk / "taken").mkdir()
    (desk / "taken" / "thesis.txt").write_text("mine")
    code, _, talk = run("evaluate", "none.safetensors", "-o", "taken")
    assert code == 1
    assert "taken exists and holds something" in talk
    assert "--force" in talk
    (desk / "file").write_text("")
    code, _, talk = run("evaluate", "none.safetensors", "-o", "file")
    assert code == 1
    assert "is a file" in talk


def test_force_overwrites_the_report_and_leaves_the_rest(run, desk) -> None:
    (desk / "old").mkdir()
    (desk / "old" / "report.html").write_text("old")
    (desk / "old" / "notes.txt").write_text("mine")
    code, _, talk = run("evaluate", "one.safetensors", "-o", "old", "--force")
    assert code == 0, talk
    assert (desk / "old" / "report.html").read_text("utf-8") != "old"
    assert (desk / "old" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "without", "what"),
    [
        (("stranger.safetensors",), (), "was trained on the base 0000000000000000"),
        (("silent.safetensors",), (), "does not say which attribute"),
        (("one.safetensors", "-a", "beart"), (), "no recipe for the attribute 'beart'"),
        (("none.safetensors",), (), "none.safetensors"),
        (("one.safetensors", "--strengths", "0,much"), ("--strengths",), "'much' is no number"),
        (("one.safetensors", "--sampler", "dim"), (), "no sampler 'dim'; did you mean ddim"),
        (("one.safetensors", "--strengths", "-1"), ("--strengths",), "'-1' is no number"),
        (("one.safetensors", "--strengths", ""), ("--strengths",), "'' is no number"),
        (("silent.safetensors", "-a", "beard", "--into-card"), (), "has no card to write figures"),
        (("one.safetensors", "--gate", "speed<1"), (), "'speed' is no figure"),
        (("one.safetensors", "--judge", "jury"), ("--judge",), "no judge 'jury'"),
        (("one.safetensors", "--mask", "."), (), "the judge world uses no --scorer and no --mask"),
        (("one.safetensors", "--steps", "1000"), ("--steps",), "has 1000 time steps"),
        (("one.safetensors", "--judge", "photographs"), ("--judge",), "hf download "),
        (
            ("one.safetensors", "--judge", "photographs", "--scorer", "clip=nowhere"),
            ("--judge",),
            "hf download nowhere",
        ),
        (
            ("one.safetensors", "--judge", "photographs", "--scorer", "clip"),
            ("--judge",),
            "scorer 'clip' cannot be read",
        ),
        (("one.safetensors", "--prompts", "empty.txt"), ("--prompts",), "holds no prompt"),
        (("one.safetensors", "--prompts", "long.txt"), ("--prompts",), "longer than 77 tokens"),
        (("one.safetensors", "--prompts", "no.txt"), ("--prompts",), "cannot be read"),
        (("one.safetensors", "--base", "nowhere"), ("--base",), "nowhere"),
        (  # before the base is loaded
            ("one.safetensors", "--prompts", "only.txt", "--base", "nowhere"),
            ("--base", "--prompts"),
            "is the attribute and nothing else",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_and_leaves_no_report(
    run, desk, monkeypatch, words, without, what
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(desk / "no-models"))
    (desk / "empty.txt").write_text("\n# nothing\n")
    (desk / "long.txt").write_text("hair " * 90)
    (desk / "only.txt").write_text("a beard\n")
    code, said, talk = run("evaluate", *words, "-o", "refused", without=without)
    assert code == 1
    assert said == ""
    assert what in talk
    assert "hint: " in talk
    assert not (desk / "refused").exists()


def test_one_adapter_is_nothing_to_compare(run) -> None:
    code, _, talk = run("compare", "one.safetensors")
    assert code == 1
    assert "nothing to compare" in talk


def test_help_of_both_commands_needs_neither_torch_nor_numpy() -> None:
    import subprocess

    code = (
        "import sys\nfrom spf_lora.cli.app import main\n"
        "for command in ('evaluate', 'compare'):\n"
        "    sys.argv = ['spf-lora', command, '--help']\n"
        "    try:\n        main()\n    except SystemExit as done:\n        assert not done.code\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_hats(folder, *, hats, bare):
    """Write portraits with captions, the first ones with hats."""
    import random

    from spf_lora.data.worlds.portraits import partial_caption, render, unbiased

    rng = random.Random(3)
    folder.mkdir()
    for index in range(hats + bare):
        person, worn = unbiased(rng), ("hat",) if index < hats else ()
        render(person, worn).save(folder / f"{index:02}.png")
        said = partial_caption(person, worn, rng, coverage=0.5)
        (folder / f"{index:02}.txt").write_text(said)


def test_two_judges_are_refused(run, tmp_path) -> None:
    write_hats(tmp_path / "hats", hats=10, bare=0)
    code, _, talk = run("evaluate", "one.safetensors", "--judge-from", tmp_path / "hats")
    assert code == 1
    assert "--judge and --judge-from are two judges" in talk


def test_pictures_of_something_else_teach_no_judge(run, tmp_path) -> None:
    write_hats(tmp_path / "hats", hats=10, bare=0)
    code, _, talk = run(
        "evaluate", "one.safetensors", "--judge-from", tmp_path / "hats", without=("--judge",)
    )
    assert code == 1
    assert "has 0 pictures whose captions say 'a beard'" in talk


@pytest.mark.slow
def test_an_attribute_is_measured_by_a_judge_that_learned_from_pictures(
    cli, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPF_LORA_CACHE", str(tmp_path / "cache"))
    write_hats(tmp_path / "hats", hats=28, bare=12)
    words = ("evaluate", "hat", "--judge-from", "hats", "--steps", "6", "--seeds", "1")
    code, _, talk = cli(*words, "--quick", "--strengths", "0,1")
    assert code == 0, talk
    assert "judge: right on 9" in talk
    found = from_json((tmp_path / "out/reports/hat/report.json").read_text("utf-8"))
    assert found.judge.startswith("fitted on 28 pictures, the probe's embedding, accuracy 0.9")
    said = " ".join(found.remarks)
    assert "28 of your pictures with it, 12 without it" in said
    assert "control map of local drawing" in said
    assert "16 made from the captions in hats" in said
    assert found.figure("rho", 1.0).value > found.figure("rho", 0.0).value
    assert all("a hat" not in case.base_prompt for case in found.cases)
