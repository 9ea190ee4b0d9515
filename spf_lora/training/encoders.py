"""The frozen base's answers to pictures and prompts, each asked for once and kept on disk."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from spf_lora.base.identity import tensors_digest
from spf_lora.base.load import Base
from spf_lora.base.texts import encode, token_ids
from spf_lora.data.cache import TensorCache, content_key
from spf_lora.draw.pixels import pixels_of


class ReadingUnet:
    """A U-Net that reads token ids in place of text states, since its text encoder is trained too.

    Args:
        unet: reads text states.
        text_encoder: makes them, with gradient.
    """

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        self.unet, self.text_encoder = unet, text_encoder

    def __call__(
        self, noisy: torch.Tensor, t: torch.Tensor, ids: torch.Tensor, **settings: Any
    ) -> Any:
        """Return what the U-Net does for prompts (batch, 77) as token ids."""
        states = self.text_encoder(input_ids=ids).last_hidden_state
        return self.unet(noisy, t, states, **settings)


class Encoders:
    """The base's autoencoder and text encoder, asked once for each content.

    Args:
        base: the frozen model.
        cache: answers what any run has asked before; None asks anew.
    """

    def __init__(self, base: Base, cache: TensorCache | None) -> None:
        self.base, self.cache = base, cache
        if cache is not None:  # who answers is a part of every key
            self.vae = _weights_key(base.vae, str(base.vae.config.scaling_factor))
            self.words = _weights_key(base.text_encoder, "")

    @torch.no_grad()
    def latents(self, picture: Image.Image) -> torch.Tensor:
        """Return scaled latents (channels, h, w) of a picture."""

        def make() -> torch.Tensor:
            weights = next(self.base.vae.parameters())
            pixels = pixels_of(picture)[None].to(self.base.device, weights.dtype)
            mean = self.base.vae.encode(pixels).latent_dist.mean[0]
            scaled: torch.Tensor = mean.float() * self.base.vae.config.scaling_factor
            return scaled

        if self.cache is None:
            return make()
        size = f"{picture.width}x{picture.height}"
        return self._kept(content_key("latents", self.vae, size, picture.tobytes()), make)

    def states(self, prompt: str) -> torch.Tensor:
        """Return text states (77, width) of a prompt."""
        if self.cache is None:
            return encode(self.base, [prompt])[0]
        ids = token_ids(self.base.tokenizer, [prompt]).numpy().tobytes()
        key = content_key("states", self.words, ids)
        return self._kept(key, lambda: encode(self.base, [prompt])[0])

    def _kept(self, key: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        assert self.cache is not None
        return self.cache.get(key, make).to(self.base.device)


def _weights_key(model: torch.nn.Module, more: str) -> str:
    first = next(model.parameters())
    return f"{tensors_digest(dict(model.named_parameters()))} {first.dtype} {more}"
