"""The paper's table on photographs: one command trains, draws, looks and writes one JSON."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from root import ROOT
from tiny_base import make_tiny_clip

METHODS = ("plain", "spf-portrait", "ours")
FEW = {
    "data.batch_size": 1,
    "data.passes": 1,
    "learn.steps": 1,
    "distil.steps": 1,
    "distil.vocabulary": "portraits",
    "data.vocabulary": "none",
    "training.precision": "fp32",
}


@pytest.fixture
def table(monkeypatch, tmp_path, tiny_folder, scorer_folders):
    """Run the benchmark on a tiny base as a user would; return what it wrote."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(tmp_path)
    import sd15_paper

    from spf_lora.training import duration

    monkeypatch.setattr(sd15_paper, "STRENGTHS", (0.0, 0.5, 1.0))
    monkeypatch.setattr(duration, "_seconds_a_flop", lambda *how: 1e-9)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        values = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a portrait of a man, red hair, a beard")
    changes = FEW | {"data.clip": make_tiny_clip(tmp_path / "clip")}
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    config = base / "unet" / "config.json"  # LPIPS needs pictures of 64 px
    config.write_text(config.read_text().replace('"sample_size": 8', '"sample_size": 16'))
    words = ["--base", base, "--data", folder, "--prompts", 2, "--noises", 1, "--steps", 2]
    words += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    words += [w for name, at in scorer_folders.items() for w in ("--scorer", f"{name}={at}")]

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["sd15_paper.py", *map(str, (*words, *more))])
        sd15_paper.main()
        path = tmp_path / "out/sd15-paper/result.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    return run


@pytest.mark.usefixtures("few_draws")
def test_every_method_has_the_papers_columns_and_a_second_run_trains_nothing(table, scorer_folders):
    found = table()
    assert set(found) == {"run", "measure", "environment"}
    assert tuple(found["measure"]) == METHODS
    for row in found["measure"].values():
        assert set(row["paper"]) == {"FID", "LPIPS", "ID", "CLIP-T", "SegCons"}
        assert all(one["pictures"] <= 2 for one in row["paper"].values())
        assert {"rho@1", "P@1", "sps"} <= set(row["response_matched"])
    assert found["measure"]["plain"]["steps"] == 2, "as many as both of our stages"
    assert len(found["run"]["chosen"]) == 8
    scorers = found["run"]["scorers"]
    assert set(scorers) == {"vgg16", "face", "parser", "clip", "dinov2"}
    weights = Path(scorer_folders["face"]) / "model.safetensors"
    assert scorers["face"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    (again,) = table("--methods", "ours")["measure"].values()
    assert "told" not in again
    assert again["paper"] == found["measure"]["ours"]["paper"]


def test_hours_and_models_are_told_before_anything_begins(table, capsys):
    assert table("--dry-run") is None
    said = capsys.readouterr().out
    assert "hours here" in said
    assert "553 MB, licence bsd-3-clause; hf download timm/vgg16.tv_in1k" in said
