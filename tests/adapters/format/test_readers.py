"""Real readers: diffusers and peft give the output that the adapter's own arithmetic gives."""

import copy
from functools import cache

import numpy as np
import pytest

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter, Module

torch = pytest.importorskip("torch")

STRENGTHS = (0.0, 0.5, 1.0)
SMALL_UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
SMALL_TEXT = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 60,
    "bos_token_id": 58,
    "eos_token_id": 59,
}
# the sets an attribute is trained on, and every conv and time module on top
SETS = {
    "cross": r"attn2\.to_[kv]$",
    "kohya": r"attentions\.|self_attn|mlp",
    "all": r"",
}


def unet_of(settings):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**settings).eval()


def text_encoder_of(settings):
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(1)
    return CLIPTextModel(CLIPTextConfig(**settings)).eval()


@pytest.fixture(scope="module")
def small_models():
    return unet_of(SMALL_UNET), text_encoder_of(SMALL_TEXT)


def targets(model, prefix):
    """Canonical name -> layer, for every layer that an adapter can move."""
    from spf_lora.adapters.format.keys import is_module

    named = {f"{prefix}{name}": layer for name, layer in model.named_modules()}
    return {name: layer for name, layer in named.items() if is_module(name)}


def layers_of(models):
    unet, text_encoder = models
    return targets(unet, "unet.") | targets(text_encoder, "text_encoder.text_model.")


def random_adapter(models, pattern, ranks, alphas):
    import re

    rng = np.random.default_rng(3)
    modules = {}
    for at, (name, layer) in enumerate(layers_of(models).items()):
        if re.search(pattern, name):
            out, into, *taps = layer.weight.shape
            rank, alpha = ranks[at % len(ranks)], alphas[at % len(alphas)]
            down = rng.normal(scale=0.1, size=(rank, into, *taps)).astype(np.float32)
            up = rng.normal(scale=0.1, size=(out, rank, *(1 for _ in taps))).astype(np.float32)
            modules[name] = Module(name, down, up, alpha)
    return Adapter(modules)


def merged(models, adapter, strength):
    """Copies of the models with `strength * scale * up @ down` added to the weights."""
    copies = tuple(copy.deepcopy(model) for model in models)
    layers = layers_of(copies)
    for module in adapter.modules.values():
        up = torch.tensor(module.up).flatten(1).double()
        down = torch.tensor(module.down).flatten(1).double()
        moved = strength * module.scale * (up @ down)
        weight = layers[module.name].weight
        with torch.no_grad():
            weight += moved.reshape(weight.shape).to(weight.dtype)
    return copies


@torch.no_grad()
def outputs(models):
    unet, text_encoder = models
    random = torch.Generator().manual_seed(5)
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    latents = torch.randn(1, 4, size, size, generator=random)
    tokens = torch.randint(0, 50, (1, 8), generator=random)
    states = torch.randn(1, 8, width, generator=random)
    noise = unet(latents, torch.tensor([300]), encoder_hidden_states=states).sample
    return noise, text_encoder(tokens).last_hidden_state


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=0), (one - other).abs().max()


def pipeline_of(models):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    unet, text_encoder = (copy.deepcopy(model) for model in models)
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=text_encoder,
        tokenizer=None,
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def check_diffusers(models, adapter, wanted, path, layout):
    write_adapter(adapter, path, layout=layout, dtype="fp32")
    pipe = pipeline_of(models)
    pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="ours")
    for strength in STRENGTHS:
        pipe.set_adapters("ours", adapter_weights=strength)
        assert_same(outputs((pipe.unet, pipe.text_encoder)), wanted[strength])


def wanted_of(models, adapter):
    """Return what the models give with an adapter merged into them, at every strength."""
    return {strength: outputs(merged(models, adapter, strength)) for strength in STRENGTHS}


def check_peft(models, adapter, wanted, path):
    from peft import PeftModel
    from peft.helpers import rescale_adapter_scale

    write_adapter(adapter, path, layout="peft", dtype="fp32")
    one_model = (path / "adapter_config.json").exists()
    unet = PeftModel.from_pretrained(copy.deepcopy(models[0]), path if one_model else path / "unet")
    for strength in STRENGTHS:
        guard = rescale_adapter_scale(unet, strength) if strength else unet.disable_adapter()
        with guard:
            found = outputs((unet.base_model.model, models[1]))
        assert_same(found[:1], wanted[strength][:1])
    if not one_model:
        text = PeftModel.from_pretrained(copy.deepcopy(models[1]), path / "text_encoder")
        found = outputs((models[0], text.base_model.model))
        assert_same(found[1:], wanted[1.0][1:])


CASES = {
    "one rank, one alpha": ((4,), (2.0,)),
    "odd ranks, one alpha": ((3, 5, 6), (2.0,)),
    "odd ranks, many alphas": ((3, 5, 6), (1.0, 4.0, 7.0)),
}
SOME = [("cross", "one rank, one alpha"), ("all", "odd ranks, many alphas")]
REST = [(modules, case) for modules in SETS for case in CASES if (modules, case) not in SOME]
EVERY = [*SOME, *(pytest.param(*one, marks=pytest.mark.slow) for one in REST)]


@pytest.fixture(scope="module")
def some_adapter(small_models):
    """Returns an adapter and what it gives at every strength, each made once."""

    @cache
    def made(modules, case):
        adapter = random_adapter(small_models, SETS[modules], *CASES[case])
        return adapter, wanted_of(small_models, adapter)

    return made


