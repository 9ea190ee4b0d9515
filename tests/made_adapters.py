"""Made-up adapters of any shape, and a shelf of them, as fixtures."""

import numpy as np
import pytest

from spf_lora.adapters import sd15
from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.adapters.format.card import Card, file_metadata
from spf_lora.adapters.format.hashes import content_id
from spf_lora.adapters.module import Adapter, Module
from spf_lora.registry import stack_edit

# one of every kind: attention, 1x1 and 3x3 convolution, feed-forward, time, text encoder
SAMPLE_NAMES = (
    "unet.down_blocks.0.attentions.0.proj_in",
    "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k",
    "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0",
    "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "unet.down_blocks.0.resnets.0.conv1",
    "unet.up_blocks.2.resnets.1.time_emb_proj",
    "unet.down_blocks.1.downsamplers.0.conv",
    "text_encoder.text_model.encoder.layers.3.self_attn.q_proj",
    "text_encoder.text_model.encoder.layers.10.mlp.fc2",
)

KEYS_AND_VALUES = [
    f"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_{one}" for one in "kv"
]


def make_module(name, shape, rank, alpha, seed=0):
    rng = np.random.default_rng([seed, *name.encode()])
    taps = (1,) * (len(shape) - 2)
    down = rng.normal(scale=0.1, size=(rank, *shape[1:])).astype(np.float32)
    up = rng.normal(scale=0.1, size=(shape[0], rank, *taps)).astype(np.float32)
    return Module(name, down, up, alpha)


def small(shape):
    """A weight shape with the same dimensions, small enough to write thousands of."""
    return (*(min(size, 12 + at) for at, size in enumerate(shape[:2])), *shape[2:])


@pytest.fixture
def make_adapter():
    """Build an adapter; `ranks` and `alphas` are one number or one for each module in turn."""

    def make(names=SAMPLE_NAMES, ranks=4, alphas=2.0, full_size=False, metadata=None, seed=0):
        modules = {}
        for at, name in enumerate(names):
            shape = sd15.weight_shapes()[name]
            rank = ranks[at % len(ranks)] if isinstance(ranks, tuple) else ranks
            alpha = alphas[at % len(alphas)] if isinstance(alphas, tuple) else alphas
            shape = shape if full_size else small(shape)
            modules[name] = make_module(name, shape, rank, alpha, seed)
        return Adapter(modules, metadata or {})

    return make


@pytest.fixture
def card():
    return Card(
        attribute="beard",
        target_text="a beard",
        trigger="a beard",
        base_id="sd15:0123",
        recipe={"steps": 100, "rank": 4},
        parents=("ab" * 32,),
        dataset_digest="cd" * 32,
        metrics={"response": 0.25},
        versions={"spf-lora": "0.1.0"},
        seed=7,
    )


@pytest.fixture
def full_metadata(card):
    return file_metadata(card, rank=4, alpha=2.0, title="Beard", author="somebody")


def delta(module):
    """What a module adds to its weight, as a float64 matrix (out, in * taps)."""
    up = np.asarray(module.up, np.float64).reshape(-1, module.rank)
    return module.scale * up @ np.asarray(module.down, np.float64).reshape(module.rank, -1)


@pytest.fixture(scope="session")
def delta_of():
    return delta


@pytest.fixture(scope="session")
def make_module_of():
    """Build one module of rank 4 by name."""
    return lambda name: make_module(name, small(sd15.weight_shapes()[name]), 4, 4.0)


@pytest.fixture
def put(shelf, make_adapter):
    """Write an adapter of the shelf; return its content id."""

    def write(name, seed, *, base_id="base:1", onto=(), card=True):
        rows = [{"name": "glasses", "content_id": one, "strength": 1.0} for one in onto]
        table = {"onto": rows} if rows else {}
        told = Card(name, f"a {name}", f"a {name}", base_id, recipe=table, parents=tuple(onto))
        entries = file_metadata(told, rank=4, alpha=2.0, title=name) if card else {}
        adapter = make_adapter(KEYS_AND_VALUES, seed=seed, metadata=entries)
        write_adapter(adapter, shelf / f"{name}.safetensors", overwrite=True)
        return content_id(read_adapter(shelf / f"{name}.safetensors"))

    return write


@pytest.fixture
def ids(put):
    return {name: put(name, seed) for seed, name in enumerate(("beard", "glasses", "hat"))}


@pytest.fixture
def portrait(shelf, ids):
    return stack_edit.create("portrait", [("beard", 1.0), ("glasses", -0.5)], shelf)
