import sys

import pytest
from root import ROOT

from spf_lora.data.worlds import WORLDS

SCRIPTS = ROOT / "scripts"


@pytest.fixture
def builder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import build_embedded_base as build
    from embedded import probe, unet

    monkeypatch.setattr(build, "COUNTS", {"world": 96, "unet": 64})
    monkeypatch.setattr(build, "STEPS", dict.fromkeys(build.STEPS, 2))
    monkeypatch.setattr(probe, "REBUILT", 64)
    monkeypatch.setattr(unet, "TRUTH", {0: 0.3, 1: 0.45})
    yield build.Builder(WORLDS["portraits"], tmp_path / "work", 0, tmp_path / "out")
    for name in [n for n in sys.modules if n.split(".")[0] in ("embedded", "build_embedded_base")]:
        del sys.modules[name]


@pytest.mark.slow
def test_every_stage_runs_resumes_and_packs_a_base_that_loads(builder):
    from spf_lora.base.load import check_embedded, load_base
    from spf_lora.draw.act import draw

    builder.work.mkdir()
    for stage in ("tokenizer", "clip", "vae", "unet", "decoder", "probe", "pack"):
        getattr(builder, stage)()
    check_embedded(builder.out)
    first = load_base(str(builder.out))
    assert draw(first, ["a beard"], [0], steps=2)[0].size == (64, 64)
    builder.pack()  # from the checkpoints alone
    assert load_base(str(builder.out)).id == first.id

    later = type(builder)(
        builder.world, builder.work / "later", 0, builder.work / "out", builder.out
    )
    later.work.mkdir()
    later.pack()
    check_embedded(later.out)
    second = load_base(str(later.out))
    assert second.id != first.id
    pairs = zip(first.unet.parameters(), second.unet.parameters(), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) < 0.1, "it went on from the first weights"
