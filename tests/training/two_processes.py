"""Started twice by a test: each process trains on its half of every batch."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from test_precision import PLAN, eight_portraits, make_trainer

from spf_lora.training import pairs
from spf_lora.training.processes import processes

folder, target = Path(sys.argv[1]), Path(sys.argv[2])
siblings = processes()
pairs._LEAST_CHANGE, pairs._COVERED = 0.0, 2.0  # a random base shows no place
trainer = make_trainer(
    folder, eight_portraits(folder), plan=replace(PLAN, batch_size=4), processes=siblings
)
losses = [step.loss for step in trainer.run()]
if siblings.first:
    tensors = {name: p.detach().contiguous() for name, p in trainer.parameters.items()}
    save_file({**tensors, "losses": torch.tensor(losses)}, target)
siblings.wait()
