"""How large the slow tier is, and what it tells at its end.

SPF_LORA_SLOW_MINUTES (20) is what the whole of it may take on two cores; with less there are fewer
cases, in the same order. SPF_LORA_SLOW_SEED (7) chooses other cases.
"""

import os
import time

MINUTES = float(os.environ.get("SPF_LORA_SLOW_MINUTES", "20"))
SEED = int(os.environ.get("SPF_LORA_SLOW_SEED", "7"))


def seconds(share):
    """Return the wall time of a share of the tier."""
    return 60 * MINUTES * share


def rounds(share):
    """Count from 0 until a share of the tier's time is over; at least once."""
    end = time.monotonic() + seconds(share)
    count = 0
    while count == 0 or time.monotonic() < end:
        yield count
        count += 1


def part_of(count, *, least=1):
    """Return how many of `count` things are done in a tier of so many minutes."""
    return max(least, round(count * min(1, MINUTES / 20)))
