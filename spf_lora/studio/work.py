"""What the page's buttons start: the words of each command, and what its files show afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from spf_lora.atomic import write_text
from spf_lora.data.decoding import opened
from spf_lora.documents import parse_json, read_text
from spf_lora.errors import DataError, SpfError
from spf_lora.registry.edit import add
from spf_lora.registry.names import SUFFIX, Entry, check_name, entries, find
from spf_lora.registry.stack import find_stack, stack_names
from spf_lora.studio import jobs
from spf_lora.studio.command import ask, ask_json
from spf_lora.studio.form import changes
from spf_lora.studio.jobs import Job
from spf_lora.studio.view import data_uri

_RESULT = "adapter"  # name of a job's adapter file
_MOST_PAGE = 64 << 20
_THUMBNAIL = 96  # pixels
_SAMPLES = 4  # sheets of pictures on the way


def adapter_names() -> list[str]:
    """Return the adapters of the registry."""
    return [entry.name for entry in entries()]


def stacks() -> list[str]:
    """Return the stacks of the registry."""
    return [name for name, _ in stack_names()]


def measure(name: str, base: str, *, quick: bool) -> Job:
    """Start the full report of an adapter."""
    find(name)
    folder = jobs.new_folder()
    words = ["evaluate", name, "--base", base, "--out", str(folder / "report"), "--force"]
    return jobs.submit(f"report of {name}", [*words, *(["--quick"] if quick else [])], folder)


def measure_stack(name: str, base: str) -> Job:
    """Start the report of a stack, of few people."""
    find_stack(check_name(name))
    return jobs.submit(
        f"cross-talk of {name}", ["stack", "report", name, "--base", base, "--quick", "--json"]
    )


def audit(file: Path, title: str, base: str, target: str) -> Job:
    """Start looking at what a LoRA does besides its target."""
    folder = jobs.new_folder()
    words = ["audit", str(file), "--base", base, "--out", str(folder / "audit"), "--force"]
    return jobs.submit(f"look at {title}", [*words, *_target(target)], folder)


def clean(file: Path, title: str, base: str, target: str) -> Job:
    """Start cleaning a LoRA."""
    folder = jobs.new_folder()
    words = ["clean", str(file), "--base", base, "--out", str(folder / f"{_RESULT}{SUFFIX}")]
    return jobs.submit(f"clean {title}", [*words, *_target(target)], folder)


def compare_cleaned(job: Job, base: str) -> Job:
    """Start measuring a cleaned adapter beside the one before."""
    files = [str(_finished(job)), job.words[1]]
    words = ["compare", *files, "--base", base, "--quick"]
    return jobs.submit(f"compare: {job.title}", words)


def compare_steps(job: Job, base: str) -> Job:
    """Start measuring the adapters that a training kept on its way; a line names the best."""
    files = [str(path) for path in candidates(job).values()]
    if len(files) < 2:
        raise SpfError("there are no two steps to compare", hint="train with steps kept on the way")
    return jobs.submit(f"compare: {job.title}", ["compare", *files, "--base", base, "--quick"])


def train(
    attribute: str, filled: Sequence[Any], folder: str, base: str, *, keep_every: int, skip: bool
) -> Job:
    """Start a training.

    Args:
        attribute: a recipe's name.
        filled: the form.
        folder: of pictures, or "" for the portrait world's.
        base: the model; a recipe's own where it is the embedded one.
        keep_every: steps from one kept adapter, and one sheet of pictures, to the next; 0: none.
        skip: train on what the check leaves.
    """
    words = _training(attribute, filled, folder, base)
    place = jobs.new_folder()
    words += ["--out", str(place / f"{_RESULT}{SUFFIX}")]
    if keep_every:
        prompts = place / "prompts.txt"
        write_text(prompts, "\n".join(_samples(attribute)) + "\n")
        words += ["--keep-every", str(keep_every), "--sample-every", str(keep_every)]
        words += ["--sample-prompts", str(prompts)]
    words += ["--skip-faulty"] if skip and folder else []
    return jobs.submit(f"train {attribute}", words, place)


def estimate(attribute: str, filled: Sequence[Any], folder: str, base: str) -> str:
    """Return the plan of a training with its time and memory."""
    return ask([*_training(attribute, filled, folder, base), "--dry-run"])


def _training(attribute: str, filled: Sequence[Any], folder: str, base: str) -> list[str]:
    words = ["train", "--attribute", attribute]
    for change in changes(attribute, filled):
        words += ["--set", change]
    words += [] if base == "embedded" else ["--base", base]
    return [*words, *(["--data", str(_folder(folder))] if folder else [])]


def check_folder(folder: str, attribute: str, base: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what `data check` says of a folder, and a small picture of each file with a fault."""
    path = _folder(folder)
    words = ["data", "check", str(path), f"--attribute={attribute}"]
    report = ask_json([*words, *([] if base == "embedded" else ["--base", base])])
    thumbnails = {}
    for fault in report["faults"][:60]:
        if uri := _thumbnail(path, str(fault["file"])):
            thumbnails[str(fault["file"])] = uri
    return report, thumbnails


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    try:
        there = path.is_dir()
    except (OSError, ValueError):
        there = False
    if not there:
        raise DataError(f"{text[:200]} is no folder", hint="write its whole path")
    return path.resolve()


