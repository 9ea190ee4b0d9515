"""Stage 2: what it draws samples from, what it minimises, and what it cannot be taught."""

from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from spf_lora.adapters.attach import adapter_at, adapter_off, attach_trainable
from spf_lora.data.cache import TensorCache
from spf_lora.draw.trajectories import Drawing, Lessons, Pair, draw_trajectories
from spf_lora.errors import TrainingError
from spf_lora.training.batch import part_of
from spf_lora.training.distil import (
    BETWEEN,
    HOLD_WEIGHT,
    Curriculum,
    Distil,
    Lesson,
    Shares,
    alike,
    between,
    led_to,
)
from spf_lora.training.pairs import check_pairs

TIMES = torch.tensor([900, 500, 100])


class Told:
    """Trajectories whose numbers say which part of a lesson, which pair and which step they are."""

    times, guidance = TIMES, 3.0
    pairs = (None,) * 5
    maps = tuple(torch.eye(2)[None] * share for share in (1.0, 0.5, 0.0, 1.0, 1.0))

    def lessons(self, pairs, steps):
        at = torch.tensor([10.0 * pair + step for pair, step in zip(pairs, steps, strict=True)])
        parts = range(len(Lessons._fields))
        return Lessons(
            *(100.0 * part + at[:, None, None, None].expand(-1, 4, 2, 2) for part in parts)
        )

    def pictures(self, pairs):
        own = torch.tensor([1000.0 + pair for pair in pairs])[:, None, None, None]
        return own.expand(-1, 4, 2, 2), -own.expand(-1, 4, 2, 2)


NOISY, GUIDED, EMPTY, BASE_NOISY, BASE_EMPTY = range(0, 500, 100)
ALPHAS = torch.linspace(0.99, 0.01, 1000)


@pytest.fixture
def curriculum():
    """Draws from five pairs and nine prompts; states say which, or none."""

    def make(base_prompts=0.25, empty_prompts=0.25, *, seed=0):
        numbers = torch.arange(9.0)[:, None, None].expand(9, 77, 3)
        return Curriculum(
            Told(),
            100 + numbers[:5],
            numbers,
            torch.full((77, 3), -1.0),
            Shares(base_prompts, empty_prompts),
            ALPHAS,
            seed,
            torch.device("cpu"),
        )

    return make


def rows(batch):
    """Return the number of state, noisy and wanted, asks and t of each sample."""
    return list(
        zip(
            batch.states[:, 0, 0].tolist(),
            batch.noisy[:, 0, 0, 0].tolist(),
            batch.wanted[:, 0, 0, 0].tolist(),
            batch.asks.tolist(),
            batch.t.tolist(),
            strict=True,
        )
    )


def pairs_of(batch):
    """Return the pairs of samples that all ask."""
    return [int(state) - 100 for state, *_ in rows(batch)]


def test_each_sample_has_the_state_and_the_latents_of_its_role(curriculum):
    made, seen, prompts, times, pictures = curriculum(), Counter(), set(), [], Counter()
    for index in range(60):
        for state, noisy, wanted, asks, t in rows(made.batch(index, 4)):
            role = "none" if state == -1 else "base" if state < 100 else "full"
            seen[role] += 1
            assert asks == (role == "full")
            if asks:
                assert t in TIMES.tolist()
                continue
            assert wanted == 0, "the frozen model says it"
            times.append(t)
            if role == "base":
                prompts.add(int(state))
            a = ALPHAS[t].item()
            for name, sign in (("own", 1), ("local", -1)):  # of a pair, and noise of about 1
                distance = abs(noisy - a**0.5 * sign * 1000)
                pictures[name] += distance < a**0.5 * 4 + 5 * (1 - a) ** 0.5
    assert seen["full"] == pytest.approx(120, abs=3)
    assert seen["base"] == pytest.approx(60, abs=3)
    assert seen["none"] == pytest.approx(60, abs=3)
    assert prompts == set(range(9)), "base prompts of more than the pairs"
    assert len(set(times)) > 100, "at any time"
    assert pictures["own"] == pytest.approx(60, abs=20)
    assert pictures["own"] + pictures["local"] == len(times)


