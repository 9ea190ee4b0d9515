"""Push and pull against a hub on this machine, through huggingface_hub's own client."""

import json
import os
import subprocess
import sys

import pytest
from hub_stand_in import TOKEN, running
from root import ROOT

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.hashes import content_id

REPO = "me/beard"
LICENSE = ("--license", "cc-by-4.0")


@pytest.fixture
def made(cli, put, picture):
    """An adapter with its card."""
    path = put()
    code, _, talk = cli("card", "beard", *LICENSE)
    assert code == 0, talk
    return path


def manifest(identity, name="beard"):
    table = {"format": "spf-lora publication", "version": 1, "name": name, "content_id": identity}
    return json.dumps(table).encode()


def test_what_was_pushed_comes_back_as_it_was(cli, desk, made, hub):
    code, said, talk = cli("push", "beard", "--repo", REPO)
    assert code == 0, talk
    assert f"pushed: {hub.url}/{REPO}/commit/" in talk
    commit, files = hub.at(REPO)
    assert set(files) == {"README.md", "spf-lora.json", "beard.safetensors", "images/0.png"}
    assert all(name in said for name in files)
    assert files["beard.safetensors"] == made.read_bytes()
    code, said, talk = cli("pull", REPO, "--registry", "shelf", "--json")
    assert code == 0, talk
    pulled = json.loads(said)
    identity = content_id(read_adapter(made))
    assert (pulled["commit"], pulled["content_id"], pulled["stated"]) == (commit, identity, True)
    assert (desk / "shelf" / "beard.safetensors").read_bytes() == made.read_bytes()


