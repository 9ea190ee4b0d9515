"""Keep other libraries' talk off the terminal: only what a user can act on is said."""

import logging


def hush() -> None:
    """Silence advice about optional kernels and progress bars of files that load in a blink."""
    # bitsandbytes recommends a kernel for 4-bit models, which are not used here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
