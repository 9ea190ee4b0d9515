"""What other tools wrote loads here: same modules, same change, or it is refused by its name."""

import foreign
import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spf_lora.adapters import sd15
from spf_lora.adapters.format.adapter_file import open_adapter, read_adapter
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter
from spf_lora.errors import AdapterFileError

UNET_ATTENTION = (
    "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k",
    "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0",
)
LAYOUTS = {
    "kohya": (foreign.kohya, "kohya"),
    "kohya with lora_te1": (foreign.kohya_te1, "kohya"),
    "kohya with original names": (foreign.kohya_ldm, "kohya-ldm"),
    "diffusers": (foreign.diffusers, "diffusers"),
    "old diffusers": (foreign.diffusers_old, "diffusers-old"),
    "dotted original names": (foreign.comfy_dotted, "diffusers"),
    "ComfyUI's LoraSave": (foreign.comfy_saved, "kohya"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_adapter(tmp_path, make_adapter, layout):
    keys_of, label = LAYOUTS[layout]
    adapter = make_adapter(ranks=4, alphas=4.0)
    foreign.save(adapter, tmp_path / "a.safetensors", keys_of, dtype=np.float32)
    with open_adapter(tmp_path / "a.safetensors") as opened:
        assert opened.layout == label
    found = read_adapter(tmp_path / "a.safetensors")
    assert found.modules.keys() == adapter.modules.keys()
    for name, module in adapter.modules.items():
        assert np.array_equal(found.modules[name].down, module.down)
        assert np.array_equal(found.modules[name].up, module.up)
        assert found.modules[name].alpha == 4.0
    assert content_id(found) == content_id(adapter)


def test_every_module_of_stable_diffusion_15_is_found_under_its_original_name(
    tmp_path, make_adapter
):
    adapter = make_adapter(names=list(sd15.weight_shapes()), ranks=1)
    foreign.save(adapter, tmp_path / "a.safetensors", foreign.kohya_ldm)
    assert read_adapter(tmp_path / "a.safetensors").modules.keys() == adapter.modules.keys()


def test_attention_processors_without_a_prefix_are_the_unets(tmp_path, make_adapter):
    adapter = make_adapter(names=UNET_ATTENTION, ranks=4, alphas=4.0)
    foreign.save(adapter, tmp_path / "a.safetensors", foreign.processors_only)
    assert read_adapter(tmp_path / "a.safetensors").modules.keys() == adapter.modules.keys()


def test_plain_lora_under_lycoris_own_prefix_is_read(tmp_path, make_adapter):
    names = [name for name in sd15.weight_shapes() if name.startswith("unet.")]
    adapter = make_adapter(names=names, ranks=1)
    foreign.save(adapter, tmp_path / "a.safetensors", foreign.lycoris)
    assert content_id(read_adapter(tmp_path / "a.safetensors")) == content_id(
        read_adapter_of(adapter, tmp_path)
    )


def read_adapter_of(adapter, folder):
    foreign.save(adapter, folder / "kohya.safetensors", foreign.kohya)
    return read_adapter(folder / "kohya.safetensors")


def test_alpha_and_rank_are_read_for_each_module(tmp_path, make_adapter):
    adapter = make_adapter(ranks=(1, 2, 5), alphas=(1.0, 0.5, 8.0))
    foreign.save(adapter, tmp_path / "a.safetensors", foreign.kohya)
    found = read_adapter(tmp_path / "a.safetensors").modules
    for name, module in adapter.modules.items():
        assert (found[name].rank, found[name].alpha) == (module.rank, module.alpha)


def test_a_missing_alpha_means_scale_1(tmp_path, make_adapter):
    foreign.save(make_adapter(ranks=(2, 3)), tmp_path / "a.safetensors", foreign.kohya, alpha=False)
    assert {one.scale for one in read_adapter(tmp_path / "a.safetensors").modules.values()} == {1.0}


def test_bf16_is_widened_without_a_change(tmp_path, make_adapter):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    down, up, _ = foreign.kohya(UNET_ATTENTION[0])
    factors = {down: torch.randn(4, 16).bfloat16(), up: torch.randn(16, 4).bfloat16()}
    save_file(factors, tmp_path / "a.safetensors")
    (module,) = read_adapter(tmp_path / "a.safetensors").modules.values()
    assert module.stored == "BF16"
    assert np.array_equal(module.down, factors[down].float().numpy())
    assert np.array_equal(module.up, factors[up].float().numpy())


def test_a_peft_folder_gives_alpha_through_its_patterns(tmp_path, make_adapter):
    adapter = make_adapter(names=UNET_ATTENTION, ranks=4)
    foreign.save_peft(adapter, tmp_path / "a", lora_alpha=6, alpha_pattern={"attn2.to_k": 2})
    found = read_adapter(tmp_path / "a").modules
    assert found[UNET_ATTENTION[0]].alpha == 2
    assert found[UNET_ATTENTION[1]].alpha == 6


def test_rank_stabilised_peft_folders_keep_their_strength(tmp_path, make_adapter):
    foreign.save_peft(make_adapter(names=UNET_ATTENTION), tmp_path / "a", use_rslora=True)
    assert {one.scale for one in read_adapter(tmp_path / "a").modules.values()} == {2.0}


def test_a_peft_file_is_read_with_the_configuration_beside_it(tmp_path, make_adapter):
    foreign.save_peft(make_adapter(names=UNET_ATTENTION), tmp_path / "a", lora_alpha=8)
    found = read_adapter(tmp_path / "a" / "adapter_model.safetensors")
    assert {one.scale for one in found.modules.values()} == {2.0}


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"r": 8}, "states rank 8"),
        ({"r": "4"}, "no sound number for r"),
        ({"lora_alpha": float("nan")}, "lora_alpha is not a finite number"),
        ({"rank_pattern": {"(a+)+$": 4}}, "regular expression in rank_pattern"),
        ({"alpha_pattern": ["to_k"]}, "alpha_pattern that is no table"),
    ],
)
def test_a_peft_folder_that_is_not_plain_lora_is_refused(tmp_path, make_adapter, setting, reason):
    foreign.save_peft(make_adapter(names=UNET_ATTENTION), tmp_path / "a", **setting)
    with pytest.raises(AdapterFileError, match=reason):
        read_adapter(tmp_path / "a")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.just(10**400),
    st.floats(),
    st.sampled_from(["4", "none", "gaussian", "to_k", "(", "^x$", []]),
    st.dictionaries(st.sampled_from(["to_k", "attn2.to_k", "(a+)+$", ""]), st.integers(0, 5)),
)
SETTINGS = st.sampled_from(
    ["r", "lora_alpha", "rank_pattern", "alpha_pattern", "bias", "use_rslora", "init_lora_weights"]
)


