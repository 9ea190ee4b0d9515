"""Adapters put together and compared, against dense float64 matrices."""

import numpy as np
import pytest

from spf_lora.adapters.combine import combined
from spf_lora.adapters.module import Adapter, Module
from spf_lora.adapters.overlap import overlap, overlaps

LINEAR = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def test_together_they_do_what_each_does_at_its_strength(make_adapter, delta_of):
    first, second = make_adapter(seed=0, ranks=(2, 4)), make_adapter(seed=1, alphas=(1.0, 8.0))
    both = combined([(first, 0.5), (second, -2.0)])
    assert list(both.modules) == sorted(first.modules)
    for name, module in both.modules.items():
        wanted = 0.5 * delta_of(first.modules[name]) - 2.0 * delta_of(second.modules[name])
        # factors are float32
        np.testing.assert_allclose(delta_of(module), wanted, atol=1e-6)


def test_what_only_one_moves_is_moved_by_that_one(make_adapter, delta_of):
    first = make_adapter(seed=0)
    some = Adapter({LINEAR: first.modules[sorted(first.modules)[0]]})
    both = combined([(first, 1.0), (Adapter({}), 1.0)])
    for name, module in both.modules.items():
        np.testing.assert_allclose(delta_of(module), delta_of(first.modules[name]), atol=1e-7)
    assert LINEAR in combined([(some, 1.0)]).modules
    assert combined([(first, 0.0)]).modules == {}


def test_adapters_of_different_shapes_are_refused():
    from spf_lora.errors import AdapterFileError

    wide, narrow = (
        Adapter({LINEAR: Module(LINEAR, np.ones((1, n)), np.ones((2, 1)), 1.0)}) for n in (2, 3)
    )
    with pytest.raises(AdapterFileError, match="of different shapes"):
        combined([(wide, 1.0), (narrow, 1.0)])


def one(down, up):
    down, up = np.asarray(down, np.float32), np.asarray(up, np.float32)
    return Adapter({LINEAR: Module(LINEAR, down, up, float(len(down)))})


def test_an_adapter_meets_itself_wholly_and_its_opposite_with_the_other_sign(make_adapter):
    adapter = make_adapter()
    same = overlap(adapter, adapter)
    assert same.cosine == pytest.approx(1)
    assert same.reads == pytest.approx(1)
    assert same.writes == pytest.approx(1)
    assert same.modules == len(adapter.modules)
    assert overlap(adapter, combined([(adapter, -3.0)])).cosine == pytest.approx(-1)


def test_the_cosine_is_that_of_the_dense_updates(make_adapter, delta_of):
    first, second = make_adapter(seed=0), make_adapter(seed=1)
    flat = [
        np.concatenate([delta_of(adapter.modules[name]).ravel() for name in sorted(first.modules)])
        for adapter in (first, second)
    ]
    wanted = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert overlap(first, second).cosine == pytest.approx(wanted)


def test_reading_apart_and_writing_together_is_told_apart():
    first = one([[1, 0, 0]], [[1], [0]])
    second = one([[0, 1, 0]], [[2], [0]])
    found = overlap(first, second)
    assert (found.cosine, found.reads, found.writes) == pytest.approx((0, 0, 1))
    half = overlap(one([[1, 0, 0], [0, 1, 0]], [[1, 0], [0, 1]]), one([[0, 3, 0]], [[1], [1]]))
    assert half.reads == pytest.approx(1), "the smaller space lies in the larger one"
    assert half.writes == pytest.approx(1)


def test_adapters_that_share_no_module_or_do_nothing_do_not_meet(make_adapter):
    names = sorted(make_adapter().modules)
    apart = overlap(make_adapter(names[:2]), make_adapter(names[2:]))
    assert (apart.cosine, apart.reads, apart.writes, apart.modules) == (0, 0, 0, 0)
    silent = one([[0, 0, 0]], [[0], [0]])
    assert overlap(silent, silent).cosine == 0
    table = overlaps([silent, one([[1, 0, 0]], [[1], [0]])])
    assert [len(row) for row in table] == [2, 2]
