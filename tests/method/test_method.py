import pytest
import torch

from spf_lora.adapters.attach import attach_trainable
from spf_lora.method import losses
from spf_lora.method.attention import attention_map
from spf_lora.method.control_map import (
    answer,
    control_map,
    phrase_answer,
    rescaled_distances,
    threshold,
)
from spf_lora.method.dual_path import dual_path
from spf_lora.method.tokens import token_groups

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture
def inputs(tiny):
    torch.manual_seed(0)
    return {
        "noisy": torch.randn(2, 4, 8, 8),
        "t": torch.tensor([10, 700]),
        "base_states": torch.randn(2, 77, 24),
        "full_states": torch.randn(2, 77, 24),
    }


def _adapted(tiny, seed=0):
    parameters = attach_trainable(tiny.unet, preset="attention", rank=2, alpha=2.0, seed=seed)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return parameters


def test_the_dual_path_is_two_plain_forwards(tiny, inputs):
    with torch.no_grad():
        plain = tiny.unet(inputs["noisy"], inputs["t"], inputs["base_states"]).sample
    _adapted(tiny)
    reference, response = dual_path(tiny.unet, **inputs)
    with torch.no_grad():
        adapted = tiny.unet(inputs["noisy"], inputs["t"], inputs["full_states"]).sample
    assert torch.equal(reference.eps, plain), "the reference is bitwise the frozen model"
    assert torch.equal(response.eps, adapted)
    assert len(reference.queries) == 4
    unwatched = dual_path(tiny.unet, **inputs, watched=False)
    assert torch.equal(unwatched[0].eps, plain)
    assert torch.equal(unwatched[1].eps, adapted)
    assert not unwatched[0].queries


def test_no_gradient_reaches_the_reference_and_every_adapter_tensor_gets_one(tiny, inputs):
    parameters = _adapted(tiny)
    reference, response = dual_path(tiny.unet, **inputs)
    assert not reference.eps.requires_grad
    assert not any(q.requires_grad for q in reference.queries.values())
    response.eps.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.values())
    assert all(p.grad is None for p in tiny.unet.parameters() if not p.requires_grad)


def test_an_attention_map_is_what_diffusers_attends_with(tiny, inputs):
    recorded = {}
    attn = tiny.unet.get_submodule(LAYER)
    handle = attn.to_out[0].register_forward_hook(lambda m, i, o: recorded.update(mixed=i[0]))
    from spf_lora.method.attention import recording

    with torch.no_grad(), recording(tiny.unet) as recorder:
        tiny.unet(inputs["noisy"], inputs["t"], inputs["full_states"])
        values = attn.to_v(inputs["full_states"])
    handle.remove()
    one_head = attention_map(
        recorder.queries[LAYER][..., :8], recorder.keys[LAYER][..., :8], heads=1
    )
    torch.testing.assert_close(one_head @ values[..., :8], recorded["mixed"][..., :8])
    torch.testing.assert_close(recorder.attention(LAYER).sum(-1), torch.ones(2, 64))


def test_an_answer_is_zero_where_paths_agree_and_has_no_scale_and_no_gradient():
    torch.manual_seed(0)
    reference, change = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8, requires_grad=True)
    assert answer(reference, reference).abs().max() == 0
    small, large = answer(reference + change, reference), answer(reference + 10 * change, reference)
    torch.testing.assert_close(small, large, atol=1e-4, rtol=0)
    torch.testing.assert_close(small.mean(dim=(1, 2, 3)), torch.ones(3))
    assert not small.requires_grad


@pytest.mark.parametrize("share", [0.05, 0.15, 0.35])
def test_a_control_map_finds_small_and_large_regions_alike(share):
    torch.manual_seed(0)
    inside = torch.rand(4, 1, 16, 16) < share
    answers = torch.where(inside, 3.0, 1.0) + 0.3 * torch.rand(4, 1, 16, 16)
    found = control_map(answers, area_cap=0.5)
    assert ((found > 0) == inside).all()
    assert found[inside].mean() > 0.9
    scaled = control_map(7 * answers, area_cap=0.5)
    torch.testing.assert_close(scaled, found, atol=1e-5, rtol=0)


def test_a_control_map_keeps_to_its_area_and_is_empty_where_nothing_answers():
    capped = control_map(torch.rand(2, 1, 16, 16) + 5, area_cap=0.25)
    assert ((capped > 0).float().mean(dim=(1, 2, 3)) <= 0.26).all()
    assert control_map(torch.zeros(1, 1, 4, 4), area_cap=1.0).max() == 0


def test_the_threshold_parts_two_classes_with_the_largest_variance_between_them():
    torch.manual_seed(0)
    flat = torch.rand(3, 40) ** 3
    for row, cut in zip(flat, threshold(flat).flatten(), strict=True):

        def between(at, row=row):
            upper = row > at
            if upper.all() or not upper.any():
                return 0.0
            means = row[upper].mean() - row[~upper].mean()
            return float(upper.float().mean() * (~upper).float().mean() * means**2)

        assert between(cut) >= max(between(value) for value in row) - 1e-6


