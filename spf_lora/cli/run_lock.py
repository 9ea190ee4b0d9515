"""What a training holds for its whole run: its files' locks, so that no other one writes them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from spf_lora.cli.train_one import Job
from spf_lora.locks import held_alone


@contextmanager
def locked_for_the_run(jobs: Sequence[Job]) -> Iterator[None]:
    """Hold every job's lock; of several processes that share the work, the first one does.

    Raises:
        LockedError: another training writes one of the files; it says who.
        OutputError: a file came to be since it was looked, or its folder cannot be written.
    """
    with ExitStack() as held:
        if os.environ.get("RANK", "0") == "0":
            for job in jobs:
                held.enter_context(held_alone(job.lock, str(job.target)))
        for job in jobs:
            job.check()  # again: nobody else writes from here on
        yield
