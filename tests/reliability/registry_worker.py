"""Changes a registry at random until it is killed or told to stop; run by the test of kills.

    python registry_worker.py FOLDER SOURCES LOG WORKER SEED

Every change is logged before it begins ("? add w1-3") and when it is done ("! add w1-3") or refused
("- add w1-3"), so that what may and what must have happened is known after a kill. The next worker
logs which change was cut ("= add w1-3") and what is there.
"""

import random
import sys
from pathlib import Path

from spf_lora.errors import SpfError
from spf_lora.registry import edit, names, stack_edit
from spf_lora.registry.stack import stack_names

STOP = ".stop"


def replayed(lines):
    """Return the adapters that a worker must have, those it must not have, and the open change."""
    have, gone, doing = set(), set(), None
    for line in lines:
        sign, *change = line.split()
        doing = tuple(change) if sign == "?" else None
        if sign == "=":  # killed in this one: what came of it is said next
            have -= set(change[1:])
        if sign != "!":
            continue
        action, *words = change
        if action == "add":
            have.add(words[0])
        elif action == "remove":
            have.discard(words[0])
            gone.add(words[0])
        elif action == "rename":
            have.discard(words[0])
            gone.add(words[0])
            have.add(words[1])
    return have, gone - have, doing


def changes(folder, sources, mine, serial, rng, worker):
    """Return one change at random: its words for the log, and what does it."""
    everyone = [entry.name for entry in names.entries(folder) if entry.place.folder == folder]
    stacks = [name for name, _ in stack_names(folder)]
    new = f"w{worker}-{serial}"
    kind = rng.choice(("add", "add", "remove", "rename", "create", "grow", "shrink", "unstack"))
    if kind == "add" or not mine or not everyone:
        source = rng.choice(sources)
        return ("add", new), lambda: edit.add(source, new, folder)
    own = rng.choice(sorted(mine))
    if kind == "remove":
        return ("remove", own), lambda: edit.remove(own, folder)
    if kind == "rename":
        return ("rename", own, new), lambda: edit.rename(own, new, folder)
    some = rng.sample(everyone, min(len(everyone), rng.randint(1, 3)))
    if kind == "create" or not stacks:
        asked = [(one, 1.0) for one in some]
        return ("create", f"{new}s"), lambda: stack_edit.create(f"{new}s", asked, folder)
    stack = rng.choice(stacks)
    if kind == "grow":
        return ("grow", stack), lambda: stack_edit.add(stack, some[0], 0.5, folder)
    if kind == "shrink":
        return ("shrink", stack), lambda: stack_edit.drop(stack, some[0], folder)
    return ("unstack", stack), lambda: stack_edit.remove(stack, folder)


def work(folder, sources, log, worker, seed):
    """Change until told to stop; what an earlier worker of this number had is ours."""
    rng = random.Random(f"{seed} {worker}")
    before = log.read_text().splitlines() if log.exists() else []
    mine, _, doing = replayed(before)
    for name in doing[1:] if doing else ():  # it was killed in this one: see what came of it
        mine.discard(name)
        if (folder / f"{name}.safetensors").exists():
            mine.add(name)
    serial = len(before)
    with log.open("a", buffering=1) as lines:
        if doing:
            saved = [f"! add {name}\n" for name in sorted(mine)]
            lines.write("".join([f"= {' '.join(doing)}\n", *saved]))  # at once, whatever is killed
        while not (folder / STOP).exists():
            serial += 1
            words, change = changes(folder, sources, mine, serial, rng, worker)
            said = " ".join(words)
            lines.write(f"? {said}\n")
            try:
                change()
            except SpfError as error:
                lines.write(f"- {said}\n")
                if not any(word in error.message for word in EXPECTED):
                    raise
                continue
            lines.write(f"! {said}\n")
            mine, _, _ = replayed(log.read_text().splitlines())


# what others did meanwhile, or what cannot be: no fault of the registry
EXPECTED = (
    "is part of the stack",
    "removed meanwhile",
    "no adapter is called",
    "no stack is called",
    "is already in the stack",
    "is not in the stack",
    "would be empty",
    "is taken",
)

if __name__ == "__main__":
    folder, sources, log, worker, seed = sys.argv[1:]
    work(Path(folder), sorted(Path(sources).glob("*.safetensors")), Path(log), worker, seed)
