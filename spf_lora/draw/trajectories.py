"""What a file is taught: local pictures step by step, each a pair with the base's own picture.

A teacher draws them; or somebody has both pictures of each pair, which get noise instead.

Pairs are drawn in chunks. Each chunk is one entry of the tensor cache, in fp16, found again by a
digest of all that decides it. So they live on disk, and a run that was killed draws no chunk twice.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter
from spf_lora.base.load import Base
from spf_lora.base.texts import encode
from spf_lora.data.cache import TensorCache, content_key
from spf_lora.draw.late import Late
from spf_lora.draw.local import LocalPicture, draw_locally, followed, put_back, unmoved
from spf_lora.draw.places import places_of
from spf_lora.draw.sample import start_noise
from spf_lora.draw.weights import attached
from spf_lora.errors import OutputError
from spf_lora.method.control_map import AREA_CAP, apart, region

CHUNK = 8  # pairs drawn at once
_FORMAT = "pairs 5"

Size = tuple[int, int]  # height and width of latents
Tell = Callable[[int, int], None]  # pairs drawn, pairs to draw


class Pair(NamedTuple):
    """What is drawn twice from one noise.

    Attributes:
        base_prompt: without the attribute.
        full_prompt: with it; the same where the adapter answers every prompt.
        seed: of the noise.
    """

    base_prompt: str
    full_prompt: str
    seed: int


class Lessons(NamedTuple):
    """Some steps of some pairs, all (rows, channels, h, w) in fp32.

    Attributes:
        noisy: latents of the local picture.
        guided: the prediction that its next step was made with: the adapter's inside the control
            map, the base's own outside of it.
        empty: what the frozen base predicts there for no prompt.
        base_noisy: latents of the base's own picture at the same step.
        base_empty: what the frozen base predicts there for no prompt.
    """

    noisy: torch.Tensor
    guided: torch.Tensor
    empty: torch.Tensor
    base_noisy: torch.Tensor
    base_empty: torch.Tensor


_PARTS = len(Lessons._fields)


@dataclass(frozen=True)
class Trajectories:
    """Pairs on disk.

    Attributes:
        pairs: in order.
        times: the time steps, (steps,), falling.
        guidance: scale that the pairs were drawn with.
        maps: where each may differ from the base's picture, (1, h, w) in [0, 1].
        places: of each, the file of its chunk and its row there. A file holds
            (pairs, 20 * steps + 9, h, w) with four channels: the five parts of `Lessons` step by
            step, then the base's picture, the local picture and the map.
    """

    pairs: tuple[Pair, ...]
    times: torch.Tensor
    guidance: float
    maps: tuple[torch.Tensor, ...]
    places: tuple[tuple[Any, int], ...]

    def among(self, rows: Sequence[int]) -> "Trajectories":
        """Return some of the pairs, in this order."""
        return replace(
            self,
            pairs=tuple(self.pairs[row] for row in rows),
            maps=tuple(self.maps[row] for row in rows),
            places=tuple(self.places[row] for row in rows),
        )

    def with_(self, others: "Trajectories") -> "Trajectories":
        """Return these pairs, then others of the same steps and guidance."""
        return replace(
            self,
            pairs=self.pairs + others.pairs,
            maps=self.maps + others.maps,
            places=self.places + others.places,
        )

    def lessons(self, pairs: Sequence[int], steps: Sequence[int]) -> Lessons:
        """Read one step of each of some pairs."""
        rows = []
        for pair, step in zip(pairs, steps, strict=True):
            kept, row, channels = self._found(pair)
            wide = _PARTS * channels
            rows.append(kept[row : row + 1, step * wide : (step + 1) * wide].float())
        return Lessons(*torch.cat(rows).chunk(_PARTS, dim=1))

    def pictures(self, pairs: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the base's own and the local pictures of some pairs, latents in fp32."""
        rows = []
        for pair in pairs:
            kept, row, channels = self._found(pair)
            first = _PARTS * channels * len(self.times)
            rows.append(kept[row : row + 1, first : first + 2 * channels].float())
        own, local = torch.cat(rows).chunk(2, dim=1)
        return own, local

    def _found(self, pair: int) -> tuple[Any, int, int]:
        """Return the file that a pair is in, its row there, and how many channels latents have."""
        file, row = self.places[pair]
        kept = file.get_slice("value")
        return kept, row, (kept.get_shape()[1] - 1) // (_PARTS * len(self.times) + 2)

    def changes(self) -> torch.Tensor:
        """Return how far each local picture is from the base's inside its map, (pairs,).

        It is a root mean square; latents have about unit variance.
        """
        own, local = self.pictures(range(len(self.pairs)))
        maps = torch.stack(self.maps)
        error = (local - own).square().mean(dim=1, keepdim=True) * maps
        total = error.sum(dim=(1, 2, 3)) / maps.sum(dim=(1, 2, 3)).clamp(min=1)
        return total.sqrt()


