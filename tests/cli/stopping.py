"""Ends a run at a chosen moment, as Ctrl-C does."""

import signal


def interrupting(function, when):
    """Ask the process to end while a function runs for the `when`-th time."""
    count = 0

    def run(*words, **more):
        nonlocal count
        count += 1
        if count == when:
            signal.raise_signal(signal.SIGTERM)  # Ctrl-C and SIGHUP do the same
        return function(*words, **more)

    return run
