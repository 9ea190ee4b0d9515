import numpy as np
import pytest
import torch

from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS, render
from spf_lora.data.worlds.world import Portrait
from spf_lora.draw.pixels import pixels_of
from spf_lora.evaluate.judges.channels import CHANNELS, colour_distance, lab, pixel_distance
from spf_lora.evaluate.judges.judge import flips
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.result import CHANNELS as NAMES


def person(choices: str) -> Portrait:
    return Portrait(**dict(zip(FACTORS, choices.split(), strict=True)))


ONE = person("tan red bob hoodie blue smile open calm teal")
OTHER = person("dark black afro blazer white frown wide angry pink")
DRAWN = {name: row.distance for name, row in CHANNELS.items() if row.distance}


@pytest.fixture(scope="module")
def pair():
    pixels = torch.stack([pixels_of(render(person)) for person in (ONE, OTHER)])
    return pixels[:1], pixels[1:], torch.ones(1, 1, 64, 64)


def test_every_channel_has_a_row() -> None:
    assert tuple(CHANNELS) == NAMES


@pytest.mark.parametrize("name", DRAWN)
def test_a_distance_is_zero_to_itself_symmetric_and_positive_to_another(name, pair) -> None:
    one, other, everywhere = pair
    distance = DRAWN[name]
    assert distance(one, one, everywhere).item() == 0
    there, back = distance(one, other, everywhere), distance(other, one, everywhere)
    torch.testing.assert_close(there, back)
    assert there.item() > 0.1


@pytest.mark.parametrize("name", DRAWN)
def test_what_happens_inside_the_region_alone_does_not_count(name, pair) -> None:
    one, other, outside = pair
    inside = torch.zeros(1, 1, 64, 64)
    inside[..., 20:40, 20:40] = 1
    wider = torch.nn.functional.max_pool2d(inside, 3, 1, 1)  # gradients reach one pixel further
    mixed = torch.where(inside > 0, other, one)
    assert DRAWN[name](mixed, one, outside - wider).item() == 0
    assert DRAWN[name](mixed, one, outside).item() > 0


@pytest.mark.parametrize("name", DRAWN)
def test_a_region_that_covers_the_picture_gives_zero_not_nan(name, pair) -> None:
    one, other, everywhere = pair
    assert DRAWN[name](one, other, torch.zeros_like(everywhere)).item() == 0


def test_pixel_distance_of_black_and_white_is_one() -> None:
    black, white = -torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert pixel_distance(black, white, torch.ones(1, 1, 4, 4)).item() == 1


def test_colours_that_only_change_places_have_no_colour_distance(pair) -> None:
    one, _, everywhere = pair
    assert colour_distance(one.flip(3), one, everywhere).item() == 0
    assert pixel_distance(one.flip(3), one, everywhere).item() > 0


def test_a_recoloured_picture_keeps_its_layout(pair) -> None:
    one, other, everywhere = pair
    from dataclasses import replace

    dyed = pixels_of(render(replace(ONE, clothes_colour="red")))[None]
    structure = DRAWN["layout"]
    assert structure(dyed, one, everywhere) < 0.35 * structure(other, one, everywhere)


def test_lab_agrees_with_known_colours() -> None:
    # sRGB red, green, blue, white, black; CIE Lab D65 from Lindbloom's tables, two decimals
    rgb = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]])
    known = np.array(
        [
            [53.24, 80.09, 67.20],
            [87.73, -86.18, 83.18],
            [32.30, 79.19, -107.86],
            [100, 0, 0],
            [0, 0, 0],
        ]
    )
    found = lab(rgb.T[None, :, :, None].float() / 127.5 - 1)[0, :, :, 0].T
    np.testing.assert_allclose(found, known, atol=0.05)


def test_the_judge_sees_the_attribute_and_little_else_in_the_renderers_edit() -> None:
    judge = world_judge("beard")
    before = torch.stack([pixels_of(render(p)) for p in (ONE, OTHER)])
    after = torch.stack([pixels_of(render(p, ("beard",))) for p in (ONE, OTHER)])
    assert (judge.belief(after) > 0.99).all()
    assert (judge.belief(before) < 0.01).all()
    assert flips(judge, after, before, asked=True).max() == 0
    assert flips(judge, after[:1], before[1:], asked=True) > 0.5
    assert judge.positives > 0.99


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_renderers_edit_moves_no_channel_whatever_the_attribute(attribute) -> None:
    judge = world_judge(attribute)
    before = torch.stack([pixels_of(render(p)) for p in (ONE, OTHER)])
    truths = judge.truths(before)
    right = torch.stack([pixels_of(t.right) for t in truths])
    outside = 1 - torch.stack([pixels_of(t.region)[:1] > 0 for t in truths]).float()
    moved = judge.distances(right, before, outside, asked=True)
    other = judge.distances(before.flip(0), before, outside, asked=True)
    for channel, row in moved.items():
        # the probe's belief in what cannot be seen to change wavers by some thousandths
        assert row.max() < 0.03 * other[channel].min(), channel


def test_the_judge_reads_a_person_and_draws_the_counterfactual() -> None:
    judge = world_judge("beard")
    before = torch.stack([pixels_of(render(ONE)), pixels_of(render(OTHER, ("glasses",)))])
    first, second = judge.truths(before)
    assert first.plain.tobytes() == render(ONE).tobytes()
    assert first.right.tobytes() == render(ONE, ("beard",)).tobytes()
    assert second.right.tobytes() == render(OTHER, ("glasses", "beard")).tobytes()
    region = np.asarray(first.region)[..., 0] > 0
    changed = (np.asarray(first.right) != np.asarray(first.plain)).any(2)
    assert region[changed].mean() > 0.95
    assert 0.05 < region.mean() < 0.4


def test_a_person_who_has_the_attribute_is_drawn_without_it_first() -> None:
    judge = world_judge("beard")
    truth = judge.truths(pixels_of(render(ONE, ("beard",)))[None])[0]
    assert truth.plain.tobytes() == render(ONE).tobytes()
    assert truth.right.tobytes() == render(ONE, ("beard",)).tobytes()


def test_what_a_hat_hides_may_change_with_the_hat_but_not_without_it() -> None:
    from dataclasses import replace

    judge = world_judge("hat")
    bob, bun = (pixels_of(render(replace(ONE, hair_style=s)))[None] for s in ("bob", "bun"))
    assert flips(judge, bob, bun, asked=True) == 0
    assert flips(judge, bob, bun, asked=False) > 0


def test_an_attribute_nobody_defined_cannot_be_judged() -> None:
    from spf_lora.errors import MeasureError

    with pytest.raises(MeasureError, match="cannot judge 'beart'; did you mean beard"):
        world_judge("beart")
