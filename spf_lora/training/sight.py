"""Which pairs show the target: a CLIP says so, where pictures that do prove that it can."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image

from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.data.buckets import Bucket, fit
from spf_lora.data.cache import TensorCache, content_key
from spf_lora.data.captions import base_prompt, full_prompt
from spf_lora.data.completion import Vocabulary
from spf_lora.data.folder import Example
from spf_lora.draw.pixels import pixels_of
from spf_lora.recipe.schema import Attribute

LEAST_AUC = 0.9  # of the user's pictures against the base's own; a CLIP below is not believed
_PIXELS = 8 * 64 * 64  # that are decoded at once; one picture where it has more


class Asked:
    """A CLIP, asked once for each content."""

    def __init__(self, clip: ClipModel, cache: TensorCache | None) -> None:
        self.clip, self.cache = clip, cache
        self.who = clip.digest() if cache is not None else ""

    def picture(self, picture: Image.Image, device: torch.device) -> torch.Tensor:
        """Return a picture's embedding, (1, dim)."""

        def make() -> torch.Tensor:
            return self.clip.embed_image(pixels_of(picture)[None].to(device))

        size = f"{picture.width}x{picture.height}"
        return self._kept(make, device, "clip picture", size, picture.tobytes())

    def latents(self, base: Base, latents: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of pictures as latents, (pictures, dim)."""

        def make() -> torch.Tensor:
            rows = []
            for some in torch.split(latents, max(1, _PIXELS // base.resolution**2)):
                scaled = some.to(base.device) / base.vae.config.scaling_factor
                pixels = base.vae.decode(scaled).sample.clamp(-1, 1)
                rows.append(self.clip.embed_image(pixels).cpu())
            return torch.cat(rows)

        shape, numbers = f"{tuple(latents.shape)}", latents.numpy().tobytes()
        return self._kept(make, None, "clip latents", base.id, shape, numbers)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the embeddings of texts that are asked together, (texts, dim)."""
        return self._kept(lambda: self.clip.embed_text(texts), None, "clip texts", *texts)

    def certainties(self, pictures: torch.Tensor, vocabulary: Vocabulary) -> Iterator[torch.Tensor]:
        """Yield how surely each phrase of a group is seen, (pictures, phrases): they compete.

        It is the softmax of CLIP's scaled cosines.

        Args:
            pictures: unit embeddings, (pictures, dim).
            vocabulary: holds the groups.
        """
        for group in vocabulary.groups:
            texts = self.texts([vocabulary.template.replace("{}", phrase) for phrase in group])
            yield (self.clip.scale * pictures @ texts.to(pictures.device).T).softmax(dim=-1)

    def _kept(
        self, make: Callable[[], torch.Tensor], device: torch.device | None, *parts: bytes | str
    ) -> torch.Tensor:
        if self.cache is None:
            return make()
        return self.cache.get(content_key(self.who, *parts), make).to(device)


class Limit(NamedTuple):
    """What a picture that shows the target is told by.

    Attributes:
        likeness: of the least that does.
        auc: how well the CLIP tells the user's pictures from the base's own, in [0, 1].
    """

    likeness: float
    auc: float


@dataclass(frozen=True)
class Sight:
    """A CLIP and what it says of pictures that show the target.

    A picture's likeness is cos(picture, full prompt) - cos(picture, base prompt).

    Attributes:
        load: returns the CLIP; between its two uses nobody holds it.
        shown: likeness of pictures that show the target, (pictures,): the user's, or what another
            LoRA draws.
        cache: keeps what the CLIP says, for other runs.
    """

    load: Callable[[], ClipModel]
    shown: torch.Tensor
    cache: TensorCache | None = None

    @torch.no_grad()
    def look(
        self,
        base: Base,
        own: torch.Tensor,
        local: torch.Tensor,
        prompts: Sequence[tuple[str, str]],
        limit: Limit | None = None,
    ) -> tuple[Limit, list[bool]]:
        """Tell which local pictures are more like those that show it than like the base's own.

        Args:
            base: decodes.
            own: the base's own pictures, scaled latents (pairs, channels, h, w).
            local: the pictures with the target, as many.
            prompts: of each pair, without and with the target.
            limit: of an earlier look; by default the middle of the mean likenesses of the
                pictures that show it and these of the base's own.

        Returns:
            the limit, and of each pair whether its local picture shows the target.
        """
        asked = Asked(self.load(), self.cache)
        if limit is None:
            before = likeness(asked, asked.latents(base, own), prompts)
            middle = (self.shown.mean() + before.mean()) / 2
            limit = Limit(middle.item(), area_under_curve(self.shown, before))
        after = likeness(asked, asked.latents(base, local), prompts)
        return limit, (after > limit.likeness).tolist()


def area_under_curve(with_it: torch.Tensor, without: torch.Tensor) -> float:
    """Return how often a score of the first, (n,), is above one of the others, (m,)."""
    above = with_it[:, None] - without[None]
    return ((above > 0).float() + 0.5 * (above == 0).float()).mean().item()


def likeness(
    asked: Asked, pictures: torch.Tensor, prompts: Sequence[tuple[str, str]]
) -> torch.Tensor:
    """Return how much nearer each picture is to its full than to its base prompt, (pictures,).

    Args:
        asked: the CLIP that has embedded them.
        pictures: unit embeddings, (pictures, dim).
        prompts: of each, without and with the target.
    """
    without, full = (asked.texts(texts).cpu() for texts in zip(*prompts, strict=True))
    return ((full - without) * pictures).sum(dim=-1)


@torch.no_grad()
def make_sight(
    load: Callable[[], ClipModel],
    examples: Sequence[Example],
    attribute: Attribute,
    base: Base,
    cache: TensorCache,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Sight:
    """Ask a CLIP about the user's pictures.

    Args:
        load: returns the CLIP.
        examples: pictures that show the target, with their captions.
        attribute: the target.
        base: its resolution is what pictures are shown at.
        cache: keeps what the CLIP says.
        tell: called with how many pictures are looked at.
    """
    asked, square = Asked(load(), cache), Bucket(base.resolution, base.resolution)
    rows: list[torch.Tensor] = []
    for example in examples:
        tell("show the pictures to CLIP", len(rows), len(examples))
        rows.append(asked.picture(fit(example.image, square), base.device).cpu())
    prompts = [
        (base_prompt(e.caption, attribute), full_prompt(e.caption, attribute)) for e in examples
    ]
    return Sight(load, likeness(asked, torch.cat(rows), prompts), cache)
