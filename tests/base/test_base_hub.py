"""Bases from the hub: read from a cache laid out as the hub's; only what is needed is fetched."""

import shutil

import pytest
import torch
from layouts import COMMIT, cached

from spf_lora.base.hub import fetch_base, is_hub_id
from spf_lora.base.load import load_base
from spf_lora.errors import BaseModelError

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture
def cache(hub_cache):
    return hub_cache


@pytest.mark.parametrize("spec", ["someone/sd15", "someone/sd15@main", f"someone/sd15@{COMMIT}"])
def test_a_cached_base_is_used_offline_and_pinned_to_its_commit(spec, cache, sd15_folder):
    cached(cache, "someone/sd15", sd15_folder)
    base = load_base(spec, device=torch.device("cpu"))
    assert base.id == load_base(str(sd15_folder), device=torch.device("cpu")).id
    assert base.origin == f"someone/sd15@{COMMIT}"
    assert base.layout == "hub"


def test_a_base_that_is_not_cached_whole_is_not_half_used_offline(cache, sd15_folder):
    cached(cache, "someone/sd15", sd15_folder, skip="diffusion_pytorch")
    for spec in ("someone/sd15", "someone/other", "someone/sd15@later"):
        with pytest.raises(BaseModelError, match=f"{spec} .* HF_HUB_OFFLINE is set"):
            load_base(spec)


def test_a_checkpoint_takes_clips_tokenizer_from_the_cache(cache, sd15_folder, sd15_file):
    with pytest.raises(BaseModelError, match="holds no tokenizer, and none is at hand"):
        load_base(str(sd15_file))
    cached(cache, "openai/clip-vit-large-patch14", sd15_folder / "tokenizer")
    assert load_base(str(sd15_file), device=torch.device("cpu")).layout == "file"


class Hub:
    """Stands for the network: what is asked for comes into the cache, and is written down."""

    def __init__(self, monkeypatch, cache, source, names):
        import huggingface_hub

        self.fetched, self.room = (
            [],
            cached(cache, "someone/sd15", source, skip="diffusion_pytorch"),
        )
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)
        monkeypatch.setattr(
            huggingface_hub.HfApi, "list_repo_files", lambda _self, repo, revision: names
        )

    def snapshot(self, repo, *, revision, allow_patterns):
        self.fetched.append((revision, allow_patterns))
        return str(self.room / "snapshots" / COMMIT)


def test_of_the_weights_only_what_is_read_is_fetched(cache, sd15_folder, monkeypatch):
    others = [
        "v1-5-pruned.ckpt",
        "unet/diffusion_pytorch_model.bin",
        "safety_checker/model.safetensors",
    ]
    variants = [f"{part}/{name}" for part, name in WEIGHTS.items()]
    half = [name.replace(".safetensors", ".fp16.safetensors") for name in variants]
    hub = Hub(monkeypatch, cache, sd15_folder, [*half, *others, *variants])
    folder, origin = fetch_base("someone/sd15@v2")
    assert origin == f"someone/sd15@{COMMIT}"
    assert folder.name == COMMIT
    assert [revision for revision, _ in hub.fetched] == ["v2", COMMIT]
    assert not any("safetensors" in pattern for pattern in hub.fetched[0][1])
    assert hub.fetched[1][1] == variants


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["unet/diffusion_pytorch_model.bin"], "part unet, is there only as a pickle"),
        (["README.md"], "has no weights of the unet, vae, text_encoder"),
    ],
)
def test_a_repository_without_usable_weights_is_refused(
    names, fault, cache, sd15_folder, monkeypatch
):
    Hub(monkeypatch, cache, sd15_folder, names)
    with pytest.raises(BaseModelError, match=fault):
        fetch_base("someone/sd15")


def test_a_base_of_another_family_is_refused_before_its_weights_are_fetched(
    cache, sd15_folder, monkeypatch, tmp_path
):
    folder = shutil.copytree(sd15_folder, tmp_path / "copy")
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 4', '"in_channels": 9'))
    hub = Hub(monkeypatch, cache, folder, [])
    with pytest.raises(BaseModelError, match="is an inpainting model"):
        fetch_base("someone/sd15")
    assert len(hub.fetched) == 1


def test_a_hub_id_is_told_from_a_path():
    assert is_hub_id("stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert is_hub_id("a/b_c.d@refs/pr/1")
    for path in ("sd15", "./a/b", "/a/b", "a/b/c", "a/model.safetensors", "a/model.ckpt", "a/b@"):
        assert not is_hub_id(path)
