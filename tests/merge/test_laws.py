"""The laws of merging, against a dense float64 reference."""

import itertools

import numpy as np
import pytest
from merging import NAMES, cut, delta, distance, make, truth

from spf_lora.adapters import sd15
from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter
from spf_lora.adapters.number_formats import effective_up
from spf_lora.merge import execute
from spf_lora.merge.lowrank import nearest

# all is written in fp32, so each factor is off by 2^-24 at most and a product by some of them
FP32 = 1e-6
# the rounding of one factor to fp16 is 2^-11 of it at most; both are rounded
FP16 = 2**-10


def three():
    return [
        make(0, ranks=4, alpha=2.0),
        make(1, ranks=(2, 8, 3), alpha=(8.0, 1.0), names=NAMES[:5]),
        make(2, ranks=6, alpha=6.0, names=NAMES[1:]),
    ]


def test_concat_is_the_exact_sum_for_any_ranks_alphas_and_kinds_of_module(merged):
    weights = [1.0, 0.8, -0.5]
    result, done = merged(three(), weights)
    assert distance(result.modules, truth(three(), weights)) < FP32
    assert done.relative_error == 0
    assert result.modules[NAMES[0]].rank == 4 + 2
    assert result.modules[NAMES[1]].rank == 4 + 8 + 6
    assert len({one.alpha for one in result.modules.values()}) == 1


@pytest.mark.parametrize("stored", ["fp16", "bf16", "fp32"])
def test_one_adapter_at_weight_1_is_itself(merged, stored, tmp_path):
    for adapter in (make(0), make(1, ranks=(2, 8, 3), alpha=(8.0, 1.0))):
        result, _ = merged([adapter], stored=stored)
        source = read_adapter(sorted(tmp_path.glob("in*"))[-1])
        assert content_id(result) == content_id(source)
        beside, _ = merged([adapter, make(2)], [1.0, 0.0], stored=stored)
        assert content_id(beside) == content_id(source)


def test_one_adapter_at_weight_1_is_itself_for_svd_at_full_rank(merged):
    result, done = merged([make(0)], method="svd", rank=4)
    assert distance(result.modules, truth([make(0)], [1.0])) < FP32
    assert done.relative_error < FP32


@pytest.mark.parametrize(
    "settings",
    [{}, {"method": "svd", "rank": 5}, {"method": "orthogonal"}, {"method": "ties", "rank": 5}],
)
def test_weights_scale_linearly(merged, settings):
    once, _ = merged(three(), [1.0, 0.8, -0.5], **settings)
    thrice, _ = merged(three(), [3.0, 2.4, -1.5], **settings)
    expected = {name: 3 * delta(module) for name, module in once.modules.items()}
    assert distance(thrice.modules, expected) < 10 * FP32


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "svd", "rank": 5},
        {"method": "average"},
        {"method": "ties", "rank": 5},
        {"method": "dare", "rank": 5},
    ],
)
def test_order_does_not_matter(merged, settings):
    adapters, weights = three(), [1.0, 0.8, -0.5]
    results = [
        merged([adapters[at] for at in order], [weights[at] for at in order], **settings)[0]
        for order in itertools.permutations(range(3))
    ]
    first = {name: delta(module) for name, module in results[0].modules.items()}
    assert all(distance(one.modules, first) < 10 * FP32 for one in results[1:])


def test_svd_is_the_best_approximation_and_tells_its_error(merged):
    weights = [1.0, 0.8, -0.5]
    whole = truth(three(), weights)
    for rank in (1, 3, 8):
        result, done = merged(three(), weights, method="svd", rank=rank)
        best = {name: cut(one, rank) for name, one in whole.items()}
        assert distance(result.modules, best) < 10 * FP32
        norm = np.sqrt(sum(np.sum(one**2) for one in whole.values()))
        optimum = np.sqrt(sum(np.sum((best[name] - one) ** 2) for name, one in whole.items()))
        assert done.relative_error == pytest.approx(optimum / norm, rel=1e-6)
        assert distance(result.modules, whole) == pytest.approx(optimum / norm, rel=1e-4)


