"""Long work as commands in processes of their own, one at a time; page and server may end.

A job is a folder: `job.json` says what to run, `log` and `out` hold what the command said, `stop`
asks it to end, `end.json` says how it ended. A job that runs holds `lock`, so one that was killed
is known by its free lock. `worker` runs the oldest job that waits and starts its own successor.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

from spf_lora.atomic import make_folder, write_text
from spf_lora.documents import read_json
from spf_lora.errors import LockedError, SpfError
from spf_lora.locks import held_alone

State = Literal["waiting", "running", "done", "failed", "stopped", "interrupted"]
CHECK_FAILED = 3  # exit code of a command that did its work and found a fault
VARIABLE = "SPF_LORA_STUDIO"
_ID = re.compile(r"\d{20}-[0-9a-f]{8}")
_MOST_BYTES = 1 << 20
_TAIL_BYTES = 256 << 10
_GOES_ON = ("train", "clean")  # commands that take --resume
_PROGRESS = re.compile(r"(?P<what>.*?)[ :]+(?P<done>\d{1,9})/(?P<total>\d{1,9})\b(?P<rest>.*)")
_LOSS = re.compile(r"(\w{1,40}) (\d{1,9})/(\d{1,9}), .*loss (\d{1,9}\.\d{1,9})")


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        folder: where everything of it is; its name is the job's id.
        title: what people call it.
        words: of the command line, after `spf-lora`.
        cwd: the folder to run in.
    """

    folder: Path
    title: str
    words: tuple[str, ...]
    cwd: str

    @property
    def id(self) -> str:
        """Name of the folder; later jobs sort behind earlier ones."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """The command."""
        return self.words[0]

    def state(self) -> State:
        """Tell how far it is; see the module."""
        end = self._end()
        if end is None and (self.folder / "started").exists():
            if _is_held(self.folder / "lock"):
                return "running"
            end = self._end()  # it may have ended meanwhile
            if end is None and not (self.folder / "stop").exists():
                return "interrupted"
        stopped = (self.folder / "stop").exists()
        if end is None:
            return "stopped" if stopped else "waiting"
        if end in (0, CHECK_FAILED):
            return "done"
        return "stopped" if stopped else "failed"

    def _end(self) -> int | None:
        try:
            return int(read_json(self.folder / "end.json", most_bytes=_MOST_BYTES)["code"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def stamp(self) -> int:
        """Return a number that changes whenever a file of the job does."""
        times = set()
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # it went meanwhile
                if not path.name.startswith(".") and path.name != "lock":
                    times.add((path, path.lstat().st_mtime_ns))
        return hash(frozenset(times))

    def lines(self) -> list[str]:
        """Return the end of what it told, stderr, line by line."""
        return _tail(self.folder / "log").splitlines()

    def result(self) -> str:
        """Return what it printed, stdout."""
        return _tail(self.folder / "out")

    def progress(self) -> tuple[str, int, int] | None:
        """Return what it does, and how much of how much is done, or None."""
        for line in reversed(self.lines()):
            if found := _PROGRESS.fullmatch(line.strip()):
                text = f"{found['what']}{found['rest']}"
                return text, int(found["done"]), int(found["total"])
        return None

    def losses(self) -> dict[str, list[tuple[int, float]]]:
        """Return stage -> (step, loss) as far as the log tells them."""
        stages: dict[str, list[tuple[int, float]]] = {}
        for line in self.lines():
            if found := _LOSS.match(line):
                stages.setdefault(found[1], []).append((int(found[2]), float(found[4])))
        return stages


def home() -> Path:
    """Return the studio's folder: `SPF_LORA_STUDIO`, or a user's own."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    from platformdirs import user_state_path

    return user_state_path("spf-lora", appauthor=False) / "studio"


def new_folder() -> Path:
    """Make a job's folder, so that what it needs can be put there before it is submitted."""
    folder = home() / "jobs" / f"{time.time_ns():020d}-{token_hex(4)}"
    make_folder(folder)
    return folder


def submit(title: str, words: Sequence[str], folder: Path | None = None) -> Job:
    """Put a command behind the others; it starts by itself.

    Args:
        title: for people.
        words: of the command line.
        folder: from `new_folder`.

    Raises:
        OutputError: the studio's folder cannot be written.
    """
    job = Job(folder or new_folder(), title, tuple(words), str(Path.cwd()))
    _write(job)
    start_worker()
    return job


def jobs() -> list[Job]:
    """Return every job, the oldest first; what is no job is left out."""
    folder = home() / "jobs"
    names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    read = (_read(folder / name) for name in names if _ID.fullmatch(name))
    return [job for job in read if job is not None]


def find(job_id: str) -> Job:
    """Return a job by its id.

    Raises:
        SpfError: there is none.
    """
    job = _read(home() / "jobs" / job_id) if _ID.fullmatch(job_id) else None
    if job is None:
        raise SpfError("there is no such job", hint="choose one of the list")
    return job


def stop(job: Job) -> None:
    """Ask a job to end; what it has saved stays."""
    (job.folder / "stop").touch()


def resume(job: Job) -> None:
    """Let a job that was stopped, killed or failed go on where it was.

    Raises:
        SpfError: it is waiting, running or done.
    """
    state = job.state()
    if state not in ("stopped", "interrupted", "failed"):
        raise SpfError(f"{job.title} is {state}", hint="only what has ended early can go on")
    more = ["--resume"] if job.kind in _GOES_ON and "--resume" not in job.words else []
    for name in ("stop", "end.json", "started"):
        (job.folder / name).unlink(missing_ok=True)
    _write(Job(job.folder, job.title, (*job.words, *more), job.cwd))
    start_worker()


def next_waiting() -> Job | None:
    """Return the oldest job that waits, or None."""
    return next((job for job in jobs() if job.state() == "waiting"), None)


_workers: list["subprocess.Popen[bytes]"] = []
_PATIENCE = 30.0  # seconds until a worker that was started is expected to show
_started_at = [-_PATIENCE]


def start_worker() -> None:
    """Start a worker, detached: it outlives this process, and ends at once if there is another."""
    _workers[:] = [one for one in _workers if one.poll() is None]
    _started_at[0] = time.monotonic()
    _workers.append(
        subprocess.Popen(
            [sys.executable, "-m", "spf_lora.studio.worker", str(home())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    )


def wake(states: Sequence[State]) -> None:
    """Start a worker where jobs wait and none runs, as after the machine went down."""
    idle = "waiting" in states and "running" not in states
    if idle and time.monotonic() - _started_at[0] > _PATIENCE:
        start_worker()


def _write(job: Job) -> None:
    table = {"title": job.title, "words": list(job.words), "cwd": job.cwd}
    write_text(job.folder / "job.json", json.dumps(table), overwrite=True)


def _read(folder: Path) -> Job | None:
    try:
        table: Any = read_json(folder / "job.json", most_bytes=_MOST_BYTES)
        words = tuple(map(str, table["words"]))
        return Job(folder, str(table["title"]), words, str(table["cwd"])) if words else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _is_held(path: Path) -> bool:
    try:
        with held_alone(path, "the job"):
            return False
    except LockedError:
        return True