@pytest.mark.parametrize(("modules", "case"), EVERY)
@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_diffusers_gives_our_output_at_every_strength(
    small_models, some_adapter, tmp_path, layout, modules, case
):
    check_diffusers(small_models, *some_adapter(modules, case), tmp_path / "a.safetensors", layout)


@pytest.mark.parametrize(("modules", "case"), EVERY)
def test_peft_gives_our_output_at_every_strength(
    small_models, some_adapter, tmp_path, modules, case
):
    check_peft(small_models, *some_adapter(modules, case), tmp_path / "folder")


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_our_own_runtime_and_diffusers_draw_the_same_from_one_file(small_models, tmp_path, layout):
    from spf_lora.draw.weights import attached

    path = tmp_path / "a.safetensors"
    adapter = random_adapter(small_models, r"unet\.", *CASES["odd ranks, many alphas"])
    write_adapter(adapter, path, layout=layout, dtype="fp32")
    pipe = pipeline_of(small_models)
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="ours")
    for strength in STRENGTHS:
        pipe.set_adapters("ours", adapter_weights=strength)
        with attached(small_models[0], [(read_adapter(path), strength)]):
            found = outputs(small_models)
        assert_same(found, outputs((pipe.unet, pipe.text_encoder)))


def test_the_adapters_of_these_tests_move_both_models(small_models):
    adapter = random_adapter(small_models, SETS["kohya"], (4,), (2.0,))
    plain, moved = outputs(small_models), outputs(merged(small_models, adapter, 1.0))
    assert all((one - other).abs().max() > 1e-2 for one, other in zip(plain, moved, strict=True))


def test_a_round_trip_through_peft_keeps_every_number_and_the_content_id(small_models, tmp_path):
    from peft import PeftModel

    adapter = random_adapter(small_models, r"unet\.", (3, 5), (2.0,))
    write_adapter(adapter, tmp_path / "ours", layout="peft", dtype="fp32")
    wrapped = PeftModel.from_pretrained(copy.deepcopy(small_models[0]), tmp_path / "ours")
    wrapped.save_pretrained(tmp_path / "theirs")
    ours, theirs = read_adapter(tmp_path / "ours"), read_adapter(tmp_path / "theirs")
    assert ours.modules.keys() == theirs.modules.keys()
    for name, module in ours.modules.items():
        assert np.array_equal(module.down, theirs.modules[name].down)
        assert np.array_equal(module.up, theirs.modules[name].up)
        assert module.alpha == theirs.modules[name].alpha
    assert content_id(ours) == content_id(theirs)


@pytest.mark.parametrize("stabilised", [False, True])
def test_what_peft_saves_loads_here_at_the_same_strength(small_models, tmp_path, stabilised):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=6,
        rank_pattern={"attn2.to_k": 2},
        alpha_pattern={"attn1.to_q": 3},
        target_modules=["to_q", "to_k", "conv1"],
        use_rslora=stabilised,
        init_lora_weights=False,
    )
    wrapped = get_peft_model(copy.deepcopy(small_models[0]), config)
    wrapped.save_pretrained(tmp_path / "saved")
    wanted = outputs((wrapped.base_model.model, small_models[1]))
    found = outputs(merged(small_models, read_adapter(tmp_path / "saved"), 1.0))
    assert_same(found, wanted)


def test_what_diffusers_saves_with_its_header_entry_loads_here_at_the_same_strength(
    small_models, tmp_path
):
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = copy.deepcopy(small_models[0])
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=["to_q", "to_out.0"], init_lora_weights=False
    )
    unet.add_adapter(config, adapter_name="theirs")
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name="theirs"))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=config.to_dict()
    )
    found = read_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    assert {module.alpha for module in found.modules.values()} == {6.0}
    assert_same(outputs(merged(small_models, found, 1.0)), outputs((unet, small_models[1])))


@pytest.fixture(scope="module")
def full_models():
    """The U-Net and text encoder in the shapes of Stable Diffusion 1.5, random weights."""
    unet = unet_of({"sample_size": 8, "cross_attention_dim": 768, "attention_head_dim": 8})
    return unet, text_encoder_of(
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_diffusers_gives_our_output_on_the_full_860_million_model(full_models, tmp_path, layout):
    assert sum(one.numel() for one in full_models[0].parameters()) == 859_520_964
    adapter = random_adapter(full_models, SETS["kohya"], (4,), (2.0,))
    adapter = Adapter({name: weaker(module) for name, module in adapter.modules.items()})
    wanted = wanted_of(full_models, adapter)
    check_diffusers(full_models, adapter, wanted, tmp_path / "a.safetensors", layout)


@pytest.mark.slow
def test_peft_gives_our_output_on_the_full_860_million_model(full_models, tmp_path):
    adapter = random_adapter(full_models, SETS["kohya"], (4,), (2.0,))
    adapter = Adapter({name: weaker(module) for name, module in adapter.modules.items()})
    check_peft(full_models, adapter, wanted_of(full_models, adapter), tmp_path / "folder")


def weaker(module):
    """The same module with a tenth of the numbers: at full width the others leave fp32's range."""
    return Module(module.name, 0.1 * module.down, 0.1 * module.up, module.alpha)
