"""A recipe is frozen, typed and strict: all its faults are told at once, with file and key."""

import dataclasses
from pathlib import Path

import pytest

from spf_lora.adapters.format.card import Card
from spf_lora.errors import RecipeError
from spf_lora.recipe.files import find_recipe, list_recipes, locate_recipe
from spf_lora.recipe.load import load_recipe, parse_override, recipe_hash, recipe_to_dict
from spf_lora.recipe.schema import SECTIONS, Recipe
from spf_lora.shipped import shipped_folder

SMALLEST = 'profile = "embedded"\n[attribute]\nname = "scar"\ntarget_text = "a scar"\n'


@pytest.fixture
def scar(tmp_path: Path) -> Path:
    path = tmp_path / "scar.toml"
    path.write_text(SMALLEST)
    return path


def write(path: Path, more: str) -> Path:
    path.write_text(SMALLEST + more)
    return path


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_every_recipe_that_ships_loads_and_is_named_after_its_attribute(name: str) -> None:
    recipe = load_recipe(list_recipes()[name])
    assert recipe.attribute.name == name
    assert recipe.profile == "embedded"


def test_the_six_attributes_of_the_portrait_world_have_recipes() -> None:
    six = {"beard", "moustache", "glasses", "sunglasses", "hat", "blonde-hair"}
    assert six <= set(list_recipes())


def test_a_recipe_teaches_what_the_portrait_world_draws() -> None:
    from spf_lora.data.worlds.portraits import ATTRIBUTES, FACTORS

    for name, drawn in ATTRIBUTES.items():
        attribute = load_recipe(find_recipe(name)).attribute
        assert attribute.target_text == drawn.target_text
        given_way = FACTORS[drawn.replaces].values() if drawn.replaces else ()
        assert set(attribute.replaces) == {phrase for phrase, _ in given_way}


def test_a_profile_names_every_key_of_every_section_it_may() -> None:
    import tomllib

    for path in (shipped_folder("recipes") / "profiles").glob("*.toml"):
        table = tomllib.loads(path.read_text())
        for section in set(SECTIONS) - {"attribute"}:
            names = {field.name for field in dataclasses.fields(SECTIONS[section])}
            assert set(table[section]) == names, f"[{section}] of {path.name}"


def test_a_recipe_is_frozen(scar: Path) -> None:
    recipe = load_recipe(scar)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        recipe.adapter.rank = 4  # type: ignore[misc]


def test_the_file_wins_over_its_profile_and_an_override_over_the_file(scar: Path) -> None:
    write(scar, "[adapter]\nrank = 4\n[learn]\nsteps = 10\n")
    recipe = load_recipe(scar, ["learn.steps=20", "learn.steps=30"])
    assert (recipe.adapter.rank, recipe.learn.steps) == (4, 30)
    assert recipe.distil == load_recipe(find_recipe("beard")).distil, "the profile says the rest"


def test_a_profile_beside_the_recipe_is_found_first(scar: Path) -> None:
    (scar.parent / "profiles").mkdir()
    (scar.parent / "profiles" / "embedded.toml").write_text("[adapter]\nrank = 3\n")
    recipe = load_recipe(scar)
    assert recipe.adapter.rank == 3
    assert recipe.data.batch_size == 8, "a key that nobody names has its default"


def test_a_whole_number_does_for_a_number(scar: Path) -> None:
    alpha = load_recipe(write(scar, "[adapter]\nalpha = 4\n")).adapter.alpha
    assert (alpha, type(alpha)) == (4.0, float)


def test_equal_recipes_have_equal_hashes_wherever_the_values_come_from(scar: Path) -> None:
    by_option = load_recipe(scar, ["optimizer.learning_rate=1e-4", "adapter.alpha=4"])
    by_file = write(scar, "[adapter]\nalpha = 4.0\n[optimizer]\nlearning_rate = 0.0001 # slow\n")
    assert recipe_hash(load_recipe(by_file)) == recipe_hash(by_option)


def test_a_recipe_and_the_card_of_what_it_trains_have_one_hash(scar: Path) -> None:
    recipe = load_recipe(scar)
    card = Card("scar", "a scar", "a scar", "base", recipe=recipe_to_dict(recipe))
    assert recipe_hash(recipe) == card.recipe_hash


