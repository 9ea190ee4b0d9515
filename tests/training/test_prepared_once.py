"""What was prepared is found again: a second run, or a resumed one, computes none of it."""

import pytest
import torch

from spf_lora.base.share import shared
from spf_lora.base.towers import Clip
from spf_lora.data.cache import TensorCache
from spf_lora.data.worlds.world import World
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training.build import build_trainer
from spf_lora.training.examples import load_examples

pytestmark = pytest.mark.usefixtures("few_draws")
SMALL = ("data.count=2", "data.batch_size=2", "learn.steps=1", "distil.steps=1")


@pytest.fixture
def work(embedded, monkeypatch):
    """Counts what the base, its CLIP and the painter of portraits are asked."""
    counts = dict.fromkeys(("words", "pixels", "noise", "clip", "portraits"), 0)

    def counted(name, function):
        def run(*words, **more):
            counts[name] += 1
            return function(*words, **more)

        return run

    monkeypatch.setattr(World, "render", counted("portraits", World.render))
    for name in ("embed_image", "embed_text"):
        monkeypatch.setattr(Clip, name, counted("clip", getattr(Clip, name)))
    parts = {"words": embedded.text_encoder, "pixels": embedded.vae.encoder, "noise": embedded.unet}
    hooks = [
        part.register_forward_pre_hook(counted(name, lambda *_: None))
        for name, part in parts.items()
    ]
    yield counts
    for hook in hooks:
        hook.remove()


def prepared(base, folder):
    """Do all that comes before the first step of each stage; return the batches of those steps."""
    recipe = load_recipe(find_recipe("beard"), SMALL)
    cache = TensorCache(folder)
    examples = load_examples(recipe, None, cache)
    with shared(base) as lent:
        trainer = build_trainer(recipe, lent, examples, checkpoint=folder / "c", cache=cache)
        left = {name: p.detach().clone() for name, p in trainer.parameters.items()}
        for stage in trainer.stages:
            if stage.begin:
                stage.begin(left, trainer.tell)
        return [stage.batch(0, 2) for stage in trainer.stages]


def test_a_second_run_prepares_nothing_anew(embedded, work, tmp_path):
    first = prepared(embedded, tmp_path)
    assert all(work.values()), work
    work.update(dict.fromkeys(work, 0))
    second = prepared(embedded, tmp_path)
    assert not any(work.values()), work
    for one, other in zip(first, second, strict=True):
        for name, value in vars(one).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(other, name)), name