def test_a_dry_run_shows_the_files_and_asks_nobody(cli, made, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, said, talk = cli("push", "beard", "--repo", REPO, "--dry-run", "--json")
    assert code == 0, talk
    table = json.loads(said)
    assert table["files"]["beard.safetensors"] == made.stat().st_size
    assert table["commit"] is None
    assert hub.asked == []


def test_a_repository_that_is_there_is_not_touched_unless_asked_for(cli, made, hub):
    before = hub.commit(REPO, {"notes.txt": b"mine", "README.md": b"old"})
    code, _, talk = cli("push", "beard", "--repo", REPO)
    assert code == 1
    assert f"{REPO} is there already, and nothing in it was changed" in talk
    assert hub.at(REPO)[0] == before
    code, _, talk = cli("push", "beard", "--repo", REPO, "--update")
    assert code == 0, talk
    files = hub.at(REPO)[1]
    assert files["notes.txt"] == b"mine"
    assert files["README.md"].startswith(b"---")


def test_a_private_repository_is_made_private(cli, made, hub):
    assert cli("push", "beard", "--repo", REPO, "--private")[0] == 0
    assert hub.private == {REPO}


@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_without_a_token_that_may_write_nothing_is_pushed(cli, made, hub, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    code, said, talk = cli("push", "beard", "--repo", REPO)
    assert (code, said) == (1, "")
    assert ("nobody is logged in" if not token else "you may not do this") in talk
    assert "hint: hf auth login" in talk
    assert REPO not in hub.repos


def test_a_push_that_fails_on_the_way_prints_no_token_and_is_repeated(cli, made, hub):
    hub.broken = {"/commit/"}
    code, said, talk = cli("push", "beard", "--repo", REPO, "--json")
    assert (code, said) == (1, "")
    assert TOKEN not in talk
    assert f"the hub refuses {REPO} (status 500); {REPO} was made and is empty" in talk
    hub.broken = set()
    assert cli("push", "beard", "--repo", REPO)[0] == 1
    assert cli("push", "beard", "--repo", REPO, "--update")[0] == 0
    assert "beard.safetensors" in hub.at(REPO)[1]


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(cli, made, hub):
    hub.commit(REPO, {"README.md": b"old"})
    hub.meanwhile = lambda: hub.commit(REPO, {"README.md": b"theirs"})
    code, _, talk = cli("push", "beard", "--repo", REPO, "--update")
    assert code == 1
    assert "was made or changed by somebody else meanwhile" in talk
    assert hub.at(REPO)[1]["README.md"] == b"theirs"


def test_a_card_that_the_hub_does_not_take_is_told(cli, desk, made, hub):
    card = desk / "out/cards/beard/README.md"
    card.write_text(card.read_text("utf-8").replace("license: cc-by-4.0", "license: mine"))
    code, _, talk = cli("push", "beard", "--repo", REPO)
    assert code == 1
    assert "no such license" in talk


def test_an_adapter_that_changed_after_its_card_is_not_pushed(cli, desk, made, hub, put):
    put(seed=1)
    code, _, talk = cli("push", "beard", "--repo", REPO)
    assert code == 1
    assert "beard changed after its card was written" in talk
    assert hub.asked == []


def test_a_folder_that_is_no_card_or_tells_a_path_is_not_pushed(cli, desk, made, hub):
    folder = desk / "out/cards/beard"
    card = (folder / "README.md").read_text("utf-8")
    for change, what in (
        (lambda: (folder / "README.md").write_text(card + "/home/alice/x"), "tells a path"),
        (lambda: (folder / "README.md").write_text(card.replace("license:", "x:")), "no licence"),
        (lambda: (folder / "README.md").unlink(), "holds no model card"),
    ):
        change()
        code, _, talk = cli("push", "beard", "--repo", REPO, "--dry-run")
        assert code == 1
        assert what in talk
    (folder / "README.md").write_text(card)
    (folder / "link.txt").symlink_to(desk / "adapters")
    code, _, talk = cli("push", "beard", "--repo", REPO, "--dry-run")
    assert (code, "link.txt is no regular file" in talk) == (1, True)


@pytest.mark.parametrize("words", [("push", "beard", "--repo", REPO), ("pull", REPO)])
def test_offline_is_one_sentence(cli, made, words):
    code, said, talk = cli(*words)
    assert (code, said) == (1, "")
    assert "HF_HUB_OFFLINE is set, so nothing can be pu" in talk


@pytest.mark.parametrize("words", [("push", "beard", "--repo", REPO), ("pull", REPO)])
def test_a_hub_that_cannot_be_reached_is_one_sentence(cli, made, hub, monkeypatch, words):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, talk = cli(*words)
    assert code == 1
    assert "the hub cannot be reached (ConnectError)" in talk


@pytest.mark.parametrize("repo", ["beard", "../x", "a/b/c", "me/beard@main", ""])
def test_a_repository_has_an_owner_and_a_name(cli, made, hub, repo):
    code, _, talk = cli("push", "beard", "--repo", repo)
    assert code == 1
    assert "is no repository" in talk


def test_numbers_that_are_not_those_that_were_published_are_refused(cli, desk, put, hub):
    other, true = put(seed=1).read_bytes(), content_id(read_adapter(put()))
    hub.commit(REPO, {"spf-lora.json": manifest(true), "beard.safetensors": other})
    code, _, talk = cli("pull", REPO, "--registry", "shelf")
    assert code == 1
    assert "holds another adapter than was published" in talk
    assert not list(desk.glob("shelf/*.safetensors"))


def test_a_revision_is_what_it_was(cli, desk, put, hub):
    old, new = put(seed=1), None
    first = {"spf-lora.json": manifest(content_id(read_adapter(old))), "beard.safetensors": old}
    first["beard.safetensors"] = old.read_bytes()
    commit = hub.commit(REPO, first)
    new = put(seed=2)
    hub.commit(
        REPO,
        {
            "spf-lora.json": manifest(content_id(read_adapter(new))),
            "beard.safetensors": new.read_bytes(),
        },
    )
    code, _, talk = cli("pull", f"{REPO}@{commit}", "--registry", "shelf")
    assert code == 0, talk
    assert commit in talk
    assert (desk / "shelf/beard.safetensors").read_bytes() == first["beard.safetensors"]
    code, _, talk = cli("pull", f"{REPO}@later", "--registry", "other")
    assert (code, "there is no such revision" in talk) == (1, True)


def test_a_repository_of_others_is_pulled_and_told_to_state_nothing(cli, desk, put, hub):
    hub.commit("x/y", {"My LoRA (v2).safetensors": put().read_bytes(), "README.md": b"hello"})
    code, _, talk = cli("pull", "x/y", "--registry", "shelf", "--name", "theirs")
    assert code == 0, talk
    assert "states no content id" in talk
    assert (desk / "shelf/theirs.safetensors").is_file()


HOSTILE = {
    "a path for a name": ({"spf-lora.json": manifest("0" * 64, "../../evil")}, "is no name"),
    "a device for a name": ({"spf-lora.json": manifest("0" * 64, "nul")}, "is a reserved word"),
    "no content id": ({"spf-lora.json": manifest("")}, "its content_id is none"),
    "no adapter": ({"spf-lora.json": manifest("0" * 64)}, "has no beard.safetensors"),
    "no manifest": ({"spf-lora.json": b"[]", "beard.safetensors": b"x"}, "no manifest of this"),
    "a deep manifest": ({"spf-lora.json": b"[" * 5000}, "nests too deep"),
    "nothing": ({"README.md": b"x"}, "has 0 .safetensors files"),
    "two adapters": ({"a.safetensors": b"x", "b.safetensors": b"y"}, "has 2 .safetensors files"),
    "a pickle": ({"beard.safetensors": b"\x80\x02}q\x00."}, "beard.safetensors"),
    "a name with a blank": ({"a b.safetensors": b"x"}, "call it a-b"),
    "a path": ({"../a.safetensors": b"x", "/a.safetensors": b"x"}, "has 0 .safetensors files"),
    "another path": ({"..\\a.safetensors": b"x", "c:a.safetensors": b"x"}, "has 0 .safe"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_stranger_put_there_is_refused_in_one_sentence(cli, desk, hub, what):
    files, fault = HOSTILE[what]
    hub.commit(REPO, files)
    code, said, talk = cli("pull", REPO, "--registry", "shelf")
    assert (code, said) == (1, "")
    assert fault in talk
    assert "hint: " in talk
    assert [path.name for path in desk.iterdir()] == ["adapters"]


def test_a_file_that_is_said_to_be_huge_is_not_fetched(cli, desk, put, hub):
    hub.commit(REPO, {"beard.safetensors": put().read_bytes()})
    hub.sizes["beard.safetensors"] = 2 << 30
    code, _, talk = cli("pull", REPO, "--registry", "shelf")
    assert code == 1
    assert "has 2048 MiB; the limit is 1024" in talk
    assert not any("resolve" in one for one in hub.asked)


LIES = (
    {"sha": "../../x"},
    {"sha": "0" * 40},
    {"sha": None},
    {"siblings": [{"rfilename": 3, "size": "x"}]},
    {"siblings": "x"},
    {"siblings": None},
)


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_an_answer_that_no_hub_gives_is_one_sentence(cli, desk, put, hub, lie):
    commit = hub.commit(REPO, {"beard.safetensors": put().read_bytes()})
    hub.says = lie
    code, said, talk = cli("pull", f"{REPO}@{commit}", "--registry", "shelf")
    assert (code, said) == (1, "")
    assert "cannot be used" in talk or "has 0 .safetensors files" in talk
    assert not (desk / "shelf").exists()


def test_a_file_that_does_not_come_whole_is_refused(cli, desk, put, hub):
    hub.commit(REPO, {"beard.safetensors": put().read_bytes()})
    hub.sizes["beard.safetensors"] = 17
    code, _, talk = cli("pull", REPO, "--registry", "shelf")
    assert (code, "did not come whole" in talk) == (1, True)


def test_a_file_whose_hash_is_a_lie_is_refused(cli, desk, put, hub):
    data = bytearray(put().read_bytes())
    data[-1] ^= 1
    hub.commit(REPO, {"beard.safetensors": bytes(data)})
    code, _, talk = cli("pull", REPO, "--registry", "shelf")
    assert code == 3
    assert "declared hash" in talk
    assert not (desk / "shelf").exists()


def test_a_name_that_is_taken_is_told_before_anything_is_fetched(cli, desk, made, hub):
    hub.commit(REPO, {"beard.safetensors": made.read_bytes()})
    code, _, talk = cli("pull", REPO)
    assert (code, "the name beard is taken" in talk) == (1, True)
    assert not any("resolve" in one for one in hub.asked)


@pytest.mark.slow
def test_the_hub_is_the_one_that_the_environment_names(cli, desk, made):
    told = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(desk / "hf"),
    }
    with running() as hub:
        for words in (("push", "beard", "--repo", REPO), ("pull", REPO, "--registry", "shelf")):
            done = subprocess.run(
                [sys.executable, "-m", "spf_lora", *words],
                env=told | {"HF_ENDPOINT": hub.url},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    assert (desk / "shelf/beard.safetensors").read_bytes() == made.read_bytes()
    stored = [path for path in desk.rglob("*") if path.is_file()]
    assert not [path for path in stored if TOKEN.encode() in path.read_bytes()]
