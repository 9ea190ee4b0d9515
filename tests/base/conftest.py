import pytest
from layouts import make_checkpoint, make_folder


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("sd15") / "base")


@pytest.fixture(scope="session")
def sd15_file(sd15_folder, tmp_path_factory):
    return make_checkpoint(sd15_folder, tmp_path_factory.mktemp("file") / "model.safetensors")
