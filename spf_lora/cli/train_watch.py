"""What a training leaves on its way: adapters of some steps, and pictures drawn at others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spf_lora.atomic import make_folder, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

    from spf_lora.adapters.module import Adapter
    from spf_lora.base.load import Base

_SAMPLE_STEPS = 25
MOST_PROMPTS = 16  # of a sample; training waits for them


@dataclass(frozen=True)
class Watch:
    """What is wanted on the way.

    Attributes:
        keep_every: steps from one kept adapter to the next; 0: none is kept.
        sample_every: steps from one sheet of pictures to the next; 0: none is drawn.
        prompts: of the pictures.
    """

    keep_every: int = 0
    sample_every: int = 0
    prompts: tuple[str, ...] = ()


NOTHING = Watch()


def kept_folder(target: Path) -> Path:
    """Return where adapters of earlier steps are kept."""
    return target.with_name(f"{target.stem}-steps")


def samples_folder(target: Path) -> Path:
    """Return where pictures drawn on the way are kept."""
    return target.with_name(f"{target.stem}-samples")


def watching(
    watch: Watch, target: Path, base: "Base", adapter: "Callable[[], Adapter]", logs: Path | None
) -> Callable[[Any], None]:
    """Return what is to be called after each step.

    Args:
        watch: what is wanted.
        target: the adapter's file at the end.
        base: with the adapter in training on it.
        adapter: returns it as it is now.
        logs: folder of TensorBoard's files, or None.
    """

    def after(step: Any) -> None:
        if watch.keep_every and step.index % watch.keep_every == 0 and step.index < step.steps:
            from spf_lora.adapters.format.adapter_file import write_adapter

            folder = kept_folder(target)
            make_folder(folder)
            name = f"{target.stem}-{step.index:06}.safetensors"
            write_adapter(adapter(), folder / name, overwrite=True)
        if watch.sample_every and step.index % watch.sample_every == 0:
            folder = samples_folder(target)
            make_folder(folder)
            sheet = _sample(base, watch.prompts)
            write_bytes(folder / f"{step.index:06}.png", _png(sheet), overwrite=True)
            if logs is not None:
                _to_tensorboard(sheet, logs, step.index)

    return after


def _sample(base: "Base", prompts: Sequence[str]) -> "Image":
    """Draw one picture of each prompt, always from the same noises."""
    from spf_lora.draw.act import draw
    from spf_lora.draw.sheet import Row, lay_out
    from spf_lora.training.precision import awake

    with (
        awake(base.text_encoder, device=base.device),
        awake(base.vae, device=base.device),
        _same_schedule(base.scheduler),
    ):
        pictures = draw(base, list(prompts), list(range(len(prompts))), steps=_SAMPLE_STEPS)
    rows = [Row([picture], text) for picture, text in zip(pictures, prompts, strict=True)]
    return lay_out(rows, least_px=256)


@contextmanager
def _same_schedule(scheduler: Any) -> Iterator[None]:
    """Give a scheduler its time steps back."""
    before = scheduler.num_inference_steps
    try:
        yield
    finally:
        if before:
            scheduler.set_timesteps(before)


def _png(picture: "Image") -> bytes:
    import io

    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _to_tensorboard(picture: "Image", logs: Path, step: int) -> None:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(logs)) as writer:
        writer.add_image("samples", np.asarray(picture), step, dataformats="HWC")