def test_what_asks_lies_between_the_pictures_of_its_pair_and_at_small_times_on_the_local_one(
    curriculum,
):
    made, shares = curriculum(0.0, 0.0), {t: [] for t in TIMES.tolist()}
    for index in range(60):
        for state, noisy, wanted, _, t in rows(made.batch(index, 4)):
            pair, step = int(state) - 100, TIMES.tolist().index(t)
            share = 1 - (noisy - 10 * pair - step) / BASE_NOISY
            read = Told().lessons([pair], [step])
            expected = between(read, torch.tensor([share]), ALPHAS[[t]], 3.0)
            assert wanted == pytest.approx(expected[1][0, 0, 0, 0].item(), rel=1e-3, abs=1e-2)
            shares[t].append(share)
    assert shares[100] == pytest.approx([1.0] * len(shares[100]), abs=1e-6)
    for t in (900, 500):
        on_it = sum(share > 1 - 1e-6 for share in shares[t]) / len(shares[t])
        assert on_it == pytest.approx(1 - BETWEEN, abs=0.08)
        assert min(shares[t]) < 0.1
        below = [share for share in shares[t] if share < 1 - 1e-6]
        assert sum(below) / len(below) == pytest.approx(0.5, abs=0.08)


def some_lessons():
    torch.manual_seed(0)
    return Lessons(*torch.randn(len(Lessons._fields), 3, 4, 2, 2))


def test_guided_by_what_is_wanted_the_prediction_leads_to_the_local_picture_from_anywhere():
    read, guidance = some_lessons(), 3.0
    share, alphas = torch.tensor([0.0, 0.4, 1.0]), torch.tensor([0.1, 0.5, 0.9])
    noisy, wanted = between(read, share, alphas, guidance)
    r, a = (values[:, None, None, None] for values in (share, alphas))
    empty = read.base_empty + r * (read.empty - read.base_empty)
    guided = empty + guidance * (wanted - empty)
    local = (read.noisy - (1 - a).sqrt() * read.guided) / a.sqrt()
    torch.testing.assert_close((noisy - (1 - a).sqrt() * guided) / a.sqrt(), local)
    torch.testing.assert_close(noisy[0], read.base_noisy[0])
    torch.testing.assert_close(noisy[2], read.noisy[2])
    torch.testing.assert_close(guided[2], read.guided[2])


def test_without_guidance_the_local_pictures_own_prediction_is_wanted():
    read = some_lessons()
    _, wanted = between(read, torch.ones(3), torch.tensor([0.1, 0.5, 0.9]), 1.0)
    torch.testing.assert_close(wanted, read.guided)


def test_every_pair_comes_once_before_any_comes_twice_and_every_step_as_often(curriculum):
    made = curriculum(0.0, 0.0)
    batches = [made.batch(index, 2) for index in range(15)]
    pairs = [pair for batch in batches for pair in pairs_of(batch)]
    assert all(sorted(pairs[i : i + 5]) == list(range(5)) for i in range(0, 30, 5))
    assert pairs[:5] != pairs[5:10], "in another order each time"
    steps = Counter(torch.cat([batch.t for batch in batches]).tolist())
    assert [steps[t] for t in TIMES.tolist()] == pytest.approx([10] * 3, abs=1)


def test_a_steps_samples_follow_from_seed_and_number_alone(curriculum):
    made = curriculum()
    first = rows(made.batch(7, 4))
    made.batch(3, 4)
    assert rows(made.batch(7, 4)) == first == rows(curriculum().batch(7, 4))
    assert rows(curriculum(seed=1).batch(7, 4)) != first
    assert rows(part_of(made.batch(7, 4), slice(1, 3))) == first[1:3]