def _thumbnail(folder: Path, name: str) -> str:
    """Return the picture that a fault is about, small, or "" where there is none to show."""
    file = folder / name.partition(":")[0]
    for one in (file, *(file.with_suffix(end) for end in (".png", ".jpg", ".jpeg", ".webp"))):
        if one.suffix == ".txt" or not one.is_file() or not one.resolve().is_relative_to(folder):
            continue
        try:
            with opened(one) as (picture, _):
                small = picture.convert("RGB")
                small.thumbnail((_THUMBNAIL, _THUMBNAIL))
                return data_uri(small)
        except Exception:  # Pillow's decoders raise almost anything on damaged files
            return ""
    return ""


def candidates(job: Job) -> dict[str, Path]:
    """Return what a training or cleaning has made: label -> file, the finished one first."""
    final = job.folder / f"{_RESULT}{SUFFIX}"
    kept = sorted((job.folder / f"{_RESULT}-steps").glob(f"*{SUFFIX}"))
    found = {"finished": final} if final.is_file() else {}
    return found | {f"step {int(path.stem.rpartition('-')[2])}": path for path in kept}


def keep(job: Job, label: str, name: str) -> Entry:
    """Put what a job has made into the registry.

    Raises:
        SpfError: there is no such file, or the name is taken or no name.
    """
    found = candidates(job)
    if label not in found:
        raise SpfError("there is no such adapter yet", hint="wait for the job to end")
    return add(found[label], name).entry


def sheets(job: Job) -> dict[str, Image.Image]:
    """Return pictures that a job has drawn, what they are -> picture: the last ones first."""
    found = {}
    final = job.folder / f"{_RESULT}.png"
    for path in (
        final,
        *sorted((job.folder / f"{_RESULT}-samples").glob("*.png"))[::-1][:_SAMPLES],
    ):
        if path.is_file():
            with Image.open(path) as picture:
                name = "result" if path == final else f"step {int(path.stem)}"
                found[name] = picture.convert("RGB")
    return found


def document(job: Job) -> str:
    """Return the page that a job has written, or ""."""
    for name in ("report/report.html", "audit/audit.html"):
        if (job.folder / name).is_file():
            return read_text(job.folder / name, most_bytes=_MOST_PAGE)
    return ""


def cross_talk(job: Job) -> dict[str, Any]:
    """Return what a stack's report says, as `stack report --json` prints it, or an empty table."""
    try:
        table = parse_json(job.result())
        return table if isinstance(table, dict) and "cross_talk" in table else {}
    except ValueError:
        return {}


def _finished(job: Job) -> Path:
    found = candidates(job).get("finished")
    if found is None:
        raise SpfError(f"{job.title} has not finished", hint="wait for it, or let it go on")
    return found


def _target(target: str) -> list[str]:
    return [f"--target={target.strip()}"] if target.strip() else []


def _samples(attribute: str) -> list[str]:
    """Return what is drawn on the way: a few people who ask for the attribute."""
    from spf_lora.api import load_recipe
    from spf_lora.data.captions import asking_prompt

    taught = load_recipe(attribute).attribute
    people = ("a portrait of a person", "a portrait of a person, tan skin, black hair, a bob")
    return [asking_prompt(one, taught) for one in people]
