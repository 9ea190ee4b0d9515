"""Stage 2: the base's own CLIP. Phrases first (is it true of this picture?), whole captions too.

The loss is the pairwise sigmoid loss (SigLIP, arXiv 2303.15343): with many pictures sharing a
phrase, "is this phrase true here" is the honest question, where InfoNCE would punish true pairs.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from embedded.device import device, noise_like
from embedded.loop import train
from embedded.worlds import Pictures, labels
from spf_lora.base.towers import ImageTower
from spf_lora.data.worlds.world import World

DIM, WIDTH, LAYERS, HEADS = 192, 192, 3, 6


def text_config(vocabulary: int) -> Any:
    """Return the configuration of the text encoder."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        projection_dim=DIM,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


def phrase_table(world: World) -> list[tuple[str, str, int]]:
    """Return (phrase, head, class) for every phrase of the world."""
    base = [
        (v[0], f, i) for f, values in world.factors.items() for i, v in enumerate(values.values())
    ]
    return base + [(a.target_text, name, 1) for name, a in world.attributes.items()]


def truth(pictures: Pictures) -> torch.Tensor:
    """Return (n, phrases): 1 true, 0 false, -1 cannot be seen."""
    heads = labels(pictures)
    rows = [
        torch.where(heads[head] < 0, -1.0, (heads[head] == number).float())
        for _, head, number in phrase_table(pictures.world)
    ]
    return torch.stack(rows, dim=1)


class Clip(nn.Module):
    """Both towers and the sigmoid loss's scale and bias."""

    def __init__(self, vocabulary: int) -> None:
        from transformers import CLIPTextModelWithProjection

        super().__init__()
        self.text = CLIPTextModelWithProjection(text_config(vocabulary))
        self.image = ImageTower(DIM)
        self.scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (texts, DIM) of unit length."""
        return nn.functional.normalize(self.text(input_ids=ids).text_embeds, dim=-1)

    def logits(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Return (images, texts)."""
        return image @ text.T * self.scale.exp() + self.bias


def build(pictures: Pictures, tokenizer: Any, work: Path, *, seed: int, steps: int) -> Clip:
    """Train both towers."""
    torch.manual_seed(seed)
    model = Clip(len(tokenizer))
    world = pictures.world
    table, true = phrase_table(world), truth(pictures).to(device())
    ids = tokenizer([p for p, _, _ in table], padding=True, return_tensors="pt").input_ids
    ids = ids.to(device())
    words = [w for w in tokenizer.get_vocab() if w.endswith("</w>") and w[:-4].isalpha()]
    weight = torch.tensor([4.0 if head in world.attributes else 1.0 for _, head, _ in table]).to(
        device()
    )

    def captions(index: np.ndarray, rng: random.Random) -> torch.Tensor:
        texts = []
        for i in index:
            chosen = pictures.attributes[i]
            text = world.partial_caption(
                pictures.people[i], chosen, rng, coverage=rng.uniform(0.5, 1)
            )
            if rng.random() < 0.25:  # words it does not know should not matter
                text += ", " + " ".join(rng.choice(words)[:-4] for _ in range(rng.randint(1, 30)))
            texts.append(text)
        out: torch.Tensor = tokenizer(
            texts, padding=True, truncation=True, max_length=77, return_tensors="pt"
        ).input_ids
        return out.to(device())

    def loss(index: np.ndarray, step: int, generator: torch.Generator) -> torch.Tensor:
        pixels = pictures.batch(index)
        noise = torch.rand(len(index), 1, 1, 1, generator=generator) * 0.15
        pixels = pixels + noise.to(pixels.device) * noise_like(pixels, generator)
        image = model.image(pixels)
        wanted = true[index]
        value = nn.functional.binary_cross_entropy_with_logits(
            model.logits(image, model.embed_text(ids)), wanted.clamp(min=0), reduction="none"
        )
        phrase = (value * weight * (wanted >= 0)).mean()
        if step % 2:  # captions on every other step: they cost ten times as much
            return phrase
        text = model.embed_text(captions(index, random.Random(f"{seed}-{step}")))
        pairs = nn.functional.binary_cross_entropy_with_logits(
            model.logits(image, text), torch.eye(len(index), device=image.device), reduction="sum"
        )
        return phrase + 0.1 * pairs / len(index)

    model.load_state_dict(
        train(
            "clip",
            {"clip": model},
            loss,
            count=len(pictures.people),
            steps=steps,
            batch_size=48,
            learning_rate=1e-3,
            work=work,
            seed=seed,
        )["clip"]
    )
    return model
