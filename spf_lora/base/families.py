"""Which model a file or folder holds; what is no Stable Diffusion 1.x is refused by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from spf_lora.base.ldm_names import TEXT, UNET, VAE
from spf_lora.errors import BaseModelError

_OTHER = (
    "its adapters are others; name a Stable Diffusion 1.x base: --base embedded, a checkpoint of "
    "the 1.5 family, or stable-diffusion-v1-5/stable-diffusion-v1-5"
)
_SAME_BLOCKS = (
    "name the plain model it was made from: an adapter trained there works in this one too"
)
_PICKLED = (
    "get the .safetensors file of the same model, or let the program that wrote it save it as "
    "safetensors; opening a pickle can run any code"
)
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")

# A tensor whose name contains the key, in a single file -> the family.
_BY_NAME = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.": "Flux",
    "double_blocks.": "Flux",
    "cond_stage_model.model.": "Stable Diffusion 2",
}
# The U-Net's first layer takes that many channels -> what it is.
_BY_CHANNELS = {
    5: "a depth-guided model",
    7: "an upscaling model",
    8: "an InstructPix2Pix model",
    9: "an inpainting model",
}
# Width of the text states that cross-attention reads -> the family.
TEXT_WIDTHS = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    1280: "Stable Diffusion XL (refiner)",
    2048: "Stable Diffusion XL",
}
WIDTH = 768  # Stable Diffusion 1's
# Beginning of `_class_name` in model_index.json -> the family.
_BY_CLASS = {
    "StableDiffusionXL": "Stable Diffusion XL",
    "StableDiffusion3": "Stable Diffusion 3",
    "Flux": "Flux",
    "PixArt": "PixArt",
    "Kandinsky": "Kandinsky",
    "StableCascade": "Stable Cascade",
    "Wuerstchen": "Wuerstchen",
}


def refused(name: str, what: str, hint: str = _OTHER) -> BaseModelError:
    """Return the error that names the family and the way out."""
    return BaseModelError(f"{name} is {what}, not Stable Diffusion 1.x", hint=hint)


def pickled(name: str, what: str = "a pickled file") -> BaseModelError:
    """Return the error for weights that only a pickle holds."""
    return BaseModelError(f"{name} is {what}, which spf-lora never opens", hint=_PICKLED)


def check_names(name: str, tensors: Iterable[str]) -> None:
    """Look at the names of a single file's tensors.

    Raises:
        BaseModelError: they are those of another family, of an adapter or of a part only.
    """
    names = list(tensors)
    if any(n.startswith(("lora_", "unet.", "base_model.")) and ".lora" in n for n in names):
        raise refused(name, "an adapter", "give it to --adapter; `spf-lora inspect` shows it")
    for part, family in _BY_NAME.items():
        if any(n.startswith(part) for n in names):
            raise refused(name, family)
    if "v_pred" in names:
        raise refused(name, "a model that predicts velocity", _OTHER)
    missing = [
        what
        for what, prefix in (("U-Net", UNET), ("VAE", VAE), ("text encoder", TEXT))
        if not any(n.startswith(prefix) for n in names)
    ]
    if missing:
        raise BaseModelError(
            f"{name} holds no {', no '.join(missing)} under the names of a checkpoint",
            hint="a base is one file with U-Net, VAE and text encoder, or a folder in diffusers "
            "layout that holds model_index.json",
        )


def check_class(name: str, index: Mapping[str, Any]) -> None:
    """Look at a folder's model_index.json.

    Raises:
        BaseModelError: it is another family's.
    """
    wanted = str(index.get("_class_name", ""))
    for start, family in _BY_CLASS.items():
        if wanted.startswith(start):
            raise refused(name, family)
    if not wanted.startswith("StableDiffusion"):
        raise refused(name, f"a {wanted}" if wanted else "a model of no known kind")


def check_unet(name: str, *, channels: int, text_width: int, distilled: bool = False) -> None:
    """Look at what the U-Net takes in.

    Args:
        name: of the base.
        channels: of its first layer.
        text_width: of the text states it reads.
        distilled: whether it is told the guidance scale, as latent consistency models are.

    Raises:
        BaseModelError: another family's U-Net does so.
    """
    if text_width in TEXT_WIDTHS and text_width != WIDTH:
        raise refused(name, TEXT_WIDTHS[text_width])
    if channels != 4:
        what = _BY_CHANNELS.get(channels, f"a model with {channels} input channels")
        raise refused(name, what, _SAME_BLOCKS)
    if distilled:
        raise refused(name, "a latent consistency model", _SAME_BLOCKS)


def check_prediction(name: str, prediction: str) -> None:
    """Refuse a model that does not predict the noise.

    Raises:
        BaseModelError: it predicts something else.
    """
    if prediction != "epsilon":
        raise refused(name, f"a model that predicts {prediction}, while training needs epsilon")
