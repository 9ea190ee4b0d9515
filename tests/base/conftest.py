import pytest
from layouts import make_checkpoint, make_folder


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("sd15") / "base")


@pytest.fixture(scope="session")
def sd15_file(sd15_folder, tmp_path_factory):
    return make_checkpoint(sd15_folder, tmp_path_factory.mktemp("file") / "model.safetensors")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path
