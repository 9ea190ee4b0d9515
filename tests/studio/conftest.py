import pytest

from spf_lora.studio import jobs


@pytest.fixture(autouse=True)
def studio(tmp_path, monkeypatch):
    """A studio's folder of its own."""
    monkeypatch.setenv(jobs.VARIABLE, str(tmp_path / "studio"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studio").mkdir()
    return tmp_path / "studio"


@pytest.fixture
def unstarted(monkeypatch):
    """Jobs that no worker takes."""
    monkeypatch.setattr(jobs, "start_worker", lambda: None)
