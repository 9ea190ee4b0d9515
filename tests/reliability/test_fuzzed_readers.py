"""Seeded fuzzing of every reader: whatever a file holds, it is read or refused, in one sentence."""

import random
import resource
import signal
import sys
import time
import traceback
from contextlib import contextmanager

import pytest
from readers import READERS
from slow_tier import SEED, rounds

pytestmark = pytest.mark.slow
SHARE = 0.65  # of the tier's time, on one of two cores
MOST_SECONDS = 5.0  # of processor time, for one small file
MOST_MEGABYTES = 500  # that all cases together add
WHOLE = sum(reader.share for reader in READERS.values())


@contextmanager
def stopped_after(seconds):
    """Raise where the process is when it took so much processor time: a reader must not hang."""

    def stop(*_):
        raise TimeoutError(f"more than {seconds} seconds of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def outcome(reader, data, folder):
    """Read a file; return whether it was accepted, and what went wrong with that, if anything."""
    try:
        with stopped_after(MOST_SECONDS):
            reader.read(data, folder)
    except reader.refuses as error:
        message = getattr(error, "message", str(error))
        plain = "".join(message.split("\n"))
        return False, "" if plain.isprintable() and plain else f"says {message[:200]!r}"
    except Exception:
        return False, traceback.format_exc()
    return True, ""


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.skipif(sys.platform == "win32", reason="measures memory and time as Unix does")
@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_or_refuses_whatever_a_file_holds(name, tmp_path, record_property):
    reader = READERS[name]
    sound = reader.sound()
    for kind, data in sound.items():
        assert outcome(reader, data, tmp_path) == (True, ""), f"the sound {kind} is refused"
    accepted, slowest, before = 0, 0.0, megabytes()
    for case in rounds(SHARE * reader.share / WHOLE):
        rng = random.Random(f"{SEED} {name} {case}")
        data = reader.edit(rng.choice(list(sound.values())), rng)
        begun = time.process_time()
        good, wrong = outcome(reader, data, tmp_path)
        slowest = max(slowest, time.process_time() - begun)
        accepted += good
        if wrong:
            (tmp_path / "case").write_bytes(data)
            pytest.fail(f"seed {SEED}, {name}, case {case} ({tmp_path / 'case'}): {wrong}")
    record_property(
        "told",
        f"{name}: seed {SEED}, cases 0 to {case}, {accepted} accepted, slowest {slowest:.2f} s",
    )
    assert megabytes() - before < MOST_MEGABYTES
