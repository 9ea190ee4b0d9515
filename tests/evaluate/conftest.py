from pathlib import Path

import pytest
import torch
from made_evaluations import evaluate_adapter, random_adapter

from spf_lora.base.load import Base, load_base
from spf_lora.evaluate.protocol import held_out_cases
from spf_lora.evaluate.result import Result


@pytest.fixture(scope="module")
def still(tiny_folder: Path) -> Base:
    """The tiny base, for tests that put back what they switch."""
    return load_base(str(tiny_folder), device=torch.device("cpu"))


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="session")
def measured(tiny_folder: Path, gallery: Path) -> Result:
    """A random adapter on the tiny base: 4 prompts, 2 seeds, 3 strengths."""
    with torch.backends.mkldnn.flags(enabled=True):  # as `one_dnn`
        base = load_base(str(tiny_folder), device=torch.device("cpu"))
        return evaluate_adapter(
            base,
            random_adapter(base.unet),
            attribute="beard",
            name="noise",
            cases=held_out_cases("beard", prompts=4, seeds=2),
            strengths=(0, 0.5, 1),
            gallery=gallery,
            steps=2,
            bootstraps=200,
        )
