"""Started by a test as `train` starts its siblings: shares numbers, or is busy, until the end."""

import sys

from spf_lora.cli.siblings import team

with team((), ()) as own:
    print("what it prints disturbs nobody")
    while "busy" in sys.argv:
        pass
    siblings = own.join()
    while True:
        siblings.mean(float(siblings.rank))
