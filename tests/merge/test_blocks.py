import pytest

from spf_lora.adapters import sd15
from spf_lora.adapters.format import keys
from spf_lora.merge import blocks


def test_the_lists_have_17_and_26_names_and_presets_17_numbers():
    assert len(blocks.BLOCKS_17) == 17
    assert len(blocks.BLOCKS_26) == 26
    assert {len(one) for one in blocks.PRESETS.values()} == {17}
    assert blocks.parse("outall") == blocks.parse("1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1")
    assert blocks.parse("MIDD") == blocks.parse("1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0")


def test_a_list_of_17_names_every_block_of_the_kohya_set():
    found = {blocks.block_of(name) for name in sd15.kohya_modules()}
    assert found == set(blocks.BLOCKS_17)


def test_every_module_of_the_u_net_lies_in_a_block():
    found = {blocks.block_of(name) for name in sd15.weight_shapes()}
    assert found == set(blocks.BLOCKS_26)


@pytest.mark.parametrize(
    ("module", "original", "block"),
    [
        ("unet.down_blocks.0.attentions.0.proj_in", "input_blocks_1_1_proj_in", "IN01"),
        ("unet.down_blocks.1.attentions.1.proj_in", "input_blocks_5_1_proj_in", "IN05"),
        ("unet.down_blocks.2.attentions.1.proj_in", "input_blocks_8_1_proj_in", "IN08"),
        ("unet.down_blocks.3.resnets.1.conv1", "input_blocks_11_0_in_layers_2", "IN11"),
        ("unet.down_blocks.0.downsamplers.0.conv", "input_blocks_3_0_op", "IN03"),
        ("unet.up_blocks.1.attentions.0.proj_in", "output_blocks_3_1_proj_in", "OUT03"),
        ("unet.up_blocks.3.attentions.2.proj_in", "output_blocks_11_1_proj_in", "OUT11"),
        ("unet.up_blocks.0.upsamplers.0.conv", "output_blocks_2_1_conv", "OUT02"),
    ],
)
def test_blocks_are_counted_as_the_original_names_are(module, original, block):
    assert blocks.block_of(module) == block
    assert keys.parse_keys([key := f"lora_unet_{original}.alpha"])[key].module == module
