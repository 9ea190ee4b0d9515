import numpy as np
import pytest
import torch
from tiny_base import noisy_adapter

from spf_lora.adapters.module import Adapter, Module
from spf_lora.draw.exact import asking_tokens, exactly
from spf_lora.draw.weights import attached
from spf_lora.errors import AdapterFileError


@pytest.fixture
def adapter(tiny_folder):
    return noisy_adapter(tiny_folder)


def draw(unet, t=500):
    torch.manual_seed(1)
    noisy, states = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 24)
    with torch.no_grad():
        return unet(noisy, torch.tensor([t, t]), states).sample


@pytest.mark.parametrize(
    ("prompt", "first"),
    [("a person, a hat", 4), ("a person, A Hat, red", 4), ("a person, a hatter", None), ("", None)],
)
def test_the_target_and_all_behind_it_ask(tiny, prompt, first):
    mask = asking_tokens(tiny.tokenizer, prompt, "a hat")
    assert mask.shape == (77,)
    if first is None:
        assert mask.sum() == 0
    else:
        words = tiny.tokenizer(prompt[: prompt.lower().index("a hat")]).input_ids
        assert int(mask.nonzero()[0]) == len(words) - 1  # without its end token
        assert mask.sum() == 77 - (len(words) - 1)


def test_a_prompt_that_does_not_ask_is_the_base_bit_for_bit(tiny, adapter):
    plain = draw(tiny.unet)
    with exactly(tiny.unet, adapter, 1.0, torch.zeros(77)):
        assert torch.equal(draw(tiny.unet), plain)


def test_the_empty_half_is_the_base_and_the_asking_half_is_the_adapter(tiny, adapter):
    plain = draw(tiny.unet)
    with attached(tiny.unet, [(adapter, 0.7)]):
        added = draw(tiny.unet)
    with exactly(tiny.unet, adapter, 0.7, torch.ones(77)):
        found = draw(tiny.unet)
    assert torch.equal(found[0], plain[0])
    torch.testing.assert_close(found[1], added[1], atol=1e-4, rtol=1e-4)
    assert torch.equal(draw(tiny.unet), plain), "no hook is left behind"


def test_each_prompt_of_a_batch_asks_for_itself(tiny, adapter):
    torch.manual_seed(3)
    noisy, states = torch.randn(6, 4, 8, 8), torch.randn(6, 77, 24)
    half = torch.zeros(77)
    half[40:] = 1
    asking = torch.stack([torch.zeros(77), torch.ones(77), half])

    def run(rows, tokens):
        with torch.no_grad(), exactly(tiny.unet, adapter, 0.7, tokens):
            return tiny.unet(noisy[rows], torch.full((len(rows),), 500), states[rows]).sample

    found = run([0, 1, 2, 3, 4, 5], asking)
    with torch.no_grad():
        plain = tiny.unet(noisy, torch.full((6,), 500), states).sample
    assert torch.equal(found[:4], plain[:4])
    for row in (1, 2):
        alone = run([row, 3 + row], asking[row])[1]
        torch.testing.assert_close(found[3 + row], alone, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found[3 + row], plain[3 + row], atol=1e-3)


def on(unet, adapter, *, exact, **options):
    if exact:
        return exactly(unet, adapter, 0.7, torch.ones(77), **options)
    return attached(unet, [(adapter, 0.7)], **options)


@pytest.mark.parametrize("exact", [False, True])
def test_before_its_start_an_adapter_is_the_base_bit_for_bit(tiny, adapter, exact):
    plain = {t: draw(tiny.unet, t) for t in (601, 600)}
    with on(tiny.unet, adapter, exact=exact):
        added = draw(tiny.unet, 600)
    with on(tiny.unet, adapter, exact=exact, start_percent=0.4):
        for _ in range(2):  # a sampler begins anew with each batch
            assert torch.equal(draw(tiny.unet, 601), plain[601])
            assert torch.equal(draw(tiny.unet, 600), added)
        draw(tiny.unet, 601)
    assert not torch.equal(added, plain[600])
    assert torch.equal(draw(tiny.unet, 600), plain[600])


def test_a_time_step_given_by_name_counts(tiny, adapter):
    noisy, states = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 24)
    with torch.no_grad():
        plain = tiny.unet(noisy, timestep=900, encoder_hidden_states=states).sample
        with attached(tiny.unet, [(adapter, 1.0)], start_percent=0.2):
            late = tiny.unet(noisy, timestep=900, encoder_hidden_states=states).sample
    assert torch.equal(late, plain)


def test_tokens_that_do_not_ask_keep_their_keys_and_values(tiny, adapter):
    tokens = torch.zeros(77)
    tokens[40:] = 1
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    layer = tiny.unet.get_submodule(name)
    torch.manual_seed(2)
    states = torch.randn(2, 77, 24)
    plain = layer(states)
    with exactly(tiny.unet, adapter, 1.0, tokens):
        found = layer(states)
    assert torch.equal(found[1, :40], plain[1, :40])
    assert not torch.equal(found[1, 40:], plain[1, 40:])
    assert torch.equal(found[0], plain[0])


def test_an_adapter_of_another_architecture_is_refused(tiny):
    module = Module("unet.nowhere", np.ones((1, 4), np.float32), np.ones((4, 1), np.float32), 1.0)
    alien = Adapter({"unet.nowhere": module}, {})
    with (
        pytest.raises(AdapterFileError, match=r"no module unet\.nowhere"),
        exactly(tiny.unet, alien, 1.0, torch.ones(77)),
    ):
        pass
