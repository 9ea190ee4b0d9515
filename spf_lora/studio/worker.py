"""Runs the oldest waiting job as the command line would, then starts a successor for the next.

`python -m spf_lora.studio.worker FOLDER`. The command runs in this very process, so that nothing is
left behind when it is killed: the system takes back its locks.
"""

import json
import os
import runpy
import signal
import sys
import threading

from spf_lora.atomic import write_text
from spf_lora.errors import LockedError
from spf_lora.locks import held_alone
from spf_lora.signals import Stopped, ending_politely
from spf_lora.studio import jobs

_POLL = 0.25  # seconds


def main() -> None:
    """Run one job, unless another worker does."""
    os.environ[jobs.VARIABLE] = sys.argv[1]
    try:
        with held_alone(jobs.home() / "worker.lock", "the studio's queue"):
            job = jobs.next_waiting()
            if job is not None:
                _run(job)
    except LockedError:
        return
    if jobs.next_waiting() is not None:  # one that came while the lock was held too
        jobs.start_worker()


def _run(job: jobs.Job) -> None:
    with held_alone(job.folder / "lock", job.title):
        (job.folder / "started").touch()
        ended = threading.Event()
        threading.Thread(target=_stop_when_asked, args=(job, ended), daemon=True).start()
        code = _command(job, ended)
        write_text(job.folder / "end.json", json.dumps({"code": code}), overwrite=True)


def _command(job: jobs.Job, ended: threading.Event) -> int:
    """Run the command line with the job's words; return its exit code."""
    for number, name in ((1, "out"), (2, "log")):
        # a job that goes on prints its result anew, and tells on
        mode = os.O_TRUNC if number == 1 else os.O_APPEND
        file = os.open(job.folder / name, os.O_WRONLY | os.O_CREAT | mode, 0o666)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["spf-lora", *job.words]
    try:
        os.chdir(job.cwd)
        with ending_politely():  # it may be told to end before the command line listens
            runpy.run_module("spf_lora", run_name="__main__")
    except Stopped as stopped:
        return stopped.exit_code
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        ended.set()  # nobody is told to end while the end is written
    return 0


def _stop_when_asked(job: jobs.Job, ended: threading.Event) -> None:
    while not ended.wait(_POLL):
        if (job.folder / "stop").exists():
            os.kill(os.getpid(), signal.SIGTERM)  # the main thread handles it, as ever
            return


if __name__ == "__main__":
    main()