def test_energy_keeps_no_more_than_is_needed(merged):
    whole = truth(three(), [1.0] * 3)
    result, done = merged(three(), method="svd", energy=0.9)
    for name, module in result.modules.items():
        kept = np.sum(delta(module) ** 2) / np.sum(whole[name] ** 2)
        less = np.sum(cut(whole[name], module.rank - 1) ** 2) / np.sum(whole[name] ** 2)
        assert less < 0.9 <= kept + FP32
    assert done.relative_error <= 0.1**0.5


def test_a_merge_of_parts_is_the_merge_of_all(merged):
    first, second, third = three()
    part, _ = merged([first, second], [1.0, 0.8])
    stepwise, _ = merged([part, third], [1.0, -0.5])
    assert distance(stepwise.modules, truth(three(), [1.0, 0.8, -0.5])) < FP32


def test_merged_and_split_by_weights_agrees(merged):
    """What was added at 0.8 and then at -0.8 leaves the other adapter."""
    first, second, _ = three()
    both, _ = merged([first, second], [1.0, 0.8])
    split, _ = merged([both, second], [1.0, -0.8])
    assert distance(split.modules, truth([first], [1.0])) < FP32
    back, done = merged([both, second], [1.0, -0.8], method="svd", rank=4)
    assert distance(back.modules, truth([first], [1.0])) < 10 * FP32
    assert done.relative_error < 10 * FP32


@pytest.mark.parametrize("settings", [{}, {"method": "svd", "rank": 8}])
def test_fp16_in_and_out_stays_within_fp16_rounding_of_the_truth(merged, settings, tmp_path):
    result, _ = merged(three(), [1.0, 0.8, -0.5], stored="fp16", **settings)
    read = [read_adapter(path) for path in sorted(tmp_path.glob("in*"))]
    whole = truth(read, [1.0, 0.8, -0.5])
    if settings:
        whole = {name: cut(one, 8) for name, one in whole.items()}
    assert {module.up.dtype for module in result.modules.values()} == {np.dtype("<f2")}
    assert distance(result.modules, whole) < FP16


def test_the_result_is_wider_where_the_formats_differ(merged):
    result, _ = merged([make(0)], stored="fp16", dtype="fp32")
    assert {module.up.dtype for module in result.modules.values()} == {np.dtype("<f4")}


def test_average_is_the_sum_with_weights_that_add_up_to_one(merged):
    result, done = merged(three(), [2.0, 1.0, 1.0], method="average")
    assert distance(result.modules, truth(three(), [0.5, 0.25, 0.25])) < FP32
    assert done.relative_error == 0
    same, _ = merged([make(0), make(0)], [1.0, 3.0], method="average")
    assert distance(same.modules, truth([make(0)], [1.0])) < FP32


def test_block_weights_multiply_the_blocks_they_name(merged):
    lists = [",".join(["0", *"1" * 25]), ",".join(["0.5"] * 26)]
    result, _ = merged([make(0), make(1)], block_weights=lists)
    whole = truth([make(0), make(1)], [1.0, 0.5])
    text = NAMES[-1]
    whole[text] = 0.5 * delta(make(1).modules[text])
    assert distance(result.modules, whole) < FP32


def test_a_merge_of_many_adapters_is_still_exact(merged):
    adapters = [make(seed, ranks=3) for seed in range(30)]
    weights = list(np.linspace(-1, 1, 30))
    result, _ = merged(adapters, weights, method="svd", rank=6)
    best = {name: cut(one, 6) for name, one in truth(adapters, weights).items()}
    # by the Gram matrix: directions nearly as strong as the last one kept may be exchanged
    assert distance(result.modules, best) < 1e-5


