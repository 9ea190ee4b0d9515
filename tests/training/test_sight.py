"""Pairs are chosen by a CLIP, where it can tell the target on the user's own pictures."""

import pytest
import torch
from PIL import Image
from tiny_runs import PROMPTS, teaching
from torch.nn.functional import normalize

from spf_lora.data.cache import TensorCache
from spf_lora.data.folder import Example
from spf_lora.draw.trajectories import Given, Pair, Trajectories
from spf_lora.errors import TrainingError
from spf_lora.recipe.schema import Attribute
from spf_lora.training import pairs
from spf_lora.training.pairs import CHOOSING
from spf_lora.training.sight import LEAST_AUC, Asked, Sight, area_under_curve, likeness, make_sight

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


def test_the_limit_is_between_the_users_pictures_and_the_bases(base):
    own, local = latents(-0.9, -0.8, -0.9), latents(0.9, -0.7, 0.5)
    limit, seen = sight(0.9, 0.8).look(base, own, local, PROMPTS)
    assert limit.auc == 1
    assert seen == [True, False, True]
    one = local[1:2]
    assert sight(0.9, 0.8).look(base, one, one, PROMPTS[1:2], limit) == (limit, [False])


def test_a_clip_that_cannot_tell_the_users_pictures_is_told_apart(base):
    own = latents(0.0, 0.1, -0.1)
    assert sight(0.0, -0.1, 1.2).look(base, own, own, PROMPTS)[0].auc < LEAST_AUC


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


class Drawn:
    """Stands in for `Teaching.drawn`: the base's pictures are dark; each strength has its own."""

    def __init__(self, pictures):
        self.pictures, self.asked = pictures, []

    def __call__(self, teacher, tell, rows, strength=1.0):
        self.asked.append((strength, list(rows)))
        some = self.pictures[strength][list(rows)]
        both = tuple(Pair(*PROMPTS[row], row) for row in rows)
        maps, places = (tuple((strength, row) for row in rows) for _ in range(2))
        made = Trajectories(both, torch.tensor([1]), 3.0, maps, places)
        dark = torch.full_like(some, -0.9)
        object.__setattr__(made, "pictures", lambda rows: (dark, some))
        return made


@pytest.fixture
def choose(base, tmp_path):
    """Chooses pairs of the pictures that each strength has."""

    def chosen(pictures, *, shown=(0.9, 0.9), teacher=None):
        teach, said = teaching(base, tmp_path), []
        teach.sight, teach.drawn = sight(*shown), Drawn(pictures)
        first = teach.drawn(teacher, None, range(len(PROMPTS)))
        found = teach._chosen(teacher, first, lambda *of: said.append(of))
        return *found, teach.drawn.asked[1:], said

    return chosen


def test_what_was_chosen_is_told(choose):
    kept, rows, remarks, again, said = choose({1.0: latents(0.9, 0.8, 0.9)})
    assert (rows, again) == ([0, 1, 2], [])
    assert kept.places == ((1.0, 0), (1.0, 1), (1.0, 2))
    assert remarks == ["3 of 3 pairs show the target and are learned from"]
    assert said == [(CHOOSING, 0, 3)]


def test_a_pair_that_does_not_show_the_target_is_drawn_again_more_strongly(choose):
    pictures = {
        1.0: latents(0.9, -0.9, -0.9),
        1.5: latents(-0.9, -0.9, 0.9),
        2.0: latents(-0.9, 0.9, -0.9),
    }
    kept, rows, remarks, again, _ = choose(pictures)
    assert again == [(1.5, [1, 2]), (2.0, [1])]
    assert rows == [0, 1, 2]
    assert kept.places == ((1.0, 0), (2.0, 1), (1.5, 2)), "each at the least strength that shows it"
    assert [pair.seed for pair in kept.pairs] == [0, 1, 2]
    assert remarks == ["3 of 3 pairs show the target and are learned from"]


def test_a_pair_that_never_shows_the_target_is_left_out(choose):
    dark = latents(-0.9, -0.9, -0.9)
    kept, rows, remarks, again, _ = choose({1.0: latents(0.9, -0.9, 0.9), 1.5: dark, 2.0: dark})
    assert again == [(1.5, [1]), (2.0, [1])]
    assert (rows, len(kept.pairs)) == ([0, 2], 2)
    assert remarks == ["2 of 3 pairs show the target and are learned from"]


def test_where_most_pairs_show_the_target_none_is_drawn_again(choose, monkeypatch):
    monkeypatch.setattr(pairs, "_ENOUGH_SHOWN", 0.6)
    _, rows, _, again, _ = choose({1.0: latents(0.9, -0.9, 0.9)})
    assert (rows, again) == ([0, 2], [])


def test_pairs_that_somebody_has_are_not_drawn_again(choose):
    given = Given(latents(0.0), latents(0.0), 0)
    _, rows, _, again, _ = choose({1.0: latents(0.9, -0.9, 0.9)}, teacher=given)
    assert (rows, again) == ([0, 2], [])


def test_a_teacher_of_hardly_any_pair_stops_the_run_at_once(choose):
    with pytest.raises(TrainingError, match="shows the target in 0 of 3 pictures"):
        choose({1.0: latents(-0.9, -0.9, -0.9)})


def test_a_clip_that_cannot_tell_the_users_pictures_chooses_nothing(choose):
    _, rows, remarks, again, _ = choose({1.0: latents(0.9, -0.9, 0.9)}, shown=(-2.0, -2.0))
    assert (rows, again) == ([0, 1, 2], [])
    assert remarks[0].startswith("all 3 pairs are learned from: CLIP tells")
