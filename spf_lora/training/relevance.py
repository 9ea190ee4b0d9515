"""Where CLIP sees the target in a training picture (RISE, arXiv 1806.07421, equation 6).

The picture is shown many times with random parts covered; a place counts for what seeing it adds to
the likeness of picture and target. A second witness beside the frozen base's surprise: the base is
not surprised by what it draws well whatever it is told, such as a hat where hair would be.
"""

import torch
from torch.nn.functional import interpolate

from spf_lora.base.clip import ClipModel
from spf_lora.base.load import Base
from spf_lora.method.control_map import relative
from spf_lora.training.prepare import Prepared, Size

COVERS, CELLS = 256, 6  # a cover has so many cells each way, each open or shut
_BATCH = 64


@torch.no_grad()
def relevances(
    base: Base, clip: ClipModel, data: Prepared, target_text: str, *, seed: int
) -> torch.Tensor:
    """Return how much each place says the target, (n, 1, h, w); the mean over a picture is 1.

    A place's covariance of being seen and likeness, where positive; what makes a picture less like
    the target counts as 0. All 0 for a picture whose likeness no cover changes.

    Args:
        base: its autoencoder shows the pictures.
        clip: judges them.
        data: the pictures' latents.
        target_text: the attribute's.
        seed: of the covers.
    """
    target = clip.embed_text([target_text])[0]
    found = torch.zeros_like(data.latents[:, :1])
    for size in dict.fromkeys(data.sizes):
        seen = covers(size, seed=seed).to(found.device)
        apart = seen - seen.mean(dim=0)
        for row in (row for row, of in enumerate(data.sizes) if of == size):
            latents = data.latents[row : row + 1, :, : size[0], : size[1]]
            picture = base.vae.decode(latents / base.vae.config.scaling_factor).sample
            grey = picture.mean(dim=(2, 3), keepdim=True)
            likeness = []
            for i in range(0, len(seen), _BATCH):
                some = seen[i : i + _BATCH]
                wide = interpolate(some, picture.shape[-2:], mode="bilinear", align_corners=False)
                likeness.append(clip.embed_image((grey + wide * (picture - grey)).clamp(-1, 1)))
            scores = torch.cat(likeness).float() @ target.float()
            gained = (apart * (scores - scores.mean())[:, None, None, None]).mean(dim=0)
            found[row, :, : size[0], : size[1]] = relative(gained.clamp(min=0)[None])[0]
    return found


def covers(size: Size, *, seed: int) -> torch.Tensor:
    """Return what each cover leaves open, (COVERS, 1, h, w) in [0, 1].

    Args:
        size: h and w.
        seed: decides which cells are open and where the grid lies.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    cell = [-(-side // CELLS) for side in size]
    cells = (torch.rand(COVERS, 1, CELLS + 1, CELLS + 1, generator=generator) < 0.5).float()
    whole = ((CELLS + 1) * cell[0], (CELLS + 1) * cell[1])
    wide = interpolate(cells, whole, mode="bilinear", align_corners=False)
    down, right = (torch.randint(side, (COVERS,), generator=generator).tolist() for side in cell)
    return torch.stack(
        [one[:, y : y + height, x : x + width] for one, y, x in zip(wide, down, right, strict=True)]
    )