@dataclass(frozen=True)
class Given:
    """Pairs of pictures that somebody has, in place of a teacher that draws them.

    Attributes:
        own: scaled latents of the pictures without the attribute, (n, channels, h, w).
        local: of the same pictures with it.
        first_seed: of the noise; a later pair has another noise, and pictures come again in turn.
    """

    own: torch.Tensor
    local: torch.Tensor
    first_seed: int

    @property
    def size(self) -> Size:
        """Height and width of the latents."""
        height, width = self.own.shape[-2:]
        return height, width

    @property
    def digest(self) -> str:
        """What tells these pictures from others."""
        both = (latents.cpu().numpy().tobytes() for latents in (self.own, self.local))
        return content_key("given", *both, str(self.first_seed))

    def of(self, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both latents of some pairs."""
        rows = [(pair.seed - self.first_seed) % len(self.own) for pair in pairs]
        return self.own[rows], self.local[rows]


@dataclass(frozen=True)
class Drawing:
    """How pairs are drawn.

    Attributes:
        steps: of DDIM.
        guidance: scale of classifier-free guidance.
        size: height and width of the latents.
        late: None for an attribute with a place of its own, drawn locally. One that changes the
            whole picture has none: there the adapter and its words begin after this share of the
            time steps, so that the base's layout stays.
        keep: with `late`, words whose places stay the base's.
        strength: of the adapter that draws them.
    """

    steps: int
    guidance: float
    size: Size
    late: float | None = None
    keep: tuple[str, ...] = ()
    strength: float = 1.0


def megabytes(pairs: int, how: Drawing, channels: int = 4) -> float:
    """Return what pairs take on disk, in MB: numbers of two bytes; see `Trajectories.files`."""
    height, width = how.size
    planes = channels * (_PARTS * how.steps + 2) + 1
    return 2e-6 * pairs * planes * height * width


def check_room(cache: TensorCache, pairs: int, how: Drawing) -> None:
    """Refuse a cache that cannot keep pairs, as far as it has tried to keep anything.

    Raises:
        OutputError: it could not be written.
    """
    if cache.trouble is not None:
        raise OutputError(
            f"the pictures to learn from cannot be kept: {cache.trouble}",
            hint=f"they take {math.ceil(megabytes(pairs, how))} MB: free as much, or name another "
            "folder in SPF_LORA_CACHE",
        )


def draw_trajectories(
    base: Base,
    teacher: Adapter | Given,
    pairs: Sequence[Pair],
    how: Drawing,
    *,
    cache: TensorCache,
    below: str = "",
    on_progress: Tell = lambda done, total: None,
) -> Trajectories:
    """Draw pairs, or find them in the cache.

    Args:
        base: the frozen model; what it was trained onto is on, the adapter is not.
        teacher: an adapter, or the pictures themselves.
        pairs: what to draw.
        how: decides them too.
        cache: keeps them.
        below: digest of the adapters that are on.
        on_progress: called with pairs drawn and pairs to draw.

    Raises:
        OutputError: the disk cannot keep them.
        AdapterFileError: the adapter does not fit the base.
    """
    said = teacher.digest if isinstance(teacher, Given) else content_id(teacher)
    decides = f"{_FORMAT} {AREA_CAP} {base.id} {said} {how!r} {below}"
    places, maps = [], []
    for first in range(0, len(pairs), CHUNK):
        chunk = pairs[first : first + CHUNK]
        key = content_key(decides, *(f"{one!r}" for one in chunk))
        packed = cache.get(key, partial(_packed, base, teacher, chunk, how))
        check_room(cache, len(pairs), how)
        file = safe_open(cache.path(key), framework="pt")
        places += [(file, row) for row in range(len(chunk))]
        maps += list(packed[:, -1:].float())
        on_progress(first + len(chunk), len(pairs))
    base.scheduler.set_timesteps(how.steps)
    times = base.scheduler.timesteps.clone().cpu()
    return Trajectories(tuple(pairs), times, how.guidance, tuple(maps), tuple(places))


@torch.no_grad()
def _packed(
    base: Base, teacher: Adapter | Given, pairs: Sequence[Pair], how: Drawing
) -> torch.Tensor:
    """Draw a chunk, or give it noise; return it as `Trajectories.files` hold it."""
    if isinstance(teacher, Given):
        return _noised(base, teacher, pairs, how)
    drawn, rows = _drawn(base, teacher, pairs, how), list[torch.Tensor]()
    for reference, response in zip(drawn.reference, drawn.response, strict=True):
        local, own = (track.guided(how.guidance) for track in (response, reference))
        guided = torch.lerp(own, local, drawn.control_map)
        rows += [response.noisy, guided, response.empty]
        rows += [reference.noisy, reference.empty]
    pictures = [drawn.reference[-1].latents, drawn.response[-1].latents]
    return torch.cat([*rows, *pictures, drawn.control_map], dim=1).half()


def _drawn(base: Base, adapter: Adapter, pairs: Sequence[Pair], how: Drawing) -> LocalPicture:
    """Draw a chunk; guidance leads away from the frozen model's prediction for no prompt.

    So it will for the file, which is held still there. An adapter that acts on no prompt too, as a
    plain fine-tune does, would take back a part of what its words bring.
    """
    texts = [pair.base_prompt for pair in pairs]
    within = encode(base, texts)
    on = partial(attached, base.unet, [(adapter, how.strength)], text_encoder=base.text_encoder)
    with on():
        states = encode(base, [pair.full_prompt for pair in pairs])
    seeds = [pair.seed for pair in pairs]
    settings: dict[str, Any] = {"steps": how.steps, "guidance": how.guidance, "size": how.size}
    if how.late is None:
        always = all(pair.base_prompt == pair.full_prompt for pair in pairs)
        return draw_locally(
            base, states, seeds, within=within, acting=on, always=always, held=True, **settings
        )
    reference = followed(base, within, seeds, **settings)
    control, empty = 1 - places_of(base, texts, reference, how.keep), encode(base, [""])
    with on(start_percent=how.late) as frozen:
        settings |= {"late": [Late(texts, how.late)], "negative": unmoved(base, empty, frozen)}
        response = put_back(base, states, seeds, reference=reference, control=control, **settings)
    return LocalPicture(control, reference, response)


def _noised(base: Base, given: Given, pairs: Sequence[Pair], how: Drawing) -> torch.Tensor:
    """Give a chunk of given pictures noise; return it as `Trajectories.files` hold it.

    Both pictures of a pair get one noise. Where they differ, the file's own prediction is taught
    the noise, as a fine-tune on the second picture would be; elsewhere it is the frozen base's. So
    of these pictures nothing is learned but the difference. Guidance comes on top, as it does with
    a fine-tune: were it the guided prediction that leads to the second picture, the file would
    show the attribute as weakly as one that is drawn without guidance.
    """
    own, local = (latents.to(base.device) for latents in given.of(pairs))
    noise = start_noise(base, [pair.seed for pair in pairs], how.size)
    within = encode(base, [pair.base_prompt for pair in pairs])
    empty, rows = encode(base, [""]).expand_as(within), []
    differ = apart(local, own)
    control = region(differ, differ) if how.late is None else torch.ones_like(differ)
    base.scheduler.set_timesteps(how.steps)
    for t in base.scheduler.timesteps:
        a = base.scheduler.alphas_cumprod[t]
        noisy, base_noisy = (a.sqrt() * one + (1 - a).sqrt() * noise for one in (local, own))
        eps, asked = (base.unet(noisy, t, one, return_dict=False)[0] for one in (empty, within))
        guided = eps + how.guidance * (torch.lerp(asked, noise, control) - eps)
        rows += [noisy, guided, eps]
        rows += [base_noisy, base.unet(base_noisy, t, empty, return_dict=False)[0]]
    return torch.cat([*rows, own, local, control], dim=1).half()