def test_every_value_that_differs_gives_another_hash(scar: Path) -> None:
    changes = ["adapter.rank=4", "training.seed=1", 'attribute.aliases=["scar"]', "distil.steps=0"]
    hashes = {recipe_hash(load_recipe(scar, [change])) for change in changes}
    assert len(hashes | {recipe_hash(load_recipe(scar))}) == len(changes) + 1


def test_the_dictionary_holds_what_json_reads_back(scar: Path) -> None:
    import json

    plain = recipe_to_dict(load_recipe(scar))
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("learn.steps=5", 5),
        ("learn.steps = 5", 5),
        ("learn.steps=0.5", 0.5),
        ("learn.steps=kv", "kv"),
        ('learn.steps="5"', "5"),
        ("learn.steps=a beard", "a beard"),
        ("learn.steps=[0.9, 0.99]", [0.9, 0.99]),
        ("learn.steps=1\nprofile = 2", "1\nprofile = 2"),
        ("learn.steps=a=b", "a=b"),
    ],
)
def test_an_override_is_read_as_toml_or_else_as_text(text: str, value: object) -> None:
    assert parse_override(text) == ("learn.steps", value)


@pytest.mark.parametrize("text", ["learn.steps", "=5", ""])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="is not of the form key=value") as caught:
        parse_override(text)
    assert "--set distil.pairs=64" in caught.value.hint


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("[distil]\npars = 9\n", r"distil.pars is not a known key; did you mean pairs\?"),
        ("[distill]\nsteps = 1\n", r"distill is not a known section; did you mean distil\?"),
        ("[learn]\nsteps = -1\n", r"learn.steps is -1, but must be at least 0"),
        ("[learn]\nsteps = 1.5\n", r"learn.steps must be a whole number, not the number 1.5"),
        ("[learn]\nsteps = true\n", r"learn.steps must be a whole number, not the switch True"),
        ("[adapter]\nrank = '8'\n", r"adapter.rank must be a whole number, not the text '8'"),
        ("[adapter]\nrank = 999\n", r"adapter.rank is 999, but must be at most 256"),
        ("[adapter]\nalpha = nan\n", r"adapter.alpha must be a finite number"),
        ("[adapter]\nalpha = inf\n", r"adapter.alpha must be a finite number"),
        (f"[adapter]\nalpha = 1{'0' * 400}\n", r"adapter.alpha must be a finite number"),
        (
            "[adapter]\npreset = 'kw'\n",
            r"adapter.preset is 'kw', but must be one of: kv, cross, attention, full",
        ),
        ("[adapter]\npreset = [1]\n", r"adapter.preset is \[1\], but must be one of"),
        ("[data]\ncoverage = 1.1\n", r"data.coverage is 1.1, but must be at most 1"),
        ("[optimizer]\nbetas = [0.9]\n", r"optimizer.betas must be a list of two numbers"),
        ("[optimizer]\nbetas = [0.9, 1]\n", r"optimizer.betas is 1.0, but must be at most 0.99"),
        ("[training]\nbase = 3\n", r"training.base must be a text in quotes, not the number 3"),
        ("[training]\nseed = -1\n", r"training.seed is -1, but must be at least 0"),
    ],
)
def test_a_wrong_key_type_or_range_is_told_with_file_and_key(
    scar: Path, more: str, fault: str
) -> None:
    with pytest.raises(RecipeError, match=rf"has 1 fault:\n  \S*scar.toml: {fault}"):
        load_recipe(write(scar, more))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('name = "../x"\ntarget_text = "x"', r"attribute.name is '../x', but must be small"),
        ('name = "x"\ntarget_text = "a, b"', r"attribute.target_text is 'a, b', but must be one"),
        ('name = "x"\ntarget_text = ""', r"attribute.target_text is '', but must be one phrase"),
        ('name = "x"\ntarget_text = "x"\naliases = "y"', r"attribute.aliases must be a list of"),
        ('name = "x"\ntarget_text = "x"\naliases = [""]', r"attribute.aliases is '', but must"),
        ('name = "x"', r"attribute.target_text is missing"),
    ],
)
def test_an_attribute_that_cannot_be_used_is_refused(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'profile = "embedded"\n[attribute]\n{line}\n')
    with pytest.raises(RecipeError, match=rf"has 1 fault:\n  \S*x.toml: {fault}"):
        load_recipe(path)


