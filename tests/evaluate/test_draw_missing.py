import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_evaluations import random_adapter
from PIL import Image
from root import ROOT

from spf_lora.adapters.module import Adapter
from spf_lora.base.texts import encode
from spf_lora.draw import act
from spf_lora.draw.act import NOTHING, acting, draw
from spf_lora.draw.sample import Sampling
from spf_lora.draw.weights import attached
from spf_lora.errors import MeasureError, OutputError
from spf_lora.evaluate.draw_missing import Wanted, painter
from spf_lora.evaluate.gallery import (
    Ingredients,
    cache_folder,
    has_picture,
    picture_path,
    read_picture,
    write_content,
    write_picture,
)

TWO_STEPS = Sampling(steps=2)
TWO = [Wanted("a man, a beard", 1), Wanted("a man, a beard", 2)]
PARTS = {
    "model": "m",
    "adapter": "a",
    "strength": 1.0,
    "prompt": "p",
    "negative": "",
    "seed": 1,
    "sampler": "ddim",
    "steps": 5,
    "guidance": 3.0,
}


@pytest.fixture
def brush(still, tmp_path):
    return painter(still, acting(random_adapter(still.unet)), folder=tmp_path, sampling=TWO_STEPS)


def bytes_of(brush, wanted) -> bytes:
    return read_picture(brush.folder, brush.key(wanted)).tobytes()


def test_strength_0_draws_the_base_models_picture_bit_for_bit(still) -> None:
    prompts, seeds = ["a man, a beard", "a woman"], [1, 2]
    plain = draw(still, prompts, seeds, steps=2)
    with attached(still.unet, [(random_adapter(still.unet), 0.0)]):
        zero = draw(still, prompts, seeds, steps=2)
    with attached(still.unet, [(random_adapter(still.unet), 1.0)]):
        one = draw(still, prompts, seeds, steps=2)
    assert [p.tobytes() for p in zero] == [p.tobytes() for p in plain]
    assert [p.tobytes() for p in one] != [p.tobytes() for p in plain]


def test_a_late_adapter_draws_another_picture_in_the_cache_too(brush, still) -> None:
    late = replace(brush, acting=replace(brush.acting, starts=(0.6,)))
    asked, base = Wanted("x", 1, 1.0), Wanted("x", 1, 0.0)
    assert brush.draw([asked, base]) == 2
    assert late.draw([asked, base]) == 1
    assert len({bytes_of(brush, asked), bytes_of(late, asked), bytes_of(brush, base)}) == 3


def test_an_exact_painter_lets_each_adapter_act_on_its_words_alone(still, tmp_path) -> None:
    parts = [random_adapter(still.unet, seed=seed) for seed in (0, 1)]
    rows = [(part, 1.0) for part in parts]
    both = painter(
        still, acting(rows, words=("a hat", "a beard")), folder=tmp_path, sampling=TWO_STEPS
    )
    hat = painter(still, acting(parts[0], words=("a hat",)), folder=tmp_path, sampling=TWO_STEPS)
    added = painter(still, acting(rows), folder=tmp_path, sampling=TWO_STEPS)
    never, asking = (
        [Wanted(prompt, 1, strength) for strength in (1.0, 0.0)] for prompt in ("x", "x, a hat")
    )
    for brush in (both, hat, added):
        brush.draw([*never, *asking])  # prompts of one batch that ask for different things
    assert bytes_of(both, never[0]) == bytes_of(both, never[1])
    assert bytes_of(both, asking[0]) == bytes_of(hat, asking[0])
    assert bytes_of(both, asking[0]) != bytes_of(both, asking[1])
    assert len({brush.key(asking[0]) for brush in (both, hat, added)}) == 3
    assert len({brush.key(asking[1]) for brush in (both, hat, added)}) == 1


def test_a_picture_within_another_is_that_one_but_where_the_adapter_answers(brush, still) -> None:
    within = Wanted("x, a hat", 1, 1.0, within="x")
    unasked = Wanted("x", 1, 1.0, within="x")
    added, base = Wanted("x, a hat", 1, 1.0), Wanted("x", 1)
    assert brush.draw([added, base]) == 2
    local = replace(brush, acting=replace(brush.acting, local=True))
    assert local.draw([within, unasked, added]) == 2
    assert bytes_of(local, unasked) == bytes_of(brush, base)
    assert len({bytes_of(brush, one) for one in (within, added, base)}) == 3
    exact = replace(local, acting=replace(local.acting, words=("a hat",)))
    assert exact.draw([within]) == 1
    assert bytes_of(exact, within) != bytes_of(brush, within)
    assert brush.key(Wanted("x, a hat", 1, within="x")) == brush.key(Wanted("x, a hat", 1))


def test_words_come_as_late_as_their_adapter(brush, still) -> None:
    late = replace(brush, acting=replace(brush.acting, starts=(0.6,)))
    asked, never = (Wanted("x, a hat", 1, s, (("x", 0.6),)) for s in (1.0, 0.0))
    read = []
    hook = still.unet.register_forward_pre_hook(lambda _, a: read.append(a[2][1]))
    late.draw([asked])
    late.draw([never])
    brush.draw([Wanted("x, a hat", 1, 1.0)])
    hook.remove()
    x, hat = encode(still, ["x", "x, a hat"])
    # two steps, at 501 and 1; without the adapter nothing is late
    for found, wanted in zip(read, [x, hat, hat, hat, hat, hat], strict=True):
        torch.testing.assert_close(found, wanted)
    assert not torch.allclose(x, hat)
    assert late.key(asked) != late.key(Wanted("x, a hat", 1, 1.0))
    assert late.key(never) == brush.key(Wanted("x, a hat", 1))


