"""`generate` draws what was asked for, says so in the file, and refuses what is wrong first."""

import json
from pathlib import Path

import pytest
from PIL import Image

DRAW = ("generate", "a man", "--steps", "1", "--count", "2")


@pytest.fixture
def draw(cli, tiny_folder, in_a_clone):
    def run(*words, code=0):
        done = cli(*DRAW, "--base", tiny_folder, *words)
        assert done[0] == code, done
        return done

    return run


def inspected(cli, path):
    code, said, talk = cli("inspect", path, "--json")
    assert code == 0, talk
    return json.loads(said)[0]


def test_a_picture_lands_in_out_and_a_second_one_is_numbered(draw):
    assert [draw()[1].strip() for _ in range(3)] == [
        "out/grid.png",
        "out/grid-2.png",
        "out/grid-3.png",
    ]
    first = Path("out/grid.png").read_bytes()
    assert Path("out/grid-2.png").read_bytes() == first
    assert draw("--force")[1].strip() == "out/grid.png"
    assert draw("-o", "mine.png")[1].strip() == "mine.png"
    assert draw("-o", "mine.png")[1].strip() == "mine-2.png"


def test_the_file_says_how_it_was_drawn(draw, cli):
    draw("--negative", "a hat, blurry", "--sampler", "dpm++2m", "--guidance", "2.5", "--seed", "9")
    said = inspected(cli, "out/grid.png")
    assert (said["prompt"], said["negative"]) == ("a man", "a hat, blurry")
    named = {"Steps": "1", "Sampler": "DPM++ 2M", "CFG scale": "2.5", "Seed": "9"}
    assert named.items() <= said["settings"].items()
    shown = cli("inspect", "out/grid.png")[1]
    assert "DPM++ 2M" in shown
    assert "a hat, blurry" in shown


def test_a_file_of_prompts_is_drawn_row_by_row(cli, tiny_folder, in_a_clone):
    Path("p.txt").write_text("# people\na man\n\na woman\na man\n")
    words = ("--base", tiny_folder, "--steps", "1", "--count", "1", "--prompts", "p.txt")
    assert cli("generate", *words)[0] == 0
    assert Image.open("out/grid.png").height > 3 * Image.open("out/grid.png").width // 2


def test_a_size_is_kept_and_a_wrong_one_is_told_with_the_nearest(draw, cli, tiny):
    side = tiny.resolution
    draw("--size", f"{2 * side}x{side}")
    assert inspected(cli, "out/grid.png")["settings"]["Size"] == f"{2 * side}x{side}"
    _, _, talk = draw("--size", str(side + 1), code=1)
    assert f"the nearest is --size {side}x{side}" in talk


def test_a_grid_has_titles_and_says_its_columns(cli, tiny_folder, in_a_clone):
    code, said, _ = cli(
        *DRAW[:-2], "--base", tiny_folder, "--grid", "guidance=1,2", "--grid", "seed=1,2,3"
    )
    assert code == 0
    assert Image.open(said.strip()).width >= 800
    assert inspected(cli, said.strip())["settings"]["Columns"] == "guidance 1, guidance 2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--adapter", "nobody"), "no adapter is called nobody"),
        (("--sampler", "eular"), "no sampler 'eular'; did you mean euler"),
        (("--size", "0"), "the size '0' is none"),
        (("--size", "64x"), "the size '64x' is none"),
        (("--prompts", "p.txt"), "there are a prompt and a file of prompts"),
        (("--grid", "strength=1"), "a strength needs something to be strong"),
        (("--grid", "seed=1"), "a grid shows one picture of each kind"),
        (("--negative", "\udcff"), "is no text in UTF-8"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(draw, words, said):
    _, _, talk = draw(*words, code=1)
    assert said in " ".join(talk.split())
    assert not Path("out").exists()


def test_an_unknown_adapter_is_told_before_a_file_that_cannot_be_written(draw):
    _, _, talk = draw("--adapter", "nobody", "-o", "nowhere/x.png", code=1)
    assert "no adapter is called nobody" in talk


def test_no_prompt_at_all_is_refused(cli, in_a_clone):
    code, _, talk = cli("generate")
    assert code == 1
    assert "there is no prompt" in talk


def test_a_picture_that_says_nothing_is_told_so(cli, in_a_clone):
    Image.new("RGB", (4, 4)).save("a.png")
    code, _, talk = cli("inspect", "a.png")
    assert code == 1
    assert "does not say how it was drawn" in talk
