import pytest


@pytest.fixture
def comfyui(tmp_path):
    """A folder that looks like a ComfyUI."""
    for mark in ("main.py", "nodes.py", "folder_paths.py", "comfy/samplers.py"):
        (tmp_path / mark).parent.mkdir(exist_ok=True)
        (tmp_path / mark).touch()
    return tmp_path
