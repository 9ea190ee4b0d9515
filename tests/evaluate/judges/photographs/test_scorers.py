import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny_scorers import make_clip

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.clip import ClipJudge
from spf_lora.evaluate.judges.photographs.scorers import SCORERS, Pictures, needs, open_scorer
from spf_lora.evaluate.judges.photographs.weights import WEIGHTS, locate


@pytest.fixture
def pictures() -> Pictures:
    torch.manual_seed(3)
    before = torch.rand(3, 3, 96, 96) * 2 - 1
    after = before.clone()
    after[1:, :, 48:] = torch.rand(2, 3, 48, 96) * 2 - 1
    return Pictures(before, after, ("a beard",) * 3)


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"identity", "clip-t"}))
def test_equal_pictures_get_the_best_score_and_different_ones_a_worse_one(
    name, scorer_folders, pictures
):
    score = open_scorer(name, sources=scorer_folders)
    same = score(Pictures(pictures.before, pictures.before))
    changed = score(pictures)
    assert same.shape == changed.shape == ((3,) if SCORERS[name].each else (1,))
    if name == "kid":
        assert same < changed  # unbiased: the same set against itself is below 0
    elif SCORERS[name].better == "low":
        assert torch.allclose(same, torch.zeros(()), atol=1e-5)
        assert (changed[-1] > 1e-4).all()
    else:
        assert torch.allclose(same, torch.ones(()), atol=1e-5)
        assert changed[0] == pytest.approx(1, abs=1e-5)
        assert (changed[1:] < 1 - 1e-5).all()


def test_clip_t_asks_each_picture_its_own_words(scorer_folders, pictures):
    score = open_scorer("clip-t", sources=scorer_folders)
    clip = ClipJudge(Path(scorer_folders["clip"]), torch.device("cpu"))
    asked = ("a beard", "glasses", "a hat")
    found = score(Pictures(pictures.before, pictures.after, asked))
    whole = clip.embed_image(pictures.after) @ clip.embed_text(asked).T
    torch.testing.assert_close(found, whole.diagonal())
    assert whole[0].std() > 1e-4  # the words matter


def test_the_clip_that_training_saw_is_refused_by_its_weights(tmp_path):
    from transformers import CLIPModel, CLIPTextModel

    folder = make_clip(tmp_path / "renamed")
    CLIPModel.from_pretrained(folder).text_model.save_pretrained(tmp_path / "text_encoder")
    own = CLIPTextModel.from_pretrained(tmp_path / "text_encoder").half()
    with pytest.raises(ScorerError, match="base's own CLIP"):
        open_scorer("clip-t", sources={"clip": str(folder)}, text_encoder=own)
    other = CLIPModel.from_pretrained(make_clip(tmp_path / "other", seed=1)).text_model
    open_scorer("clip-t", sources={"clip": str(folder)}, text_encoder=other)


@pytest.mark.parametrize("name", SCORERS)
def test_an_absent_model_is_named_with_its_size_and_the_command_that_fetches_it(
    name, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    models = [WEIGHTS[model] for model in SCORERS[name].models]
    with pytest.raises(ScorerError, match=re.escape(models[0].what)) as refused:
        open_scorer(name)
    commands = " && ".join(model.command for model in models)
    assert refused.value.hint == f"{commands}   # {sum(m.megabytes for m in models)} MB"
    for model in models:
        assert model.what in refused.value.message
        assert f"hf download {model.repo} " in "\n".join(needs(name))


def test_a_model_in_the_hubs_cache_is_found_without_a_word(scorer_folders, tmp_path, monkeypatch):
    repo = tmp_path / "models--facebook--dinov2-base"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    shutil.copytree(scorer_folders["dinov2"], repo / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert locate("dinov2") == repo / "snapshots" / "abc"


def test_a_folder_without_the_files_says_which_one(tmp_path):
    with pytest.raises(ScorerError, match=r"holds no config\.json.*CLIP") as refused:
        open_scorer("clip-i", sources={"clip": str(tmp_path)})
    assert f"--local-dir {tmp_path}" in refused.value.hint


def test_another_model_in_the_folder_is_refused_not_filled_with_noise(scorer_folders):
    with pytest.raises(ScorerError, match=r"cannot be loaded as DINOv2"):
        open_scorer("fid", sources={"dinov2": scorer_folders["clip"]})
    with pytest.raises(ScorerError, match="neither VGG-16 nor AlexNet"):
        open_scorer("lpips", sources={"vgg16": scorer_folders["face"]})


def test_a_damaged_file_is_an_error_of_ours(scorer_folders, tmp_path):
    for name, scorer in (("clip", "clip-i"), ("parser", "parsing"), ("vgg16", "lpips")):
        folder = tmp_path / name
        shutil.copytree(scorer_folders[name], folder)
        (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0notjson")
        with pytest.raises(ScorerError, match="cannot be loaded as"):
            open_scorer(scorer, sources={name: str(folder)})


def test_unknown_names_list_what_is_known():
    with pytest.raises(ScorerError, match="did you mean lpips"):
        open_scorer("lpip")
    with pytest.raises(ScorerError, match="did you mean face"):
        open_scorer("identity", sources={"faces": "x"})


def test_what_is_no_repository_is_told_from_one_that_is_absent():
    with pytest.raises(ScorerError, match="neither a folder nor a repository"):
        open_scorer("clip-i", sources={"clip": "a/b/c"})
