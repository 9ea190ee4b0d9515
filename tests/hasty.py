"""Trainings that are over soon; see the fixture `few_draws`. As a script: `spf-lora`, hastily."""

from dataclasses import replace

import pytest

from spf_lora.cli import clean, preview
from spf_lora.evaluate import preview as drawn
from spf_lora.evaluate import reactions
from spf_lora.training import calibrate, pairs, prepare, sight, stages


def make_hasty(patched: pytest.MonkeyPatch) -> None:
    """Let few and hasty pictures do, and pairs that could teach nothing."""
    drawing, prompts = stages.Drawing, stages.teaching_prompts
    patched.setattr(prepare, "_OWN_STEPS", 2)
    patched.setattr(calibrate, "PICTURES", 8)
    patched.setattr(preview, "_PREVIEW_STEPS", 1)
    patched.setattr(reactions, "_STEPS", 1)
    patched.setattr(drawn, "ROWS", 2)
    patched.setattr(clean, "_ROWS", 2)
    patched.setattr(stages, "Drawing", lambda *how: replace(drawing(*how), steps=2))
    patched.setattr(stages, "teaching_prompts", lambda *of: prompts(*of[:-1], count=min(of[-1], 3)))
    patched.setattr(pairs, "_LEAST_CHANGE", 0.0)
    patched.setattr(pairs, "_COVERED", 2.0)
    for one in (pairs, sight):
        patched.setattr(one, "LEAST_AUC", 2.0)


if __name__ == "__main__":
    from spf_lora.cli.app import main

    make_hasty(pytest.MonkeyPatch())
    main()
