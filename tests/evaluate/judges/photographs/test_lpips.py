import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_scorers import make_trunk, trunk

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.lpips import HEADS, Lpips

TAPS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}


def by_the_book(net, kind, first, second):
    """LPIPS as its paper writes it, on the trunk as torchvision builds it."""
    mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    heads, total = load_file(HEADS), 0.0
    one, other = ((p - mean[:, None, None]) / std[:, None, None] for p in (first, second))
    for index, layer in enumerate(net):
        one, other = layer(one), layer(other)
        if index in TAPS[kind]:
            unit = [x / x.norm(dim=1, keepdim=True) for x in (one, other)]
            head = heads[f"{kind}.{TAPS[kind].index(index)}"]
            apart = torch.einsum("bchw,c->bhw", (unit[0] - unit[1]).square(), head)
            total = total + apart.mean((1, 2))
    return total


@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_both_trunks_agree_with_the_papers_formula(kind, tmp_path):
    net = make_trunk(tmp_path / kind, kind)
    torch.manual_seed(0)
    first, second = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    lpips = Lpips(tmp_path / kind, torch.device("cpu"))
    torch.testing.assert_close(
        lpips.distance(first, second), by_the_book(net, kind, first, second), rtol=1e-4, atol=1e-6
    )


def test_only_what_lies_outside_the_region_counts(tmp_path):
    make_trunk(tmp_path / "alex", "alex")
    lpips = Lpips(tmp_path / "alex", torch.device("cpu"))
    torch.manual_seed(0)
    first = torch.rand(1, 3, 256, 256) * 2 - 1
    second = first.clone()
    second[..., :64] = 0
    outside = torch.ones(1, 1, 256, 256)
    # The widest filter of AlexNet's five stages sees 195 pixels: far from the change, nothing.
    outside[..., :200] = 0
    everywhere = lpips.distance(first, second)
    assert everywhere > 1e-3
    assert lpips.distance(first, second, outside) < everywhere / 50
    torch.testing.assert_close(
        lpips.distance(first, second, torch.ones(1, 1, 256, 256)), everywhere, rtol=0.05, atol=0
    )


def test_too_small_pictures_are_refused(tmp_path):
    make_trunk(tmp_path / "alex", "alex")
    small = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ScorerError, match="64 pixels or more, not 32"):
        Lpips(tmp_path / "alex", torch.device("cpu")).distance(small, small)


def test_the_heads_carry_their_licence_and_fit_both_trunks():
    with safe_open(HEADS, "pt") as file:
        assert "Copyright (c) 2018, Richard Zhang" in file.metadata()["license"]
    heads = load_file(HEADS)
    for kind, taps in TAPS.items():
        widths = [trunk(kind)[index - 1].out_channels for index in taps]
        assert [heads[f"{kind}.{i}"].numel() for i in range(5)] == widths
    assert all((head >= 0).all() for head in heads.values())  # a distance never falls
