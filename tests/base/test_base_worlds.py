"""A base's card says which world it draws; what it brings along is its own and whole."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tiny_base import noisy_adapter

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.base.clip import find_clip, load_clip
from spf_lora.base.load import EMBEDDED, load_base
from spf_lora.base.towers import Probe
from spf_lora.data.worlds import PERSONAS, PORTRAITS, world_of
from spf_lora.errors import BaseModelError, MeasureError
from spf_lora.evaluate.judges.world import world_judge
from spf_lora.evaluate.protocol import QUICK_PROMPTS, QUICK_SEEDS, held_out_cases


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """The tiny base with a card that says it draws the second world."""
    copy = tmp_path / "base"
    shutil.copytree(tiny_folder, copy)
    for name in ("clip/model.safetensors", "probe/model.safetensors", "probe/heads.json"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(b"{}")
    files = [path for path in copy.rglob("*") if path.is_file()]
    digests = {str(p.relative_to(copy)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    (copy / "card.json").write_text(json.dumps({"world": "personas", "sha256": digests}))
    return copy


def _loaded(folder):
    return load_base(str(folder), device=torch.device("cpu"))


def test_a_card_names_the_world_and_without_one_it_is_the_first(folder, embedded, tiny):
    assert world_of(_loaded(folder)) is PERSONAS
    assert embedded.world == "portraits"
    assert world_of(embedded) is PORTRAITS
    assert tiny.world == ""
    assert world_of(tiny) is PORTRAITS


def test_a_damaged_file_of_a_worlds_base_is_named(folder):
    (folder / "unet" / "config.json").write_text(
        (folder / "unet" / "config.json").read_text() + " "
    )
    with pytest.raises(BaseModelError, match=r"is damaged: unet/config\.json"):
        _loaded(folder)


@pytest.mark.parametrize("card", ["{", "[]", "{}", '{"world": 3}', '{"world": "personas"}'])
def test_a_card_of_another_kind_is_no_fault(folder, card):
    (folder / "card.json").write_text(card)
    assert _loaded(folder).world == ""


@pytest.mark.parametrize("name", ["../base/unet/config.json", "/etc/hostname", "a" * 300])
def test_a_card_speaks_of_files_in_its_folder_alone(folder, name):
    card = json.loads((folder / "card.json").read_text())
    card["sha256"][name] = "0"
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(BaseModelError, match="is incomplete"):
        _loaded(folder)


def test_a_world_that_nobody_knows_is_named(tiny):
    with pytest.raises(BaseModelError, match="draws 'moon', a world that is not known"):
        world_of(replace(tiny, world="moon"))


def test_its_own_clip_lies_in_its_folder(embedded, tmp_path):
    other = replace(embedded, folder=tmp_path, world="personas")
    shutil.copytree(EMBEDDED / "clip", tmp_path / "clip")
    assert find_clip(other) == "base"
    assert load_clip(other).digest() == load_clip(embedded).digest()


def test_its_own_probe_judges_its_people(tiny, tmp_path):
    heads = {name: len(values) for name, values in PERSONAS.factors.items()}
    heads |= dict.fromkeys(PERSONAS.attributes, 2)
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "heads.json").write_text(json.dumps(heads))
    save_file(Probe(heads).state_dict(), tmp_path / "probe" / "model.safetensors")
    base = replace(tiny, folder=tmp_path, world="personas")
    judge = world_judge("cap", base)
    assert judge.world is PERSONAS
    assert judge.free == {"cap", "beanie", "hair_style", "hair_colour"}
    truth = judge.truths(torch.zeros(1, 3, 64, 64))[0]
    assert truth.plain.tobytes() != truth.right.tobytes()
    with pytest.raises(MeasureError, match="cannot judge 'hat'"):
        world_judge("hat", base)


def test_its_prompts_are_of_its_people():
    said = ", ".join(
        f"{case.prompt}, {case.base_prompt}"
        for case in held_out_cases("cap", prompts=8, seeds=1, world=PERSONAS)
    )
    own = {phrase for values in PERSONAS.factors.values() for phrase, _ in values.values()}
    assert set(said.split(", ")) <= own | {"a portrait of a person", "a cap"}


def test_evaluate_asks_for_people_of_the_bases_world_and_its_probe(folder, cli, monkeypatch):
    from spf_lora.cli import evaluation
    from spf_lora.evaluate.judges import world

    asked = []

    def judge(attribute, base):
        asked.append((attribute, world_of(base)))
        raise MeasureError("no probe", hint="none")

    monkeypatch.setattr(world, "world_judge", judge)
    real = evaluation._cases
    monkeypatch.setattr(evaluation, "_cases", lambda *of: asked.append(real(*of)) or real(*of))
    write_adapter(noisy_adapter(folder), folder / "cap.safetensors")
    how = ("--base", folder, "--attribute", "beard", "--quick")
    code, _, talk = cli("evaluate", folder / "cap.safetensors", *how)
    assert (code, "no probe" in talk) == (1, True), talk
    cases = held_out_cases("beard", prompts=QUICK_PROMPTS, seeds=QUICK_SEEDS, world=PERSONAS)
    assert asked == [cases, ("beard", PERSONAS)]
    code, _, talk = cli("evaluate", folder / "cap.safetensors", *how[:2], "-a", "moustache")
    assert (code, "the world personas does not have it" in talk) == (1, True), talk
