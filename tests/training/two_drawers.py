"""Started twice by a test: each process draws its share of the pairs and finds the others'."""

import sys
from dataclasses import replace
from pathlib import Path

from tiny_runs import load, some_teacher, teaching

from spf_lora.adapters.attach import adapter_of
from spf_lora.training.processes import processes

folder, cache = Path(sys.argv[1]), Path(sys.argv[2])
siblings = processes()
pairs = [(f"person {number}", f"person {number}, a hat") for number in range(20)]
shared = replace(teaching(load(folder), cache), prompts=pairs, processes=siblings)
told = list[int]()
shared.drawn(adapter_of(some_teacher(folder), 4.0), lambda what, done, total: told.append(done))
print(f"process {siblings.rank} made {shared.cache.made} and found {shared.cache.found}")
print(f"process {siblings.rank} told {told}")
