import pytest
import torch

from spf_lora.adapters.attach import attach_trainable
from spf_lora.method import losses
from spf_lora.method.attention import attention_map
from spf_lora.method.control_map import difference_map
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
    assert len(reference.queries) == 16


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


def test_a_difference_map_is_zero_where_paths_agree_and_keeps_to_its_area():
    torch.manual_seed(0)
    reference = torch.randn(3, 4, 16, 16)
    assert difference_map(reference, reference, area_cap=0.4).abs().max() == 0
    moved = reference + torch.randn(3, 4, 16, 16)
    found = difference_map(moved, reference, area_cap=0.25)
    assert found.shape == (3, 1, 16, 16)
    assert found.min() == 0
    assert found.max() == 1
    assert ((found > 0).float().mean(dim=(1, 2, 3)) <= 0.25).all()


def test_a_difference_map_does_not_depend_on_scale_and_carries_no_gradient():
    torch.manual_seed(0)
    reference, change = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8, requires_grad=True)
    small = difference_map(reference + change, reference, area_cap=0.5)
    large = difference_map(reference + 10 * change, reference, area_cap=0.5)
    torch.testing.assert_close(small, large, atol=1e-4, rtol=0)
    assert not small.requires_grad


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


def test_the_outside_loss_counts_only_what_is_outside():
    reference = torch.zeros(1, 4, 4, 4)
    response = torch.ones(1, 4, 4, 4)
    half = torch.zeros(1, 1, 4, 4)
    half[..., :2] = 1
    assert losses.outside_map(response, reference, half) == pytest.approx(0.5)
    assert losses.outside_map(reference, reference, half) == 0


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


def test_denoise_leaves_out_samples_of_weight_zero():
    eps, noise = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    assert losses.denoise(eps, noise, torch.tensor([1.0, 0.0])) == pytest.approx(0.5)
