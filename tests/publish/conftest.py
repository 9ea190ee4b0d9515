"""An adapter to publish, its report, and a hub to publish it on."""

import pytest
from hub_stand_in import TOKEN, running
from made_adapters import KEYS_AND_VALUES, make_adapter  # noqa: F401
from made_evaluations import made_up
from PIL import Image

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.format.hashes import content_id
from spf_lora.evaluate.gallery import write_content
from spf_lora.evaluate.result import PromptPair, Result
from spf_lora.evaluate.statistics import figures, sums_of

PROMPT = "a portrait of a person, a beard"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder to work in, with nothing else to find."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SPF_LORA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "adapters").mkdir()
    return tmp_path


@pytest.fixture
def put(desk, make_adapter):  # noqa: F811
    """Write an adapter into ./adapters; return its file."""

    def write(name="beard", *, seed=0, base="someone/sd15@v1", full=True, card=True, **metadata):
        told = Card("beard", "a beard", "a beard", "ab" * 8, recipe={"training": {"base": base}})
        entries = file_metadata(told, rank=4, alpha=2.0, title=name) if card else {}
        adapter = make_adapter(
            KEYS_AND_VALUES, seed=seed, full_size=full, metadata={**entries, **metadata}
        )
        path = desk / "adapters" / f"{name}.safetensors"
        write_adapter(adapter, path, overwrite=True)
        return path

    return write


@pytest.fixture
def picture(desk):
    """A picture beside the adapter."""
    path = desk / "adapters" / "beard.png"
    Image.new("RGB", (64, 64), "teal").save(path)
    return path


@pytest.fixture
def make_report(desk):
    """Make up a report of an adapter file, with pictures in the cache."""

    def make(path, **changes):
        gallery = desk / "cache" / "pictures"
        keys = {
            which: write_content(gallery, Image.new("RGB", (64, 64), colour))
            for which, colour in (("I0", "navy"), ("I1", "maroon"))
        }
        strengths = (0.0, 1.0)
        draws = made_up(
            5, strengths, response=lambda s: 0.2 + 0.7 * s, pollution=lambda s: 0.3, noise=0.1
        )
        draws = [type(one)(one.case, one.seed, one.strength, keys, one.numbers) for one in draws]
        told = {
            "attribute": "beard",
            "target_text": "a beard",
            "adapter": path.stem,
            "adapter_id": content_id(read_adapter(path)),
            "base": str(desk / "models" / "sd15"),
            "base_id": "ab" * 8,
            "judge": "world",
            "sampler": {"name": "ddim", "steps": 25, "guidance": 3.0, "negative": ""},
            "strengths": strengths,
            "main": 1.0,
            "cases": tuple(PromptPair(f"{PROMPT}, {n}", f"a person, {n}", (n,)) for n in range(5)),
            "draws": tuple(draws),
            "numbers": figures(sums_of(draws, prompts=5, strengths=strengths), draws=50),
            "selftests": (),
            "remarks": ("5 prompts: intervals are wide",),
            "gallery": gallery,
        }
        return Result(**{**told, **changes})

    return make


@pytest.fixture
def hub(desk, monkeypatch):
    """A hub on this machine, and a user who is logged in there."""
    from huggingface_hub import constants

    with running() as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(desk / "no-token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield hub
