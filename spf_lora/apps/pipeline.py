"""Stable Diffusion with local drawing, as a custom pipeline of diffusers: see docs/diffusers.md.

`DiffusionPipeline.from_pretrained(MODEL, custom_pipeline=FILE)` loads it from this file, or from a
folder of a model that has a copy named `pipeline.py`. It needs spf-lora to be installed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import StableDiffusionPipeline

from spf_lora.apps.diffusers import local
from spf_lora.errors import PromptError


class LocalStableDiffusionPipeline(StableDiffusionPipeline):  # type: ignore[misc]  # untyped
    """Draws as Stable Diffusion does, or locally if there is a base prompt."""

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        base_prompt: str | Sequence[str] | None = None,
        adapters: Mapping[str, float] | None = None,
        **how: Any,
    ) -> Any:
        """Draw and return what `StableDiffusionPipeline` returns.

        Args:
            prompt: what is asked for.
            base_prompt: the prompt without what the LoRAs add.
            adapters: names of loaded LoRAs and their strengths; without both nothing is local.
            how: what `local` and `StableDiffusionPipeline` take besides.

        Raises:
            PromptError: what is asked for cannot be drawn locally.
        """
        if base_prompt is None and adapters is None:
            return super().__call__(prompt, **how)
        if prompt is None or base_prompt is None:
            raise PromptError(
                "local drawing needs the prompt with and without what the LoRAs add",
                hint='give both: "a man, a hat", base_prompt="a man"',
            )
        return local(self, prompt, base_prompt, adapters or {}, **how)
