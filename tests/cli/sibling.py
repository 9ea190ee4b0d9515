"""Started by a test as `train` starts its siblings: shares a number once, then dies; or is busy."""

import os
import signal
import sys

from spf_lora.cli.siblings import team

with team((), ()) as join:
    print("what it prints disturbs nobody")
    while "busy" in sys.argv:
        pass
    siblings = join()
    siblings.mean(float(siblings.rank))
    os.kill(os.getpid(), signal.SIGKILL)
