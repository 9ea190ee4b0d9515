"""What merging costs: nothing where nothing was merged, and the rest is told."""

import numpy as np
import pytest

from spf_lora.adapters.combine import combined
from spf_lora.adapters.module import Adapter, Module
from spf_lora.errors import MeasureError
from spf_lora.evaluate.merge_retention import Kept, Part, measure_kept
from spf_lora.evaluate.result import Figure

NAME = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"


def row(*values):
    figures = [Figure(value, value, value, 4) for value in values]
    return Kept("a", "beard", tuple(figures[:2]), tuple(figures[2:4]), tuple(figures[2:4]))


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ((0.8, 0.8, 0.2, 0.2), True),
        ((0.8, 0.73, 0.2, 0.25), True),
        ((0.8, 0.71, 0.2, 0.2), False),
        ((0.8, 0.9, 0.2, 0.27), False),
        ((0.0, 0.0, 0.0, 0.0), True),
    ],
)
def test_a_part_passes_that_kept_its_response_and_did_not_get_dirtier(values, passed):
    assert row(*values).passed is passed


def test_what_was_not_changed_measures_the_same_and_what_was_does_not(tiny, tmp_path):
    rng = np.random.default_rng(0)
    down, up = rng.normal(size=(2, 24)), 0.5 * rng.normal(size=(16, 2))
    adapter = Adapter({NAME: Module(NAME, down.astype("f4"), up.astype("f4"), 2.0)})
    said = []
    for merged, same in ((adapter, True), (combined([(adapter, 3.0)]), False)):
        (found,) = measure_kept(
            tiny,
            [Part("mine", "beard", adapter)],
            merged,
            gallery=tmp_path,
            prompts=2,
            steps=2,
            tell=said.append,
        )
        assert (found.pollution[0] == found.pollution[1]) is same
        assert (found.leakage[0] == found.leakage[1]) is same
        assert found.pollution[0].value > 0
    assert said[0] == "drawing beard with mine alone, and with all of them"
    with pytest.raises(MeasureError, match="cannot judge 'tattoo'"):
        measure_kept(tiny, [Part("x", "tattoo", adapter)], adapter, gallery=tmp_path)
