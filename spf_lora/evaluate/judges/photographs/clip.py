"""CLIP (arXiv 2103.00020) as a judge: CLIP-I between pictures, CLIP-T between picture and words.

The CLIP that an adapter is trained with, or whose text encoder the base uses, would grade its own
work: it is recognised by its weights, whatever it is called, and refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.preprocess import (
    not_loaded,
    read_preparation,
    read_pretrained,
)


class ClipJudge:
    """A CLIP that took no part in training.

    Args:
        folder: holds it as transformers writes it, with its tokenizer.
        device: where to compute.
        trained_with: the text encoder of the base that is judged.

    Raises:
        ScorerError: the files are damaged, or this is the base's own CLIP.
    """

    def __init__(self, folder: Path, device: torch.device, trained_with: Any = None) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.prepare = read_preparation(folder)
        self.model = read_pretrained(CLIPModel, folder, "CLIP").to(device)
        try:
            self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise not_loaded(folder, "CLIP", f"its tokenizer is damaged ({error})") from error
        if trained_with is not None and same_text_encoder(self.model.text_model, trained_with):
            raise ScorerError(
                f"{folder} is the base's own CLIP, which training has seen: it would praise "
                "whatever it was taught to praise",
                hint="judge with another CLIP, such as laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            )

    @torch.no_grad()
    def embed_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return unit embeddings (batch, dim) for pixels in [-1, 1]."""
        seen = self.model.vision_model(pixel_values=self.prepare(pixels)).pooler_output
        return functional.normalize(self.model.visual_projection(seen), dim=-1)

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit embeddings (texts, dim)."""
        words = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        read = self.model.text_model(**words.to(self.model.device)).pooler_output
        return functional.normalize(self.model.text_projection(read), dim=-1)


def same_text_encoder(one: Any, other: Any) -> bool:
    """Tell whether two text encoders are the same one, by their word embeddings."""
    mine: torch.Tensor = one.get_input_embeddings().weight
    theirs: torch.Tensor = other.get_input_embeddings().weight
    return mine.shape == theirs.shape and torch.allclose(
        mine.cpu().float(),
        theirs.cpu().float(),
        atol=2e-3,  # one of them may be stored in fp16
    )
