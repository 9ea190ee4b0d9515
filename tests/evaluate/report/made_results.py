"""Results of made-up evaluations whose pictures are the portrait world's own."""

import dataclasses
import random
from pathlib import Path

from PIL import Image

from spf_lora.data.worlds import portraits
from spf_lora.evaluate.gallery import write_content
from spf_lora.evaluate.result import (
    CHANNELS,
    Draw,
    Figure,
    PromptPair,
    Result,
    SelfTest,
    figure_name,
)

STRENGTHS = (0.0, 0.5, 1.0)


def make_result(
    gallery: Path, *, name: str = "beard-ours", prompts: int = 8, seeds: int = 2, slope: float = 0.3
) -> Result:
    """A sweep in which response and pollution rise with strength."""
    chance = random.Random(name)
    people = [portraits.unbiased(random.Random(n)) for n in range(prompts)]
    cases, draws = [], []
    for index, person in enumerate(people):
        other = people[(index + 1) % prompts]
        keys = {
            "I0": write_content(gallery, portraits.render(person)),
            "I1": write_content(gallery, portraits.render(other, ["beard"])),
            "Ic": write_content(gallery, portraits.render(person)),
            "Ib": write_content(gallery, portraits.render(other)),
            "truth": write_content(gallery, portraits.render(person, ["beard"])),
            "region": write_content(gallery, region_picture(person)),
        }
        asked = tuple(range(10, 10 + seeds))
        cases.append(
            PromptPair(portraits.caption(person, ["beard"]), portraits.caption(person), asked)
        )
        draws += [
            Draw(
                index,
                seed,
                strength,
                keys,
                {
                    "P": slope * strength + chance.random() / 2,
                    "shown": float(index % 4 != 0),
                    "unasked": float(index == 1),
                    **({"changed:background": 1.0} if index == 2 else {}),
                    **({"changed:hair colour": 1.0} if index in (2, 5) else {}),
                },
            )
            for seed in asked
            for strength in STRENGTHS
        ]
    numbers = {}
    for strength in STRENGTHS:
        values = {
            "rho": 0.25 + 0.6 * strength,
            "P": 0.1 + slope * strength,
            "excess": slope,
            "BL": slope * strength / 2,
            "shown": 0.25 + 0.6 * strength,
            "unasked": 0.1 * strength,
            "H": 0.5,
        }
        values |= dict.fromkeys(CHANNELS, 0.2 + slope * strength)
        for measure, value in values.items():
            figure = Figure(value, value - 0.06, value + 0.06, prompts)
            numbers[figure_name(measure, strength)] = figure
    numbers["sps"] = Figure(0.1 + slope, slope, 0.2 + slope, prompts, 0.98)
    numbers["auc"] = Figure(None, None, None, prompts, 0.0)
    return Result(
        attribute="beard",
        target_text="a beard",
        adapter=name,
        adapter_id="c0ffee" * 6,
        base="embedded",
        base_id="1234abcd" * 5,
        judge="the portrait world's probe",
        sampler={"name": "ddim", "steps": 25, "guidance": 3.0, "negative": ""},
        strengths=STRENGTHS,
        main=1.0,
        cases=tuple(cases),
        draws=tuple(draws),
        numbers=numbers,
        selftests=(
            SelfTest("same picture", "the base model against itself has pollution 0", 0.0, True),
            SelfTest("other seed", "another seed has pollution about 1", 0.7, False),
        ),
        remarks=("8 prompts are few: the intervals are wide",),
        versions={"torch": "2.13", "diffusers": "0.42"},
        seconds=61.0,
        pictures_drawn=48,
        gallery=gallery,
    )


def region_picture(person) -> Image.Image:
    return Image.fromarray((portraits.region(person, "beard") > 0).astype("uint8") * 255)


def with_prompts(result: Result, prompt: str) -> Result:
    """The same result, asked for with another prompt."""
    cases = tuple(dataclasses.replace(case, prompt=prompt) for case in result.cases)
    return dataclasses.replace(result, cases=cases)