def lesson(asks, away=(0.0, 0.0)):
    """Return two samples at times 100 and 900, of which one asks, or both, or none."""
    wanted = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 2.0)])
    return Lesson(
        noisy=torch.zeros(2, 1, 2, 2),
        t=torch.tensor([100, 900]),
        states=torch.zeros(2, 77, 3),
        wanted=wanted,
        asks=torch.tensor(asks),
        weights=torch.ones(2, 1, 2, 2),
        away=torch.tensor(away),
    )


def test_inside_and_outside_of_a_map_count_alike_however_small_it_is(curriculum):
    small, large = torch.zeros(2, 1, 8, 8)
    small[..., :1, :4] = 1
    large[..., :4, :] = 1
    for one in (small, large):
        weights = alike(one[None])[0]
        assert (weights * one).sum() == pytest.approx((weights * (1 - one)).sum().item())
        assert weights.mean() == pytest.approx(2)
    flat = alike(torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]))
    assert flat.max() == pytest.approx(1 / 0.98)
    assert flat.min() == flat.max(), "without a place all places count alike"
    made = curriculum(0.3, 0.3)
    for index in range(10):
        lesson = made.batch(index, 4)
        for asks, weights in zip(lesson.asks, lesson.weights, strict=True):
            assert asks or (weights == 1).all()
    assert not (curriculum(0.0, 0.0).batch(0, 4).weights == 1).all()


def test_an_error_counts_by_its_place():
    one = lesson([1.0, 1.0])
    one.weights[0, 0, 0] = 3.0
    outcome = Distil(Answers(0.0, frozen=0.0), torch.ones(1000), Answers.off)(one)
    assert outcome.terms["local"] == pytest.approx((2.0 * 1.0 + 4.0) / 2)


def test_a_slider_goes_forth_without_words_and_back_with_and_without_them(curriculum):
    from dataclasses import replace

    numbers = torch.arange(5.0)[:, None, None].expand(5, 77, 3)
    made, seen = replace(curriculum(0.0, 0.2), worded_states=200 + numbers), Counter()
    for index in range(60):
        batch = made.batch(index, 4)
        for (state, noisy, wanted, asks, t), away in zip(rows(batch), batch.away, strict=True):
            back = bool(away)
            seen["none" if state == -1 else "words" if state >= 200 else "own", back] += 1
            if not (asks and back):
                continue
            pair, step = int(state) % 100, TIMES.tolist().index(t)
            at = 10 * pair + step
            share, a = 1 - (noisy - at) / BASE_NOISY, ALPHAS[t].item()
            empty = at + (1 - share) * BASE_EMPTY + share * EMPTY
            guided = empty + 3.0 * (wanted - empty)
            picture = (noisy - (1 - a) ** 0.5 * guided) / a**0.5
            led = led_to(Told().lessons([pair], [step]), ALPHAS[[t]])[0, 0, 0, 0].item()
            expected = led + Told.maps[pair][0, 0, 0].item() * (1000 + pair - led)
            assert picture == pytest.approx(expected, rel=1e-3), "without it where the two differ"
    assert seen["words", False] == 0
    for kind, count in (("own", True), 48), (("own", False), 96), (("words", True), 48):
        assert seen[kind] == pytest.approx(count, abs=8), kind
    assert min(seen["none", True], seen["none", False]) > 12


def test_what_takes_away_is_predicted_at_strength_minus_one():
    answers = Answers(1.0, frozen=0.0)

    @contextmanager
    def back():
        answers.answer = 2.0
        yield
        answers.answer = 1.0

    objective = Distil(answers, torch.ones(1000), Answers.off, back)
    assert objective(lesson([1.0, 1.0], (0.0, 1.0))).loss == 0
    assert objective(lesson([1.0, 1.0], (1.0, 0.0))).loss > 0


def test_at_strength_minus_one_an_adapter_does_the_opposite(tiny):
    parameters = attach_trainable(tiny.unet, preset="kv", rank=2, alpha=2.0, seed=0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1)
    layer = next(m for name, m in tiny.unet.named_modules() if name.endswith("attn2.to_k"))
    words = torch.ones(1, 2, layer.in_features)
    forth = layer(words)
    with adapter_at(-1.0, tiny.unet):
        back = layer(words)
    with adapter_off(tiny.unet):
        still = layer(words)
    torch.testing.assert_close(forth + back, 2 * still)
    assert not torch.equal(forth, still)
    assert torch.equal(layer(words), forth), "it is put back"


