"""`--steps` and `--slider`: how long a run is, in the recipe's own proportions."""

import math

from spf_lora.errors import RecipeError
from spf_lora.recipe.schema import Recipe


def with_steps(recipe: Recipe, steps: int) -> tuple[str, ...]:
    """Return the overrides that give a run of `steps` in the recipe's own proportions.

    A rival has no stage to distil, so all are its own; given pairs leave nothing to learn first.

    Raises:
        RecipeError: fewer than 2 steps where both stages are asked for, or fewer than 1.
    """
    distils = recipe.training.method == "ours" and recipe.distil.steps > 0
    both = distils and recipe.learn.steps > 0
    if steps < (2 if both else 1):
        raise RecipeError(
            f"--steps {steps} leaves nothing to train",
            hint="give at least 2: the two stages share them" if both else "give at least 1",
        )
    if not both:
        return (f"distil.steps={steps}" if distils else f"learn.steps={steps}",)
    share = recipe.learn.steps / (recipe.learn.steps + recipe.distil.steps)
    learn = min(max(1, round(steps * share)), steps - 1)
    return f"learn.steps={learn}", f"distil.steps={steps - learn}"


def as_slider(recipe: Recipe) -> tuple[str, ...]:
    """Return the overrides that make a recipe one of a slider, whose strength brings the target.

    It is distilled for a third of the steps: longer, its response falls again above strength 1, and
    it moves more (docs/experiments.md). Given pairs, which leave nothing to learn first, need all.
    """
    steps = (
        () if recipe.learn.steps == 0 else (f"distil.steps={math.ceil(recipe.distil.steps / 3)}",)
    )
    return "attribute.control=strength", *steps
