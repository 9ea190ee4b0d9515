"""A base used more than once in a process: what one use changes, the next does not see."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from spf_lora.base.load import Base


@contextmanager
def shared(base: Base, *, apart: bool = False) -> Iterator[Base]:
    """Lend a base whose U-Net and scheduler may be changed; the weights are not copied.

    Args:
        base: stays as it is; it must not be used meanwhile.
        apart: the lent U-Net's weights will be replaced, so the base's own wait in main memory
            rather than on the GPU.
    """
    own = {
        id(one): torch.nn.Parameter(one.data, requires_grad=False) for one in base.unet.parameters()
    }
    unet = copy.deepcopy(base.unet, own)
    device = base.device if apart else None
    if device is not None:
        torch.nn.Module.to(base.unet, "cpu")
    del own
    try:
        yield replace(base, unet=unet, scheduler=copy.deepcopy(base.scheduler))
    finally:
        del unet
        if device is not None:
            torch.nn.Module.to(base.unet, device)