class Answers:
    """A model that predicts one number everywhere, and another while it is frozen."""

    is_off = False

    def __init__(self, answer, *, frozen):
        self.answer, self.frozen = answer, frozen

    def __call__(self, noisy, t, states, return_dict):
        answer = self.frozen if Answers.is_off else self.answer
        return (torch.full_like(noisy, answer),)

    @classmethod
    @contextmanager
    def off(cls):
        cls.is_off = True
        yield
        cls.is_off = False


@pytest.mark.parametrize("asks", [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
def test_the_loss_is_the_error_by_the_weight_of_its_time_and_more_for_what_does_not_ask(asks):
    weights = torch.ones(1000)
    weights[900] = 3.0
    objective = Distil(Answers(0.0, frozen=5.0), weights, Answers.off)
    outcome = objective(lesson(asks))
    errors = [1.0 if asks[0] else 25.0, 3.0 * (4.0 if asks[1] else 25.0)]
    local = sum(e for e, a in zip(errors, asks, strict=True) if a) / 2
    hold = sum(e for e, a in zip(errors, asks, strict=True) if not a) / 2
    assert outcome.terms == {"local": pytest.approx(local), "hold": pytest.approx(hold)}
    assert outcome.loss.item() == pytest.approx(local + HOLD_WEIGHT * hold)
    assert outcome.map_area is None


def test_a_model_that_predicts_what_is_wanted_has_no_loss():
    wanted = lesson([1.0, 0.0])
    wanted.wanted[1] = 0  # of what does not ask the frozen model says it
    objective = Distil(Answers(1.0, frozen=1.0), torch.ones(1000), Answers.off)
    assert objective(wanted).loss == 0
    assert (wanted.wanted[1] == 0).all(), "samples stay as they are"


def drawn(change, area):
    """Stand for pairs that change so much inside maps of such an area."""
    return SimpleNamespace(
        changes=lambda: torch.tensor(change), maps=[torch.full((1, 2, 2), one) for one in area]
    )


def test_pairs_that_differ_within_a_place_can_teach():
    check_pairs(drawn([0.5, 0.6, 0.0], [0.2, 0.3, 0.1]), everywhere=False)
    check_pairs(drawn([0.5, 0.6, 0.7], [1.0, 1.0, 1.0]), everywhere=True)


def test_pairs_that_are_alike_are_refused_with_both_reasons_there_can_be():
    with pytest.raises(TrainingError, match="nothing to distil") as caught:
        check_pairs(drawn([0.01, 0.0, 0.9], [0.2, 0.2, 0.2]), everywhere=False)
    assert "raise learn.steps" in caught.value.hint
    assert "the base draws it in every picture already" in caught.value.hint


def test_pairs_that_differ_everywhere_are_refused_but_for_what_is_meant_so():
    with pytest.raises(TrainingError, match=r"changes the whole picture \(58% of it\)") as caught:
        check_pairs(drawn([0.5] * 3, [0.58] * 3), everywhere=False)
    assert 'attribute.scope = "global"' in caught.value.hint


def test_what_the_base_draws_already_leaves_the_pairs_alike(tiny, tmp_path, tiny_folder):
    """Words that it draws anyway change nothing; here the same words stand for them."""
    from tiny_base import noisy_adapter

    pairs = [Pair("a man", "a man", seed) for seed in range(2)]
    found = draw_trajectories(
        tiny,
        noisy_adapter(tiny_folder),
        pairs,
        Drawing(1, 3.0, (8, 8)),
        cache=TensorCache(tmp_path),
    )
    with pytest.raises(TrainingError, match="hardly changes the base's pictures"):
        check_pairs(found, everywhere=False)