def test_phrases_far_from_the_target_subtract_where_they_are_attended_to():
    attention = torch.zeros(1, 16, 5)
    attention[0, :8, 1], attention[0, 8:, 2] = 1.0, 1.0  # upper half token 1, lower half token 2
    distances = torch.tensor([[0.0, 1.0, 0.25, 0.0, 0.0]])
    found = phrase_answer({"a": attention}, distances, (4, 4))[0, 0]
    assert found[:2].mean() > 3 * found[2:].mean() > 0
    torch.testing.assert_close(found.mean(), torch.tensor(1.0))
    assert phrase_answer({"a": attention}, torch.zeros(1, 5), (4, 4)).abs().max() == 0


def test_distances_are_spread_over_the_phrases():
    found = rescaled_distances(torch.tensor([0.9, 0.85, 0.8]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 1.0]))
    assert rescaled_distances(torch.tensor([0.7])).tolist() == [1.0]


@pytest.fixture
def paths():
    torch.manual_seed(0)
    reference = {"a": torch.randn(2, 64, 8), "b": torch.randn(2, 16, 8)}
    response = {k: (v + torch.randn_like(v)).requires_grad_() for k, v in reference.items()}
    return response, reference


def test_the_fine_grained_loss_is_zero_when_the_paths_agree(paths):
    _, reference = paths
    nowhere = torch.zeros(2, 1, 8, 8)
    assert losses.fine_grained(reference, reference, nowhere) == 0


def test_the_fine_grained_loss_does_not_count_pixels_inside_the_map(paths):
    response, reference = paths
    everywhere = torch.ones(2, 1, 8, 8)
    assert losses.fine_grained(response, reference, everywhere) == 0
    left = torch.zeros(2, 1, 8, 8)
    left[..., :4] = 1
    losses.fine_grained(response, reference, left).backward()
    gradient = response["a"].grad.reshape(2, 8, 8, 8)
    assert gradient[:, :, :4].abs().max() == 0
    assert gradient[:, :, 4:].abs().min() > 0


def test_the_fine_grained_loss_speaks_one_scale(paths):
    response, reference = paths
    nowhere = torch.zeros(2, 1, 8, 8)
    one = losses.fine_grained(response, reference, nowhere)
    ten = losses.fine_grained(
        {k: 10 * v for k, v in response.items()}, {k: 10 * v for k, v in reference.items()}, nowhere
    )
    torch.testing.assert_close(one, ten)


def test_the_text_loss_ignores_the_targets_own_tokens():
    reference = torch.zeros(1, 4, 6)
    response = torch.zeros(1, 4, 6)
    reference[..., 0], response[..., 0] = 1.0, 0.6
    response[..., 2] = 0.4  # the target's token takes the rest
    groups = torch.zeros(1, 6, 6)
    groups[0, 1, 1] = 1  # the only matched token; no attention of either path is on it
    nowhere = torch.zeros(1, 1, 2, 2)
    assert losses.text_consistent({"a": response}, {"a": reference}, groups, groups, nowhere) == 0
    groups[0, 0, 0] = 1
    found = losses.text_consistent({"a": response}, {"a": reference}, groups, groups, nowhere)
    assert found == pytest.approx(0.16)


def _ids(text, size=8):
    """One letter a token, "." the end and the padding."""
    return torch.tensor([[ord(c) for c in (text + "." * size)[:size]]])


@pytest.mark.parametrize(
    ("base", "full", "pairs"),
    [
        ("abc", "abcX", {0: 0, 1: 1, 2: 2}),  # appended
        ("abc", "aXYc", {0: 0, 2: 3}),  # replaced by a longer phrase
        ("abc", "aXbc", {0: 0, 1: 2, 2: 3}),  # inserted
        ("", "X", {}),
        ("abc", "abc", {0: 0, 1: 1, 2: 2}),
    ],
)
def test_tokens_are_matched_around_the_one_place_that_differs(base, full, pairs):
    left, right = token_groups(_ids(base), _ids(full))
    found = {
        int(left[0, :, g].argmax()): int(right[0, :, g].argmax())
        for g in range(7)
        if left[0, :, g].any()
    }
    assert found == pairs
    for matrix, text in ((left, base), (right, full)):
        assert matrix[0, :, 7].nonzero().flatten().tolist() == list(range(len(text), 8))


def test_denoise_leaves_out_what_lies_outside_the_map():
    eps, noise = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    left = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert losses.denoise(eps, noise, left) == pytest.approx(0.5)


def test_the_response_loss_is_zero_for_the_trained_picture_and_grows_as_it_turns_away():
    target = torch.tensor([0.0, 0.0, 1.0])
    trained = torch.tensor([[1.0, 0.0, 0.0]])
    turned = [torch.tensor([[1.0, a, 0.0]], requires_grad=True) for a in (0.0, 0.3, 0.9)]
    every = torch.ones(1)
    found = [losses.response(x, trained, target, every) for x in turned]
    assert found[0].item() == pytest.approx(0, abs=1e-6)
    assert found[0] < found[1] < found[2]
    found[2].backward()
    assert turned[2].grad.abs().sum() > 0
    assert losses.response(turned[2], trained, target, 0 * every) == 0