def test_orthogonal_leaves_earlier_adapters_their_inputs(merged):
    first, second, third = three()
    result, done = merged([first, second, third], method="orthogonal")
    for name, module in first.modules.items():
        read = np.asarray(module.down, np.float64).reshape(module.rank, -1)
        merged_there = delta(result.modules[name]) @ read.T
        alone = delta(module) @ read.T
        assert np.allclose(merged_there, alone, atol=1e-4 * np.abs(alone).max())
    assert done.taken[0] == (pytest.approx(done.taken[0][0]), 0.0)
    assert done.taken[1][1] > 0
    change = sum(
        np.sum((delta(second.modules[name]) - _left(second, first, name)) ** 2)
        for name in second.modules
    )
    assert done.taken[1][1] == pytest.approx(np.sqrt(change), rel=1e-5)


def _left(later, earlier, name):
    down = np.asarray(earlier.modules[name].down, np.float64).reshape(
        earlier.modules[name].rank, -1
    )
    span = np.linalg.svd(down, full_matrices=False)[2]
    return delta(later.modules[name]) @ (np.eye(span.shape[1]) - span.T @ span)


def test_orthogonal_takes_all_from_a_copy_and_nothing_from_what_is_orthogonal(merged):
    _, done = merged([make(0), make(0)], method="orthogonal")
    norm, lost = done.taken[1]
    assert lost == pytest.approx(norm, rel=1e-6)
    one = make(0, names=NAMES[:1])
    (module,) = one.modules.values()
    read = np.linalg.svd(np.asarray(module.down, np.float64))[2]
    apart = Adapter(
        {module.name: type(module)(module.name, read[8:10].astype(np.float32), module.up[:, :2], 1)}
    )
    _, done = merged([one, apart], method="orthogonal")
    assert done.taken[1][1] < 1e-5 * done.taken[1][0]


def test_ties_is_trim_elect_and_mean_of_those_that_agree(merged):
    adapters, weights, density = three(), [1.0, 0.8, 1.2], 0.3
    result, done = merged(adapters, weights, method="ties", rank=20, density=density)
    expected = {}
    for name in sorted({name for one in adapters for name in one.modules}):
        changes = []
        for one, weight in zip(adapters, weights, strict=True):
            if name in one.modules:
                change = weight * delta(one.modules[name])
                order = np.argsort(-np.abs(change), axis=None)
                mask = np.zeros(change.size, bool)
                mask[order[: int(np.ceil(density * change.size))]] = True
                changes.append(np.where(mask.reshape(change.shape), change, 0))
        stacked = np.stack(changes)
        agrees = (np.sign(stacked.sum(0)) == np.sign(stacked)) & (stacked != 0)
        expected[name] = (stacked * agrees).sum(0) / np.maximum(agrees.sum(0), 1)
    best = {name: cut(one, 20) for name, one in expected.items()}
    assert distance(result.modules, best) < 1e-5
    assert done.relative_error == pytest.approx(distance_of(best, expected), rel=1e-5)


def distance_of(found, reference):
    error = sum(np.sum((found[name] - one) ** 2) for name, one in reference.items())
    return np.sqrt(error / sum(np.sum(one**2) for one in reference.values()))


def test_ties_of_one_adapter_at_full_density_is_itself(merged):
    result, _ = merged([make(0)], method="ties", rank=4, density=1.0)
    assert distance(result.modules, truth([make(0)], [1.0])) < FP32


