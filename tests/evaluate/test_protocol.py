import pytest

from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS, training_set
from spf_lora.errors import DataError, PromptError
from spf_lora.evaluate.protocol import (
    Case,
    cases_of,
    check_lengths,
    held_out_cases,
    other_seed,
    prompt_seeds,
    read_prompts,
)
from spf_lora.recipe.schema import Attribute

BEARD = Attribute(name="beard", target_text="a beard", aliases=("bearded",))
BLONDE = Attribute(name="blonde-hair", target_text="blonde hair", replaces=("red hair",))


def test_full_and_base_prompt_of_held_out_people_differ_by_the_attribute_alone() -> None:
    for case in held_out_cases("beard", prompts=12, seeds=1):
        assert case.prompt == f"{case.base_prompt}, a beard"


def test_a_replacing_attribute_stands_in_its_factors_place() -> None:
    for name in ("blonde-hair", "hat", "sunglasses"):
        drawn = ATTRIBUTES[name]
        given_way = {phrase for phrase, _ in FACTORS[str(drawn.replaces)].values()}
        named = 0
        for case in held_out_cases(name, prompts=12, seeds=1):
            asked, plain = case.prompt.split(", "), case.base_prompt.split(", ")
            rest = [phrase for phrase in plain if phrase not in given_way]
            assert [phrase for phrase in asked if phrase != drawn.target_text] == rest
            assert asked.count(drawn.target_text) == 1
            named += len(plain) - len(rest)
        assert named > 4


def test_held_out_people_are_the_same_every_time_and_in_no_training_set() -> None:
    cases = held_out_cases("beard", prompts=40, seeds=4)
    assert cases == held_out_cases("beard", prompts=40, seeds=4)
    assert cases[:5] == held_out_cases("beard", prompts=5, seeds=4)
    captions = {row[1] for row in training_set("beard", count=64, seed=0)}
    assert not captions & {case.prompt for case in cases}


def test_a_prompt_names_the_share_of_phrases_that_is_asked_for() -> None:
    for coverage, phrases in ((1.0, 10), (0.5, 5), (0.0, 1)):
        case = held_out_cases("beard", prompts=1, seeds=1, coverage=coverage)[0]
        assert case.base_prompt.count(",") + 1 == phrases


def test_no_two_prompts_share_a_seed_and_the_other_seed_is_never_ones_own() -> None:
    for count in (1, 2, 3, 4):
        seeds = [prompt_seeds(i, count) for i in range(50)]
        assert len({s for row in seeds for s in row}) == 50 * count
        for row in seeds:
            for index in range(count):
                three = {row[index], other_seed(row, index), other_seed(row, index, 2)}
                assert len(three) == 3


def test_a_users_prompt_gets_the_attribute_once_whether_it_names_it_or_not() -> None:
    named, plain = cases_of(["a man, a beard", "a woman, red hair"], BEARD, seeds=1)
    assert (named.prompt, named.base_prompt) == ("a man, a beard", "a man")
    assert (plain.prompt, plain.base_prompt) == ("a woman, red hair, a beard", "a woman, red hair")
    replaced = cases_of(["a woman, red hair"], BLONDE, seeds=1)[0]
    assert replaced.prompt == "a woman, blonde hair"


def test_a_prompt_that_is_only_the_attribute_is_refused() -> None:
    with pytest.raises(PromptError, match="nothing else"):
        cases_of(["a beard"], BEARD)


def test_prompts_are_read_line_by_line_without_comments(tmp_path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff# people\n a man \n\r\n a womän\n".encode())
    assert read_prompts(file) == ["a man", "a womän"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds no prompt"),
        (b"# only a comment\n\n", "holds no prompt"),
        (b"a man\n" + b"x" * 1001, "line 2 .* has 1001 letters"),
        (b"a man\n\na woman\na man\n", "line 4 .* repeats line 1"),
        (b"a man \xff\xfe", "cannot be read"),
        (b"\n".join(b"%d" % i for i in range(10_001)), "holds 10001 prompts"),
    ],
)
def test_a_file_of_prompts_that_cannot_be_used_is_refused(tmp_path, content, what) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=what):
        read_prompts(file)


def test_a_missing_file_of_prompts_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")


def test_a_prompt_whose_attribute_would_be_cut_off_is_refused(still) -> None:
    fits = Case(" ".join(["hair"] * 75), "hair", (1,))
    check_lengths(still.tokenizer, [fits])
    long = Case(" ".join(["hair"] * 75) + ", blonde hair", "hair", (1,))
    with pytest.raises(PromptError, match=r"prompt 2 is longer .* 'blonde hair'"):
        check_lengths(still.tokenizer, [fits, long])
