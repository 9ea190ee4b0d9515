"""What the tests of measuring share: random adapters and made-up draws."""

import numpy as np

from spf_lora.adapters.module import Adapter, Module
from spf_lora.draw.act import NOTHING, acting
from spf_lora.draw.sample import Sampling
from spf_lora.evaluate.result import CHANNELS, Draw
from spf_lora.evaluate.run import Measurement, evaluate


def random_adapter(unet, *, size=0.1, seed=0, metadata=None) -> Adapter:
    """Random factors on every cross-attention's keys and values."""
    rng = np.random.default_rng(seed)
    modules = {}
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            out, width = layer.weight.shape
            down = rng.normal(size=(4, width)).astype(np.float32) * size
            up = rng.normal(size=(out, 4)).astype(np.float32)
            modules[f"unet.{name}"] = Module(f"unet.{name}", down, up, 4.0)
    return Adapter(modules, metadata or {})


def evaluate_adapter(base, adapter, *, steps=2, batch_size=32, gallery, name="", **how):
    """Evaluate one adapter, or none, with the settings of a measurement by name."""
    options = {one: how.pop(one) for one in ("on_progress",) if one in how}
    acts = NOTHING if adapter is None else acting(adapter)
    sampling = Sampling(steps=steps, batch_size=batch_size)
    return evaluate(
        base, acts, Measurement(**how), gallery=gallery, name=name, sampling=sampling, **options
    )


def made_up(
    prompts, strengths, *, response, pollution, noise=0.0, seeds=2, seed=0, ceiling=1.0
) -> list[Draw]:
    """Draws whose response and pollution are functions of the strength, with noise by prompt."""
    rng = np.random.default_rng(seed)
    draws = []
    for case in range(prompts):
        shift = noise * rng.normal()
        for index in range(seeds):
            for strength in strengths:
                moved = max(0.0, (pollution(strength) + shift) * ceiling)
                numbers = {"score": response(strength), "score:I0": 0.0, "score:truth": 1.0}
                numbers |= {"shown": response(strength), "unasked": 0.0, "flips": 0.0, "P": moved}
                numbers |= dict.fromkeys(CHANNELS, moved)
                numbers |= {f"ceiling:{c}": ceiling for c in CHANNELS}
                numbers |= {f"leak:{c}": moved / 2 for c in CHANNELS}
                numbers |= {f"leak-ceiling:{c}": ceiling for c in CHANNELS}
                draws.append(Draw(case, 100 * case + index, strength, {}, numbers))
    return draws
