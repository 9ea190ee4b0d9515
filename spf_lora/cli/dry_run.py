"""What `--dry-run` of `train` and `clean` prints: plan, memory, time by phase, what fits a GPU."""

from typing import Any

from spf_lora.cli import out
from spf_lora.recipe.schema import Recipe

_WORDS = {
    "weights": "frozen weights",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "reference_targets": "reference targets",
    "response_loss": "response loss (CLIP's own weights apart)",
}


def dry_run(settings: Recipe, pictures: int | None, vram: float | None) -> None:
    """Print what a training would do and hold; train nothing."""
    from spf_lora.base.folder import from_configs
    from spf_lora.base.load import check_spec
    from spf_lora.draw.trajectories import Drawing, megabytes
    from spf_lora.training.duration import estimate_seconds
    from spf_lora.training.fit_gpu import base_configs, estimate_recipe, fit, needs_of
    from spf_lora.training.memory import GPU_OWN
    from spf_lora.training.pairs import DRAWING

    base = settings.training.base
    check_spec(base)
    with from_configs(base):
        side = needs_of(settings, *base_configs(base)).side
        needs = estimate_recipe(settings)
    data, distil = settings.data, settings.distil
    count = f"{pictures} pictures" if pictures is not None else f"{data.count} drawn pictures"
    stages = f"{settings.learn.steps} steps to learn"
    how = Drawing(distil.sampler_steps, distil.guidance, (side, side))
    if settings.training.method == "ours" and distil.steps:
        stages += (
            f", {distil.steps} to distil from {distil.pairs} pairs of pictures "
            f"({megabytes(distil.pairs, how):.0f} MB on disk)"
        )
    lines = (
        f"{settings.attribute.name}: {count}, base {base}",
        f"  {stages}",
        f"  {data.batch_size} pictures a step in {data.passes} passes, latents {side} x {side}",
        f"  {settings.adapter.preset} adapter of rank {settings.adapter.rank}, "
        f"{settings.optimizer.name}, {settings.training.precision}",
    )
    for line in lines:
        out.show(line)
    _show(needs)
    with from_configs(base):
        seconds = estimate_seconds(settings, data.count if pictures is None else pictures)
    _show_times(seconds)
    if DRAWING in seconds:
        _show_redrawn(settings, seconds[DRAWING], how)
    if vram is None:
        return
    fitting = fit(settings, vram)
    if fitting is None:
        out.show(f"nothing here fits {vram:g} GB: choose a smaller adapter.rank or preset")
        return
    words = " ".join(f"--set {change}" for change in fitting.changes) or "the settings as they are"
    total = (fitting.needs.total + GPU_OWN) / 1e9
    out.show(f"for {vram:g} GB: {words} ({total:.2f} GB with {GPU_OWN / 1e9:g} GB for CUDA itself)")


def dry_run_cleaning(settings: Recipe, name: str) -> None:
    """Print what a cleaning would do, hold and take; clean nothing."""
    from spf_lora.base.folder import from_configs
    from spf_lora.base.load import check_spec
    from spf_lora.draw.trajectories import Drawing, megabytes
    from spf_lora.training.duration import estimate_cleaning
    from spf_lora.training.fit_gpu import base_configs, estimate_recipe, needs_of
    from spf_lora.training.pairs import DRAWING

    base = settings.training.base
    check_spec(base)
    with from_configs(base):
        side = needs_of(settings, *base_configs(base)).side
        needs = estimate_recipe(settings)
        seconds = estimate_cleaning(settings)
    distil, adapter = settings.distil, settings.adapter
    how = Drawing(distil.sampler_steps, distil.guidance, (side, side))
    out.show(f"{name}: base {base}")
    out.show(
        f"  {distil.steps} steps to distil from {distil.pairs} pairs of pictures "
        f"({megabytes(distil.pairs, how):.0f} MB on disk)"
    )
    out.show(
        f"  {settings.data.batch_size} pictures a step, latents {side} x {side}, "
        f"{adapter.preset} adapter of rank {adapter.rank}, {settings.training.precision}"
    )
    _show(needs)
    _show_times(seconds)
    if settings.attribute.control == "words":
        _show_redrawn(settings, seconds[DRAWING], how)


def _show_redrawn(settings: Recipe, seconds: float, how: Any) -> None:
    """Say what is drawn again at most, of pairs that take so many seconds."""
    from spf_lora.draw.trajectories import megabytes
    from spf_lora.training.pairs import most_redrawn

    pairs = settings.distil.pairs
    more = most_redrawn(pairs)
    out.show(
        f"  where few pairs show {settings.attribute.target_text}, others are drawn again: at "
        f"most {more} pairs, {_spoken(seconds * more / pairs)} and {megabytes(more, how):.0f} MB "
        "more"
    )


def _show_times(seconds: dict[str, float]) -> None:
    out.show(
        "  time on this machine as busy as it is now, roughly; a second run finds much of it done"
    )
    for phase, spent in (seconds | {"in all": sum(seconds.values())}).items():
        out.show(f"  {phase:<28} {_spoken(spent):>7}")


def _spoken(seconds: float) -> str:
    """Return a time as one says it, no finer than it is known."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _show(estimate: Any) -> None:
    for part, size in vars(estimate).items():
        if size:
            out.show(f"  {_WORDS[part]:<22} {size / 1e6:>9.1f} MB")
    out.show(f"  {'peak of a step':<22} {estimate.total / 1e6:>9.1f} MB")
