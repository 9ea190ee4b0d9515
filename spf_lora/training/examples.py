"""What is learned from: the user's folder, or the portrait world's biased pictures."""

from pathlib import Path

from spf_lora.base.load import Base
from spf_lora.base.outline import picture_step
from spf_lora.base.texts import cut_off
from spf_lora.data.buckets import Bucket, make_buckets
from spf_lora.data.cache import TensorCache
from spf_lora.data.check import Report, check
from spf_lora.data.folder import LARGEST_PX, Example, Scan, read_folder, usable
from spf_lora.data.kept_portraits import kept_in
from spf_lora.data.worlds import PORTRAITS
from spf_lora.data.worlds.world import World
from spf_lora.recipe.schema import Recipe
from spf_lora.training.baselines import RIVALS


def load_examples(
    recipe: Recipe,
    folder: Path | None,
    cache: TensorCache | None = None,
    world: World = PORTRAITS,
) -> list[Example]:
    """Read the user's folder, or draw the recipe's biased portraits; a cache keeps those.

    Args:
        recipe: what is to be learned.
        folder: the user's.
        cache: of portraits.
        world: which portraits, see `spf_lora.data.worlds.world_of`.

    Raises:
        DataError: lists every fault of the folder; or the portrait world lacks the attribute.
    """
    if folder is not None:
        return read_folder(folder, recipe.attribute, shorter_side_px=LARGEST_PX)
    rival = RIVALS.get(recipe.training.method)
    drawn = world.training_set(
        recipe.attribute.name,
        count=recipe.data.count,
        seed=recipe.data.seed,
        coverage=recipe.data.coverage,
        bias=recipe.data.bias,
        masks=rival is not None and rival.masks,  # nobody else is told where the attribute is
        draw=kept_in(cache, world),
    )
    return [
        Example(picture, text, f"portrait {i}", mask)
        for i, (picture, text, mask) in enumerate(drawn)
    ]


def shapes_of(recipe: Recipe, base: Base) -> list[Bucket]:
    """Return the shapes that pictures are trained in, at the recipe's or the base's resolution."""
    levels = (len(model.config.block_out_channels) for model in (base.vae, base.unet))
    return make_buckets(recipe.data.resolution or base.resolution, step=picture_step(*levels))


def checked_examples(
    recipe: Recipe, base: Base, scan: Scan, *, skip_faulty: bool = False
) -> tuple[list[Example], Report]:
    """Check a folder as `data check` does; return what can be trained on, and what was found.

    Raises:
        DataError: lists every fault, unless the user asked to go on without those pictures.
    """
    report = check(
        scan,
        recipe.attribute,
        buckets=shapes_of(recipe, base),
        cut_off=lambda prompt: cut_off(base.tokenizer, prompt),
    )
    faults = [fault for fault in report.faults if fault not in scan.faults]
    return usable(scan, recipe.attribute, more=faults, skip_faulty=skip_faulty), report
