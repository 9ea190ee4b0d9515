"""Pairs are chosen by a CLIP, where it can tell the target on the user's own pictures."""

import pytest
import torch
from PIL import Image
from tiny_runs import PROMPTS, teaching
from torch.nn.functional import normalize

from spf_lora.data.cache import TensorCache
from spf_lora.data.folder import Example
from spf_lora.draw.trajectories import Trajectories
from spf_lora.errors import TrainingError
from spf_lora.recipe.schema import Attribute
from spf_lora.training.pairs import CHOOSING
from spf_lora.training.sight import Asked, Sight, area_under_curve, likeness, make_sight

HAT = Attribute(name="hat", target_text="a hat")


class Bright:
    """A CLIP for which a hat is whatever is bright."""

    scale = 30.0

    def digest(self):
        return "bright"

    def embed_text(self, texts):
        return torch.tensor([[1.0, 0.0] if "a hat" in text else [0.0, 1.0] for text in texts])

    def embed_image(self, pixels):
        light = pixels.mean(dim=(1, 2, 3))
        return normalize(torch.stack([1 + light, 1 - light], dim=1), dim=1)


@pytest.fixture
def base(tiny):
    """A base that decodes a latent to its own brightness."""

    def decode(latents):
        return type(
            "Decoded", (), {"sample": latents.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)}
        )

    tiny.vae.decode, tiny.vae.config.scaling_factor = decode, 1.0
    return tiny


def latents(*lights):
    return torch.stack([torch.full((4, 8, 8), light) for light in lights])


def sight(*shown):
    return Sight(Bright, torch.tensor(shown))


def test_a_pair_is_kept_whose_local_picture_is_nearer_to_the_users_than_to_the_bases(base):
    found = sight(0.9, 0.8).choose(
        base, latents(-0.9, -0.8, -0.9), latents(0.9, -0.7, 0.5), PROMPTS
    )
    assert found.kept == [0, 2]
    assert found.auc == 1


def test_a_clip_that_cannot_tell_the_users_pictures_chooses_nothing(base):
    found = sight(0.0, -0.1, 1.2).choose(base, latents(0.0, 0.1, -0.1), latents(-1, 1, 1), PROMPTS)
    assert found.auc < 0.9
    assert found.kept == [0, 1, 2]


def test_likeness_is_the_difference_of_two_cosines():
    two = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    asked = [("a man", "a man, a hat"), ("a man, a hat", "a man, a hat")]
    assert likeness(Asked(Bright(), None), two, asked).tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize(
    ("first", "second", "area"), [([1, 2], [0], 1), ([0], [0], 0.5), ([0, 2], [1], 0.5)]
)
def test_the_area_under_the_curve(first, second, area):
    assert area_under_curve(torch.tensor(first), torch.tensor(second)) == area


def test_the_users_pictures_are_asked_for_once(base, tmp_path):
    asked, cache = [], TensorCache(tmp_path)

    class Counting(Bright):
        def embed_image(self, pixels):
            asked.append(len(pixels))
            return super().embed_image(pixels)

    white = Image.new("RGB", (32, 32), "white")
    examples = [Example(white, "a man, a hat", source="a.png")]
    for _ in range(2):
        made = make_sight(Counting, examples, HAT, base, cache)
        assert made.shown.tolist() == pytest.approx([1])
    assert asked == [1]


def drawn(local):
    """Return pairs whose pictures are these, as far as choosing looks at them."""
    pairs = Trajectories(tuple(PROMPTS), torch.tensor([1]), 3.0, (), ())
    object.__setattr__(pairs, "pictures", lambda rows: (latents(-0.9, -0.9, -0.9), local))
    return pairs


def test_what_was_chosen_is_told_and_hardly_any_stops_the_run(base, tmp_path):
    teach, said = teaching(base, tmp_path), []
    teach.sight = sight(0.9, 0.9)
    kept, remarks = teach._chosen(drawn(latents(0.9, -0.9, 0.9)), lambda *of: said.append(of))
    assert kept == [0, 2]
    assert remarks == ["2 of 3 pairs show the target and are learned from"]
    assert said == [(CHOOSING, 0, 3)]
    with pytest.raises(TrainingError, match="shows the target in 0 of 3 pictures"):
        teach._chosen(drawn(latents(-0.9, -0.9, -0.9)), lambda *of: None)
    teach.sight = sight(-2.0, -2.0)
    kept, remarks = teach._chosen(drawn(latents(0.9, -0.9, 0.9)), lambda *of: None)
    assert list(kept) == [0, 1, 2]
    assert remarks[0].startswith("all 3 pairs are learned from: CLIP tells")
