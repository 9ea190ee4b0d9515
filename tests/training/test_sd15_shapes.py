"""All of our method on a random model of SD1.5's real shapes: what it holds, writes and takes."""

import time
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from root import ROOT
from tiny_base import make_tiny_clip

from spf_lora.api import load_recipe
from spf_lora.base.load import load_base
from spf_lora.data.cache import TensorCache
from spf_lora.data.folder import Example
from spf_lora.draw.trajectories import megabytes
from spf_lora.training import calibrate
from spf_lora.training.build import build_trainer
from spf_lora.training.duration import seconds_a_pass
from spf_lora.training.finish import finished_adapter
from spf_lora.training.fit_gpu import estimate_recipe
from spf_lora.training.peak_memory import allocated_peak

SMALL = (
    "data.resolution=256",
    "data.batch_size=1",
    "data.passes=1",
    "learn.steps=2",
    "distil.steps=2",
    "training.precision=fp32",
)


class Watch:
    """Seconds of each phase that training tells of."""

    def __init__(self):
        self.seconds, self.name, self.begun = {}, "", time.perf_counter()

    def __call__(self, name, done=0, total=0):
        now = time.perf_counter()
        self.seconds[self.name] = self.seconds.get(self.name, 0) + now - self.begun
        self.name, self.begun = name, now


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
def test_the_pipeline_holds_and_writes_what_is_estimated(monkeypatch, tmp_path, record_property):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "base"))
    monkeypatch.setattr(calibrate, "PICTURES", 2)
    from layouts import FULL, make_folder

    folder = make_folder(tmp_path / "base", **FULL)
    clip = make_tiny_clip(tmp_path / "clip")
    recipe = load_recipe("sd15/beard", [*SMALL, f"training.base={folder}", f"data.clip={clip}"])
    base = load_base(str(folder), device=torch.device("cpu"))
    assert sum(p.numel() for p in base.unet.parameters()) == 859_520_964
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    examples = [Example(Image.fromarray(pixels), f"a {w}, a beard", w) for w in ("man", "boy")]
    cache, watch = TensorCache(tmp_path / "cache"), Watch()
    trainer = build_trainer(
        recipe, base, examples, checkpoint=tmp_path / "c", cache=cache, tell=watch
    )
    held = {}
    steps = trainer.run()
    for stage in ("learn", "distil"):
        watch(stage)
        assert next(steps).stage == stage  # it makes the optimizer's state, or draws the pairs
        watch(f"{stage}, a step")
        held[stage] = allocated_peak(lambda: next(steps))
    watch("")
    estimate = estimate_recipe(recipe)
    wanted = estimate.total - estimate.weights - estimate.adapter - estimate.optimizer
    teaching = trainer.stages[1].batch.__self__
    pairs_mb = megabytes(len(teaching.prompts), teaching.how)
    on_disk = [one.stat().st_size / 1e6 for one in cache.folder.rglob("*.safetensors")]
    facts = {
        "held_mb": {stage: round(size / 1e6) for stage, size in held.items()},
        "estimate_mb": {part: round(size / 1e6) for part, size in asdict(estimate).items()},
        "seconds": {name: round(spent, 1) for name, spent in watch.seconds.items() if name},
        "seconds_a_pass": round(seconds_a_pass(recipe), 2),
        "pairs_mb": round(pairs_mb, 2),
    }
    record_property("told", facts)
    assert max(held.values()) == pytest.approx(wanted, rel=0.15)
    assert pytest.approx(pairs_mb, rel=0.02) in on_disk
    assert any(
        module.up.any() for module in finished_adapter(recipe, base, examples).modules.values()
    )
