"""How many threads the libraries below may start."""

import os
import sys


def one_thread_each() -> None:
    """Keep numpy to one thread, if it is not loaded yet."""
    # Modules are worked on side by side. Threads inside such small matrices only wait for each
    # other: on a busy machine the same merge took 60 times as long. Read when numpy is loaded.
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