def test_strength_0_is_the_base_models_picture_in_the_cache_too(brush, still) -> None:
    alone = painter(still, NOTHING, folder=brush.folder, sampling=TWO_STEPS)
    assert brush.key(Wanted("x", 1, 0.0)) == alone.key(Wanted("x", 1))
    assert brush.key(Wanted("x", 1, 0.5)) != alone.key(Wanted("x", 1))


def test_paired_pictures_start_from_the_same_noise(brush, monkeypatch) -> None:
    noises = []
    whole = act.sample_latents

    def watched(base, states, seeds, **how):
        from spf_lora.draw.sample import start_noise

        noises.append(dict(zip(seeds, start_noise(base, seeds), strict=True)))
        return whole(base, states, seeds, **how)

    monkeypatch.setattr(act, "sample_latents", watched)
    brush.draw([Wanted(p, s, a) for p in ("x", "y") for s in (1, 2) for a in (0.0, 1.0)])
    assert len(noises) == 2
    for seed in (1, 2):
        torch.testing.assert_close(noises[0][seed], noises[1][seed], rtol=0, atol=0)


def test_a_second_drawing_draws_nothing_and_a_killed_one_goes_on_to_the_same(brush) -> None:
    assert brush.draw(TWO) == 2
    first = [bytes_of(brush, w) for w in TWO]
    assert brush.draw(TWO) == 0
    picture_path(brush.folder, brush.key(TWO[1])).unlink()
    assert brush.draw(TWO) == 2  # a group is drawn whole, so that its numbers stay the same
    assert [bytes_of(brush, w) for w in TWO] == first


def test_a_damaged_picture_is_drawn_again(brush) -> None:
    brush.draw(TWO)
    path = picture_path(brush.folder, brush.key(TWO[0]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not has_picture(brush.folder, brush.key(TWO[0]))
    brush.draw(TWO)
    assert path.read_bytes() == whole


def test_the_unet_is_called_once_a_step_for_all_prompts_seeds_and_both_halves(brush) -> None:
    calls = []
    hook = brush.base.unet.register_forward_pre_hook(lambda _, a: calls.append(len(a[0])))
    brush.draw([Wanted(f"p{i}", s) for i in range(4) for s in (1, 2)])
    hook.remove()
    assert calls == [16, 16]


def test_progress_counts_to_the_number_of_missing_pictures(brush) -> None:
    told = []
    brush.draw([*TWO, Wanted("y", 1, 0.5)], lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (2, 3), (3, 3)]


def test_a_broken_adapter_is_told_and_leaves_no_picture(still, tmp_path) -> None:
    adapter = random_adapter(still.unet)
    name, module = next(iter(adapter.modules.items()))
    broken = Adapter({name: replace(module, up=module.up * np.float32(1e38))}, {})
    brush = painter(still, acting(broken), folder=tmp_path, sampling=TWO_STEPS)
    with pytest.raises(MeasureError, match=r"at strength 1 .* not finite"):
        brush.draw([Wanted("x", 1, 1.0)])
    assert not list(tmp_path.rglob("*.png"))
    assert torch.isfinite(torch.cat([p.flatten() for p in still.unet.parameters()])).all()


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", "n"),
        ("adapter", "b"),
        ("strength", 0.5),
        ("prompt", "q"),
        ("negative", "no"),
        ("seed", 2),
        ("sampler", "euler"),
        ("steps", 6),
        ("guidance", 3.5),
        ("starts", (0.4,)),
        ("before", (("p", 0.4),)),
    ],
)
def test_everything_that_decides_a_picture_is_in_its_key(part, value) -> None:
    assert Ingredients(**PARTS).key() != Ingredients(**PARTS | {part: value}).key()
    assert Ingredients(**PARTS).key() == Ingredients(**PARTS).key()


def test_the_cache_folder_is_the_users_or_the_one_that_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SPF_LORA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "pictures"
    monkeypatch.delenv("SPF_LORA_CACHE")
    assert cache_folder().parts[-2:] == ("spf-lora", "pictures")


def test_a_cache_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        write_picture(tmp_path / "file", "aa", Image.new("RGB", (2, 2)))


def test_a_picture_that_is_not_there_is_told(tmp_path) -> None:
    with pytest.raises(MeasureError, match="not in the cache"):
        read_picture(tmp_path, "aa")


def test_content_is_kept_once_under_its_own_digest(tmp_path) -> None:
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    assert write_content(tmp_path, red) == write_content(tmp_path, red.copy())
    assert write_content(tmp_path, red) != write_content(tmp_path, blue)
    assert len(list(tmp_path.rglob("*.png"))) == 2


def test_a_reader_never_sees_half_a_picture_while_two_processes_write(tmp_path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom PIL import Image\n"
        "from spf_lora.evaluate.gallery import write_picture\n"
        "picture = Image.effect_noise((96, 96), 90).convert('RGB')\n"
        "for _ in range(60):\n    write_picture(Path(sys.argv[1]), 'abc', picture)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(2)
    ]
    read, until = 0, time.monotonic() + 60
    while any(w.poll() is None for w in writers):
        assert time.monotonic() < until
        if picture_path(tmp_path, "abc").exists():
            assert read_picture(tmp_path, "abc").size == (96, 96)
            read += 1
    assert [w.returncode for w in writers] == [0, 0]
    assert read > 10
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["abc.png"]