@hypothesis.settings(max_examples=150, deadline=None)
@given(setting=st.dictionaries(SETTINGS, VALUES, max_size=3))
def test_any_peft_configuration_gives_a_finite_strength_or_is_refused(
    make_module_of, tmp_path_factory, setting
):
    folder = tmp_path_factory.mktemp("config") / "a"
    foreign.save_peft(
        Adapter({UNET_ATTENTION[0]: make_module_of(UNET_ATTENTION[0])}), folder, **setting
    )
    adapter, refused = outcome(folder)
    assert refused or np.isfinite(adapter.modules[UNET_ATTENTION[0]].scale)


def outcome(path):
    try:
        return read_adapter(path), False
    except AdapterFileError:
        return None, True


@pytest.mark.parametrize(
    ("suffix", "method"),
    [
        ("hada_w2_b", "LoHa"),
        ("lokr_w2_a", "LoKr"),
        ("dora_scale", "DoRA"),
        ("oft_diag", "OFT"),
        ("lora_mid.weight", "Tucker"),
        ("diff_b", "diff"),
        ("a1.weight", "GLoRA"),
        ("on_input", "IA3"),
    ],
)
def test_another_method_among_lora_modules_refuses_the_whole_file(
    tmp_path, make_adapter, suffix, method
):
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "a.safetensors"
    foreign.save(make_adapter(), path, foreign.kohya)
    save_file({**load_file(path), f"lora_unet_conv_in.{suffix}": np.ones((1, 1))}, path)
    with pytest.raises(AdapterFileError, match=f"{method}.*not plain LoRA"):
        read_adapter(path)


@pytest.mark.parametrize(
    ("parts", "method"),
    [
        (("alpha", "hada_w1_a", "hada_w1_b"), "LoHa"),
        (("alpha", "lokr_w1", "lokr_w2"), "LoKr"),
        (("alpha", "dora_scale", "lora_down.weight"), "DoRA"),
    ],
)
@pytest.mark.parametrize("body", ["lycoris_mid_block_resnets_0_conv1", "lycoris_unheard_of"])
def test_a_file_of_another_method_is_refused_for_that_first(tmp_path, parts, method, body):
    from safetensors.numpy import save_file

    save_file({f"{body}.{part}": np.ones((1, 1)) for part in parts}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match=f"is {method}, not plain LoRA"):
        read_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("width", "family"), [(1024, "Stable Diffusion 2"), (2048, "Stable Diffusion XL")]
)
def test_an_adapter_for_another_base_is_refused_by_the_width_it_reads(tmp_path, width, family):
    from safetensors.numpy import save_file

    down, up, _ = foreign.kohya(UNET_ATTENTION[0])
    save_file({down: np.ones((1, width)), up: np.ones((8, 1))}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match=f"is for {family}"):
        read_adapter(tmp_path / "a.safetensors")


def test_one_module_in_two_layouts_is_refused_not_half_read(tmp_path, make_adapter):
    from safetensors.numpy import load_file, save_file

    adapter = make_adapter(names=UNET_ATTENTION)
    foreign.save(adapter, tmp_path / "a.safetensors", foreign.kohya)
    foreign.save(adapter, tmp_path / "b.safetensors", foreign.diffusers)
    both = load_file(tmp_path / "a.safetensors") | load_file(tmp_path / "b.safetensors")
    save_file(both, tmp_path / "c.safetensors")
    with pytest.raises(AdapterFileError, match="twice"):
        read_adapter(tmp_path / "c.safetensors")


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x8B1F])
def test_a_header_whose_length_begins_like_a_pickle_or_gzip_is_read(make_adapter, tmp_path, length):
    from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter

    path = tmp_path / "a.safetensors"
    write_adapter(make_adapter(), path)
    data = path.read_bytes()
    old = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + old].rstrip()
    padded = header.ljust(length + 0x10000 * (len(header) > length))
    path.write_bytes(len(padded).to_bytes(8, "little") + padded + data[8 + old :])
    assert path.read_bytes()[:2] == length.to_bytes(2, "little")
    assert len(read_adapter(path).modules) == len(make_adapter().modules)
