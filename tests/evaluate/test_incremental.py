"""What a stack's numbers follow from, and that they come from the right pictures."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up import made_up

from spf_lora.adapters.module import Adapter, Module
from spf_lora.data.worlds.portraits import ATTRIBUTES
from spf_lora.draw.sample import Sampling
from spf_lora.errors import MeasureError
from spf_lora.evaluate.incremental import (
    Learned,
    StackProtocol,
    asking_for,
    chosen_orders,
    groups,
    measure_incremental,
)
from spf_lora.evaluate.incremental_result import Incremental
from spf_lora.evaluate.report.incremental_plot import draw_plot

NAME = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"


GOOD = made_up([[0.9, 0.85], [None, 0.8]], [[0.2, 0.24], [None, 0.22]])


def test_forgetting_is_the_best_response_less_the_last():
    order = made_up([[0.9, 0.5], [None, 0.8]], [[0.2, 0.4], [None, 0.2]]).orders[0]
    assert order.lost() == pytest.approx([0.4, 0])
    assert order.forgetting == pytest.approx(0.2)
    assert made_up([[0.5, 0.9], [None, 0.8]], [[0, 0], [None, 0]]).orders[0].forgetting == 0


def test_the_slope_is_what_each_adapter_adds_to_the_mean_pollution():
    order = made_up([[0.9, 0.9], [None, 0.8]], [[0.2, 0.4], [None, 0.2]]).orders[0]
    assert order.mean_pollution() == pytest.approx([0.2, 0.3])
    assert order.slope == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("found", "failing"),
    [
        (GOOD, []),
        (made_up([[0.9, 0.8], [None, 0.8]], [[0.2, 0.2], [None, 0.2]]), ["kept"]),
        (
            made_up([[0.9, 0.9], [None, 0.8]], [[0.2, 0.2], [None, 0.2]], (("a", "b", 0.9, 0.69),)),
            ["together"],
        ),
        (made_up([[0.9, 0.9], [None, 0.8]], [[0.2, 0.27], [None, 0.2]]), ["clean"]),
        (made_up([[0.9, 0.9], [None, 0.8]], [[0.2, 0.2], [None, 0.2]], ()), []),
    ],
)
def test_a_check_fails_where_its_limit_is_passed_and_names_the_worst(found, failing):
    assert [one.name for one in found.checks() if not one.passed] == failing
    assert all(one.worst in ("a", "b", "a + b") for one in found.checks())


def test_the_json_holds_the_matrices_and_what_follows_from_them():
    table = json.loads(GOOD.to_json())
    assert table["orders"][0]["response"][1][0] is None
    assert table["orders"][0]["response"][0][1]["value"] == 0.85
    assert table["orders"][0]["forgetting"] == pytest.approx(0.025)
    assert [one["passed"] for one in table["checks"]] == [True, True, True]


def test_the_plot_is_valid_and_shows_every_number_and_no_markup_of_a_name():
    text = draw_plot(GOOD)
    shown = [one.text for one in ElementTree.fromstring(text).iter() if one.text]
    assert {"0.85", "0.24", "0.80", "0.90", "0.10"} <= set(shown)
    order = GOOD.orders[0]
    evil = Incremental(**{**vars(GOOD), "name": "<script>", "orders": (order,)})
    assert "<script>" not in draw_plot(evil)


def test_orders_differ_and_begin_with_the_one_given():
    found = chosen_orders(4, 3)
    assert found[:2] == [(0, 1, 2, 3), (3, 2, 1, 0)]
    assert len(set(found)) == 3
    assert chosen_orders(4, 3) == found
    assert len(chosen_orders(2, 9)) == 2
    assert len(chosen_orders(8, 5)) == 5


def learned(*attributes):
    return [Learned(one, one, adapter(at)) for at, one in enumerate(attributes)]


def adapter(seed):
    """An adapter of the tiny base that changes pictures."""
    rng = np.random.default_rng(seed)
    down, up = rng.normal(size=(2, 24)), rng.normal(size=(16, 2))
    return Adapter({NAME: Module(NAME, down.astype("f4"), (0.5 * up).astype("f4"), 2.0)})


def test_what_excludes_each_other_is_not_asked_for_together():
    found = groups(learned("beard", "moustache", "glasses", "hat", "blonde-hair"))
    assert (0, 1) not in found, "one face has a beard or a moustache"
    assert (3, 4) not in found, "a hat hides the hair"
    assert (0, 2) in found
    assert found[-1] == (0, 2, 3)
    assert groups(learned("beard")) == []


def test_a_prompt_asks_for_several_attributes_each_in_its_place():
    prompt = "a portrait of a person, pale skin, red hair, a bob"
    assert asking_for(prompt, ["beard", "blonde-hair"]) == (
        "a portrait of a person, pale skin, blonde hair, a bob, a beard"
    )
    assert asking_for(prompt, []) == prompt


@pytest.fixture(scope="module")
def run(still, tmp_path_factory):
    """Measure a stack of the tiny base on two people, with two steps a picture."""
    base, gallery = still, tmp_path_factory.mktemp("gallery")

    def measure(parts, **how):
        protocol, rest = {}, {}
        for name, value in how.items():
            (protocol if name in ("orders", "exact", "local") else rest)[name] = value
        protocol = StackProtocol(prompts=2, seeds=1, **protocol)
        sampling = Sampling(steps=2)
        return measure_incremental(
            base, parts, protocol, gallery=gallery, sampling=sampling, **rest
        )

    return measure


@pytest.fixture(scope="module")
def measured(run):
    """A loud adapter and a silent one, in both orders, and what was told meanwhile."""
    said = []
    loud, silent = learned("beard", "hat")
    parts = [loud, Learned("hat", "hat", silent.adapter, strength=0.0)]
    return run(parts, orders=2, name="pair", tell=said.append), said


def test_every_cell_is_measured_once_with_the_right_adapters_on(measured):
    found, said = measured
    assert sorted(one for one in said if "with" in one) == [
        "measuring beard with beard on",
        "measuring beard with beard, hat on",
        "measuring hat with beard, hat on",
        "measuring hat with hat on",
    ]
    first, second = found.orders
    assert (first.names, second.names) == (("beard", "hat"), ("hat", "beard"))
    assert first.response[0][0] == found.alone[0]
    assert first.response[0][1] == second.response[1][1], "the whole stack, in whatever order"
    assert first.response[1][0] is None
    assert first.pollution[0][0].value > 0.03
    assert [one.names for one in found.together] == [("beard", "hat")]
    assert found.overlap[0][0]["cosine"] == pytest.approx(1)
    json.loads(found.to_json())


def test_an_adapter_that_does_nothing_leaves_everything_as_it_is_without_it(measured):
    found, _ = measured
    first, second = found.orders
    # the same picture drawn beside others differs by rounding
    assert second.leakage[0].value == pytest.approx(0, abs=1e-3)
    assert found.alone[1].value == pytest.approx(found.control[1].value, abs=1e-3)
    assert first.leakage[1].value == pytest.approx(first.leakage[0].value, abs=1e-3)
    assert first.response[0][1].value == pytest.approx(first.response[0][0].value, abs=1e-3)
    assert first.leakage[0].value > 0.03


def test_what_acts_on_its_words_alone_answers_as_it_does_alone_and_leaks_nothing(run):
    found = run(learned("beard", "hat"), exact=True)
    order = found.orders[0]
    assert order.leakage[-1].value == pytest.approx(0, abs=1e-3)  # a batch of others rounds so
    for at in (0, 1):
        alone = found.alone_pollution[at], found.alone[at]
        for now, then in zip((order.pollution[at][-1], order.response[at][-1]), alone, strict=True):
            assert now.value == pytest.approx(then.value, abs=1e-3)
    assert found.alone_pollution[0].value > 0.03
    assert found.sampler["runtime"] == "exact"


def test_what_acts_where_it_answers_leaks_nothing_and_pollutes_less(run, measured):
    found, added = run(learned("beard", "hat"), local=True), measured[0]
    assert found.orders[0].leakage[-1].value == 0
    assert found.alone_pollution[0].value < added.alone_pollution[0].value
    assert found.control == added.control
    assert found.orders[0].pollution[0][-1] != added.orders[0].pollution[0][-1]
    assert found.sampler["runtime"] == "local"


def test_what_cannot_be_measured_is_refused(run):
    with pytest.raises(MeasureError, match="there is no adapter"):
        run([])
    with pytest.raises(MeasureError, match="taught by more than one"):
        run([*learned("beard"), *learned("beard")])
    with pytest.raises(MeasureError, match="cannot judge 'tattoo'"):
        run([Learned("x", "tattoo", adapter(0))])
    assert "tattoo" not in ATTRIBUTES