def test_dare_is_seeded_and_right_on_average(merged):
    pair = [make(0, names=NAMES[:1]), make(1, names=NAMES[:1])]
    one, _ = merged(pair, method="dare", rank=20, seed=3)
    again, _ = merged(pair, method="dare", rank=20, seed=3)
    other, _ = merged(pair, method="dare", rank=20, seed=4)
    assert content_id(one) == content_id(again)
    assert content_id(one) != content_id(other)
    drawn = [merged(pair, method="dare", rank=20, seed=seed)[0] for seed in range(40)]
    mean = sum(delta(one.modules[NAMES[0]]) for one in drawn) / len(drawn)
    whole = truth(pair, [1.0, 1.0])[NAMES[0]]
    # 40 draws at density 1/2 leave a noise of 1/sqrt(40) of the terms' own norm
    assert np.linalg.norm(mean - whole) < 1.5 / np.sqrt(40) * np.linalg.norm(whole)
    full, _ = merged(pair, method="dare", rank=8, density=1.0)
    assert distance(full.modules, truth(pair, [1.0, 1.0])) < FP32


def test_a_linear_layer_and_a_1x1_convolution_are_the_same_module(merged):
    conv = make(0, names=(NAMES[2],))
    (module,) = make(1, names=(NAMES[2],)).modules.values()
    flat = Adapter(
        {
            module.name: type(module)(
                module.name, module.down[:, :, 0, 0], module.up[:, :, 0, 0], 2.0
            )
        }
    )
    result, _ = merged([conv, flat])
    assert result.modules[NAMES[2]].down.ndim == 4
    assert distance(result.modules, truth([conv, flat], [1.0, 1.0])) < FP32


def test_the_scale_of_no_factor_falls_under_what_fp16_can_hold(merged):
    small = make(0, alpha=0.01)
    result, _ = merged([small, make(1)], stored="fp16", method="concat")
    for module in result.modules.values():
        assert np.abs(effective_up(module)).max() > 0
        assert np.abs(np.asarray(module.up, np.float64)).max() < 65504
    # alpha / rank is 1/400: stored with the other's alpha, its `up` would lose bits
    assert distance(result.modules, truth([small, make(1)], [1.0, 1.0])) < 2 * FP16


def test_orthogonal_has_nothing_left_to_give_once_every_direction_is_taken(merged):
    adapters = [make(seed, ranks=8, names=NAMES[:1]) for seed in range(6)]
    result, done = merged(adapters, method="orthogonal")
    norm, lost = done.taken[5]
    # 28 inputs, of which the first four adapters take 8, 8, 8 and 4
    assert lost == pytest.approx(norm, rel=1e-6)
    assert done.taken[3][1] < done.taken[3][0]
    assert result.modules[NAMES[0]].rank == 48


@pytest.mark.parametrize(
    ("out", "total", "into"),
    [(40, 8, 30), (40, 18, 30), (40, 60, 30), (30, 60, 40), (200, 60, 30), (30, 60, 200)],
)
@pytest.mark.parametrize("settings", [{"rank": 5, "energy": None}, {"rank": None, "energy": 0.7}])
def test_every_way_to_the_nearest_matrix_finds_the_same(out, total, into, settings):
    rng = np.random.default_rng(total)
    up, down = (
        rng.normal(size=(out, total)) / (1 + np.arange(total)),
        rng.normal(size=(total, into)),
    )
    near = nearest(up, down, **settings)
    whole = up @ down
    best = cut(whole, near.up.shape[1])
    # from a Gram matrix, half of the digits of float64 are left
    assert np.allclose(near.up @ near.down, best, atol=1e-7 * np.linalg.norm(whole))
    assert near.norm == pytest.approx(np.linalg.norm(whole))
    assert near.error == pytest.approx(np.linalg.norm(whole - best), rel=1e-6)
    assert np.allclose(np.linalg.norm(near.up, axis=0), np.linalg.norm(near.down, axis=1))


def test_workers_side_by_side_do_not_read_each_others_bytes(merged, monkeypatch):
    names = [name for name in sd15.kohya_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    adapters = [make(seed, names=names) for seed in range(12)]
    best = {name: cut(one, 3) for name, one in truth(adapters, [1.0] * 12).items()}
    monkeypatch.setattr(execute, "_workers", lambda: 8)
    for _ in range(3):
        result, _ = merged(adapters, method="svd", rank=3)
        assert distance(result.modules, best) < 1e-5
