"""Small adapters and the dense float64 reference that merges are measured by."""

import numpy as np

from spf_lora.adapters import sd15
from spf_lora.adapters.format.adapter_file import Adapter, Module
from spf_lora.adapters.format.card import Card, file_metadata

# linear, narrow, 1x1 and 3x3 convolution, wide feed-forward, text encoder
NAMES = (
    "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k",
    "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "unet.down_blocks.0.attentions.0.proj_in",
    "unet.down_blocks.0.resnets.0.conv1",
    "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0",
    "text_encoder.text_model.encoder.layers.3.self_attn.q_proj",
)
SIZES = {320: 20, 640: 24, 768: 28, 1280: 32, 10240: 44}


def shape(name):
    """A weight's shape with every width made small, equal widths staying equal."""
    out, into, *taps = sd15.weight_shapes()[name]
    return (SIZES[out], SIZES[into], *taps)


def make(seed, ranks=4, alpha=2.0, names=NAMES, dtype=np.float32, base_id="sd15:0123", text="a"):
    """An adapter with a falling spectrum, as trained ones have."""
    rng = np.random.default_rng(seed)
    modules = {}
    for at, name in enumerate(names):
        out, into, *taps = shape(name)
        rank = ranks[at % len(ranks)] if isinstance(ranks, tuple) else ranks
        scale = alpha[at % len(alpha)] if isinstance(alpha, tuple) else alpha
        down = rng.normal(size=(rank, into, *taps)) / (1 + np.arange(rank)).reshape(
            -1, *(1 for _ in (into, *taps))
        )
        up = rng.normal(size=(out, rank, *(1 for _ in taps)))
        modules[name] = Module(name, down.astype(dtype), up.astype(dtype), scale)
    card = Card(f"attribute-{text}", f"a {text}", f"a {text}", base_id)
    entries = file_metadata(card, rank=4, alpha=2.0, title=text) if base_id else {}
    return Adapter(modules, entries)


def delta(module):
    """What a module adds, as a float64 matrix (out, in * taps)."""
    up = np.asarray(module.up, np.float64).reshape(-1, module.rank)
    return module.scale * up @ np.asarray(module.down, np.float64).reshape(module.rank, -1)


def truth(adapters, weights):
    """The dense float64 reference: module -> weighted sum."""
    names = sorted({name for one in adapters for name in one.modules})
    return {
        name: sum(
            weight * delta(one.modules[name])
            for one, weight in zip(adapters, weights, strict=True)
            if name in one.modules
        )
        for name in names
    }


def cut(matrix, rank):
    """The best approximation of that rank, by a full SVD."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def distance(modules, reference):
    """Frobenius norm of the difference over that of the reference, whole adapter."""
    assert modules.keys() == reference.keys()
    error = sum(np.sum((delta(modules[name]) - one) ** 2) for name, one in reference.items())
    return float(np.sqrt(error / sum(np.sum(one**2) for one in reference.values())))