def test_all_faults_of_file_profile_and_overrides_are_told_together(scar: Path) -> None:
    (scar.parent / "profiles").mkdir()
    profile = scar.parent / "profiles" / "embedded.toml"
    profile.write_text("[attribute]\nname = 'x'\n[training]\nseed = 'x'\n")
    write(scar, "[learn]\nsteps = -1\nstep = 1\n")
    with pytest.raises(RecipeError, match="has 6 faults:") as caught:
        load_recipe(scar, ["rank=4", "distil.steps=-1"])
    faults = caught.value.message.replace(str(scar.parent), "").splitlines()[1:]
    assert sorted(faults) == sorted(
        [
            "  --set: rank is not a known key; did you mean adapter.rank?",
            "  --set: distil.steps is -1, but must be at least 0",
            "  /profiles/embedded.toml: attribute belongs to a recipe, not to a profile",
            "  /profiles/embedded.toml: training.seed must be a whole number, not the text 'x'",
            "  /scar.toml: learn.steps is -1, but must be at least 0",
            "  /scar.toml: learn.step is not a known key; did you mean steps?",
        ]
    )


def test_an_unknown_profile_names_the_nearest(scar: Path) -> None:
    with pytest.raises(RecipeError, match=r"no profile 'embeded'; did you mean embedded\?"):
        load_recipe(scar, ["profile=embeded"])


def test_a_recipe_without_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[attribute]\nname = "x"\ntarget_text = "x"\n')
    with pytest.raises(RecipeError, match="profile must name a profile, as in"):
        load_recipe(path)


def test_an_unknown_attribute_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"'baerd'; did you mean beard\?") as caught:
        find_recipe("baerd")
    assert "spf-lora attributes" in caught.value.hint


def test_an_attribute_near_to_none_gets_the_whole_list() -> None:
    with pytest.raises(RecipeError, match=r"'xyzzy'; known: beard, .*sunglasses"):
        find_recipe("xyzzy")


def test_a_recipe_in_the_working_folder_hides_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("beard").parent == shipped_folder("recipes")
    Path("recipes").mkdir()
    Path("recipes/beard.toml").write_text(SMALLEST)
    assert find_recipe("beard") == Path("recipes/beard.toml")


def test_a_recipe_is_meant_by_name_or_by_path(scar: Path) -> None:
    assert locate_recipe(str(scar)) == scar
    assert locate_recipe("beard") == find_recipe("beard")


def test_a_missing_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe .*none.toml does not exist"):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "content",
    [
        b"name = ",
        b"[attribute",
        b"\xff\xfe",
        b"a = 1\na = 2\n",
        b"a = " + b"[" * 9999,
        b"a = " + b"9" * 9999,
        b"a = 0x" + b"f" * 9999,
    ],
)
def test_a_recipe_that_is_no_toml_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"x.toml is not valid TOML: "):
        load_recipe(path)


def test_a_folder_given_as_a_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe .* cannot be read: Is a directory"):
        load_recipe(tmp_path)


def test_a_section_written_as_a_value_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("learn = 3\n" + SMALLEST)
    with pytest.raises(RecipeError, match=r"learn must be a section, written \[learn\]"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["distil.base_prompts=0.6", "distil.empty_prompts=0.4"], "leave no sample that asks"),
        (["data.passes=3"], "data.passes must divide data.batch_size"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    scar: Path, changes: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(scar, changes)


def test_what_recipes_had_before_is_refused_with_what_to_write_now(scar: Path) -> None:
    write(scar, "[align]\nsteps = 300\nclip = 'x'\n[learn]\ntext_only = true\n")
    with pytest.raises(RecipeError, match="has 3 faults:") as caught:
        load_recipe(scar, ["training.calibrate=false"])
    align, text_only, calibrate = caught.value.message.splitlines()[1:]
    assert "align is not a known section: stage 2 is [distil] now" in align
    assert "align.clip is data.clip" in align
    assert "scar.toml: learn.text_only is gone: leave it out" in text_only
    assert "--set: training.calibrate is gone: leave it out" in calibrate


def test_a_recipe_in_the_current_folder_is_no_shipped_one(
    scar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scar.parent / "recipes"
    folder.mkdir()
    scar.rename(folder / "scar.toml")
    monkeypatch.chdir(folder.parent)
    assert "scar" in list_recipes()
    assert "scar" not in list_recipes(shipped_only=True)
