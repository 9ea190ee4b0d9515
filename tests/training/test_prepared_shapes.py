"""Pictures of several shapes train together, and what is cached changes nothing but time."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spf_lora.base.load import Base
from spf_lora.data.buckets import make_buckets
from spf_lora.data.cache import TensorCache
from spf_lora.data.folder import Example, read_folder
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training import prepare as prepare_module
from spf_lora.training.batch import draw_batch, of_batch
from spf_lora.training.build import build_trainer
from spf_lora.training.finish import finished_adapter
from spf_lora.training.prepare import own_pictures, prepare

pytestmark = pytest.mark.usefixtures("few_draws")
SHAPES = [(96, 96), (64, 128), (96, 96), (128, 64), (64, 128)]  # width and height
TEXT = "a person, a red wall"


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def make(tiny: Base):
    def prepared(cache: TensorCache | None = None, pictures=None, own: bool = False):
        photos = pictures or [photo(i, size) for i, size in enumerate(SHAPES)]
        return prepare(
            tiny,
            photos,
            base_prompts=[TEXT] * len(photos),
            full_prompts=[f"{TEXT}, a hat"] * len(photos),
            phrases=[["a person"]] * len(photos),
            target_text="a hat",
            buckets=make_buckets(96, step=32),
            cache=cache,
            own=own,
            masks=[Image.new("L", p.size, 255) for p in photos],
        )

    return prepared


def test_each_picture_is_encoded_in_its_own_shape(make, tiny: Base) -> None:
    data = make()
    assert data.sizes == ((24, 24), (32, 16), (24, 24), (16, 32), (32, 16))
    assert data.latents.shape[2:] == (32, 32)
    assert not data.latents[1, :, :, 16:].any(), "zeros beyond"
    assert data.masks[1].sum() == 32 * 16
    alone = make(pictures=[photo(1, SHAPES[1])])
    assert torch.equal(alone.latents[0], data.latents[1, :, :32, :16])


def test_a_batch_holds_one_shape_and_no_picture_is_left_out(make, tiny: Base) -> None:
    data, seen, sizes = make(), Counter(), set()
    for index in range(50):
        batch = draw_batch(data, tiny.scheduler, index=index, size=2, seed=0)
        rows = batch.rows.tolist()
        assert {data.sizes[row] for row in rows} == {tuple(batch.noisy.shape[2:])}
        assert of_batch(data.masks, batch).shape[2:] == batch.noisy.shape[2:]
        clean = of_batch(data.latents, batch)
        assert torch.equal(batch.noisy, tiny.scheduler.add_noise(clean, batch.noise, batch.t))
        seen.update(rows)
        sizes.add(batch.noisy.shape[2:])
    assert len(sizes) == 3
    assert set(seen.values()) <= {19, 20, 21}, "50 batches of 2 are 20 of each"


def test_the_bases_own_pictures_have_the_shape_of_the_photograph(make, tiny: Base) -> None:
    data = make(own=True)
    assert data.own.shape == data.latents.shape
    assert not data.own[1, :, :, 16:].any()
    assert data.own[1, :, :32, :16].abs().min() > 0
    batch = draw_batch(data, tiny.scheduler, index=0, size=2, seed=0, own_share=1.0)
    assert not batch.real.any()
    clean = of_batch(data.own, batch)
    assert torch.equal(batch.noisy, tiny.scheduler.add_noise(clean, batch.noise, batch.t))


def test_the_bases_own_pictures_are_drawn_once_for_what_is_on_the_base(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    real = prepare_module.sample_latents
    monkeypatch.setattr(
        prepare_module, "sample_latents", lambda *of, **how: drawn.append(1) or real(*of, **how)
    )
    wanted = [TEXT] * 2, [(24, 24), (32, 16)], TensorCache(tmp_path)
    first, again = (own_pictures(tiny, *wanted) for _ in range(2))
    assert torch.equal(first, again)
    assert len(drawn) == 2, "one for each shape, and none the second time"
    own_pictures(tiny, *wanted, below="another adapter is on")
    assert len(drawn) == 4


def test_pairs_are_drawn_in_the_shape_that_most_photographs_have(make) -> None:
    assert make().commonest_size in ((24, 24), (32, 16))
    assert make(pictures=[photo(i, SHAPES[i]) for i in (1, 4, 0)]).commonest_size == (32, 16)


def test_what_the_cache_gives_is_what_was_computed(make, tmp_path: Path) -> None:
    plain = make()
    first, second = TensorCache(tmp_path), TensorCache(tmp_path)
    made, found = make(first), make(second)
    assert first.made == len(SHAPES) + 2, "equal prompts are asked once"
    assert second.made == 0
    assert second.found == len(SHAPES) + 2 * len(SHAPES)
    for name in ("latents", "base_states", "full_states"):
        assert torch.equal(getattr(plain, name), getattr(made, name))
        assert torch.equal(getattr(plain, name), getattr(found, name))


def test_another_base_asks_anew(make, tiny: Base, tmp_path: Path) -> None:
    make(TensorCache(tmp_path))
    with torch.no_grad():
        next(tiny.vae.parameters()).add_(0.1)
        next(tiny.text_encoder.parameters()).add_(0.1)
    changed = TensorCache(tmp_path)
    make(changed)
    assert changed.made == len(SHAPES) + 2


def test_all_shapes_train_through_both_stages_with_masks_and_without(
    tiny: Base, tmp_path: Path
) -> None:
    changes = (
        "data.resolution=96",
        "data.batch_size=2",
        "learn.steps=2",
        "distil.steps=2",
        "adapter.rank=2",
        "adapter.alpha=2",
    )
    recipe = load_recipe(find_recipe("hat"), changes)
    recipe = replace(recipe, training=replace(recipe.training, base="small"))
    examples = [Example(photo(i, size), f"{TEXT}, a hat", str(i)) for i, size in enumerate(SHAPES)]
    examples[0] = replace(examples[0], mask=Image.new("L", SHAPES[0], 255))
    trainer = build_trainer(
        recipe, tiny, examples, checkpoint=tmp_path / "c", cache=TensorCache(tmp_path / "cache")
    )
    steps = list(trainer.run())
    assert [step.stage for step in steps] == ["learn"] * 2 + ["distil"] * 2
    assert all(np.isfinite(step.loss) for step in steps)
    assert finished_adapter(recipe, tiny, examples).modules


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPF_LORA_CACHE", "cache")
    Path("photos").mkdir()
    Path("adapters").mkdir()
    for number, size in enumerate(SHAPES[:3]):
        photo(number, size).save(f"photos/{number}.png")
        Path(f"photos/{number}.txt").write_text(f"{TEXT}, a hat")
    return Path("photos")


@pytest.fixture
def train(cli, tiny_folder: Path):
    changes = ("data.batch_size=1", "distil.steps=0")
    settings = [word for change in changes for word in ("--set", change)]

    def run(*words: object):
        fixed = ["train", "-a", "hat", "--data", "photos", "--steps", "2"]
        return cli(*fixed, "--base", tiny_folder, *settings, *words)

    return run


def test_trouble_with_the_cache_is_told_and_changes_nothing(
    photos: Path, train, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("--out", "whole.safetensors")[0] == 0
    entries = sorted(Path("cache").rglob("*.safetensors"))
    assert len(entries) == len(SHAPES[:3]) + 2 + 1, "pictures, both prompts, how words are read"
    entries[0].write_bytes(entries[0].read_bytes()[:-1])
    code, _, talk = train("--out", "damaged.safetensors")
    assert code == 0
    assert f"the cache's {entries[0].name} was damaged" in " ".join(talk.split())
    Path("file").write_text("x")
    monkeypatch.setenv("SPF_LORA_CACHE", "file")
    code, _, talk = train("--out", "unwritable.safetensors")
    assert code == 0
    assert "nothing more is cached: " in " ".join(talk.split())
    whole = Path("whole.safetensors").read_bytes()
    assert Path("damaged.safetensors").read_bytes() == whole
    assert Path("unwritable.safetensors").read_bytes() == whole


def test_photographs_deleted_once_they_are_read_do_no_harm(
    photos: Path, tiny: Base, tmp_path: Path
) -> None:
    changes = ("data.batch_size=1", "learn.steps=1", "distil.steps=0", "training.base=small")
    recipe = load_recipe(find_recipe("hat"), changes)
    examples = read_folder(photos, recipe.attribute)
    for path in photos.iterdir():
        path.unlink()
    cache = TensorCache(tmp_path / "cache")
    trainer = build_trainer(recipe, tiny, examples, checkpoint=tmp_path / "c", cache=cache)
    assert len(list(trainer.run())) == 1
