"""What keeps an attribute from where nobody asks: text layers first, own pictures of all kinds."""

import pytest
from PIL import Image

from spf_lora.base.load import Base
from spf_lora.data.folder import Example
from spf_lora.method.protect import reads_text
from spf_lora.recipe.files import find_recipe
from spf_lora.recipe.load import load_recipe
from spf_lora.training import prepare
from spf_lora.training.build import build_trainer

pytestmark = pytest.mark.usefixtures("few_draws")
CHANGES = ("learn.steps=2", "data.batch_size=1", "optimizer.warmup_steps=0", "adapter.rank=4")


@pytest.mark.parametrize("text_only", [True, False])
def test_learning_moves_the_texts_layers_alone_and_aligning_all(tiny: Base, tmp_path, text_only):
    changes = (*CHANGES, "align.steps=1", f"learn.text_only={str(text_only).lower()}")
    recipe = load_recipe(find_recipe("hat"), changes)
    examples = [Example(Image.new("RGB", (64, 64), c), "a man, a hat", c) for c in ("red", "blue")]
    trainer = build_trainer(recipe, tiny, examples, checkpoint=tmp_path / "c")

    def moved() -> set[str]:
        ups = ((name, p) for name, p in trainer.parameters.items() if "lora_B" in name)
        return {name for name, p in ups if p.any()}

    seen = []
    for step in trainer.run():
        seen.append(moved())
        assert step.stage == ("align" if len(seen) == 3 else "learn")
    text = {name for name in trainer.parameters if "lora_B" in name and reads_text(name)}
    assert text < seen[2]
    assert seen[1] == text if text_only else text < seen[1]


def test_the_bases_own_pictures_are_drawn_of_prompts_of_all_kinds(
    tiny: Base, tmp_path, monkeypatch
):
    asked = []
    draw = prepare.own_pictures
    monkeypatch.setattr(prepare, "own_pictures", lambda *a: asked.extend(a[1]) or draw(*a))
    examples = [Example(Image.new("RGB", (64, 64), c), "a man, a hat", c) for c in ("red", "blue")]

    def build(*changes: str) -> list[str]:
        asked.clear()
        recipe = load_recipe(find_recipe("hat"), (*CHANGES, "align.own_pictures=3", *changes))
        trainer = build_trainer(recipe, tiny, examples, checkpoint=tmp_path / "c")
        assert len(trainer.data.twins.latents) == len(asked) == 6
        return list(asked)

    varied, again = build(), build()
    assert varied == again
    assert len(set(varied)) == 6
    assert all(prompt.startswith("a man, ") and "hat" not in prompt for prompt in varied)
    assert build("training.seed=1") != varied
    assert build("align.vocabulary=none") == ["a man"] * 6
