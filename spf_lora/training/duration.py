"""How long a training will take here, by phase, told without doing it.

Floating-point operations follow from the shapes of the base's configs, no weights are needed. How
fast this machine is, one block of the real U-Net says, in a second or two.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from spf_lora.base.load import default_device
from spf_lora.data.completion import NONE
from spf_lora.recipe.schema import Recipe
from spf_lora.training.baselines import RIVALS
from spf_lora.training.calibrate import PICTURES
from spf_lora.training.clean import SHOWING, SHOWN
from spf_lora.training.fit_gpu import base_configs, needs_of, text_config
from spf_lora.training.pairs import CHOOSING, DRAWING
from spf_lora.training.precision import PRECISIONS
from spf_lora.training.prepare import OWN
from spf_lora.training.words import MOST_TEXTS, READING

_TOKENS = 77
_PREVIEW = 600  # passes of the U-Net: 6 rows, 2 pictures, 25 steps, each with and without a prompt
_PAIR_LOCAL, _PAIR_GLOBAL = 9, 4  # passes for each step of a pair; see `draw_trajectories`
_OWN_PASSES = 30  # of a picture of the base's own: 15 steps, each with and without a prompt
_TWICE = 1.4  # times a step, where activations are computed twice
_PAPERS = 4  # passes of a step: 2 of the first half, 6 of the other, which watches and decodes
_FIXED = {"load the base": 5.0, "write": 1.0}  # seconds: the libraries, the files
_BYTES_A_SECOND = 300e6  # of weights, from a disk
_PICTURE = 0.04  # seconds to read one, or to draw a portrait
_WORK: dict[str, tuple[int, int, int]] = {}  # of bases that were counted already
_LEAST_TIMED = 0.3  # seconds
_ROWS, _SIDE = 8, 32  # of the block that is timed: a small base is as fast as its batches are large


def estimate_seconds(recipe: Recipe, pictures: int) -> dict[str, float]:
    """Return the seconds of each phase of a first run, in order; later runs find much in the cache.

    Args:
        recipe: what decides the training.
        pictures: there are.
    """
    cost = _costs(recipe)
    method, distil = recipe.training.method, recipe.distil
    rival = RIVALS.get(method)
    step = recipe.data.batch_size * cost.a_pass
    if recipe.training.gradient_checkpointing:
        step *= _TWICE
    found = {
        "load the base": _FIXED["load the base"] + 4 * cost.weights / _BYTES_A_SECOND,
        "read pictures": _PICTURE * pictures,
    }
    if recipe.data.vocabulary != NONE:
        if recipe.training.base != "embedded" or recipe.data.clip != "base":
            found[OWN] = _OWN_PASSES * cost.a_pass * PICTURES
        found["complete captions"] = cost.an_encoding * pictures
    if recipe.attribute.control == "words" and not recipe.adapter.text_encoder:
        found[READING] = cost.a_text * MOST_TEXTS
    found["encode pictures"] = cost.an_encoding * pictures
    if rival is not None and rival.own_share:
        drawn = found.get(OWN, 0.0)
        found[OWN] = drawn + _OWN_PASSES * cost.a_pass * pictures
    forwards = rival.forwards if rival else _PAPERS if method == "spf-portrait" else 2
    found["learn" if rival is None else method] = forwards * step * recipe.learn.steps
    if method == "ours" and distil.steps:
        chosen = {
            "show the pictures to CLIP": cost.an_encoding * pictures,
            CHOOSING: 2 * cost.an_encoding * distil.pairs,
        }
        found |= _distilling(recipe, cost.a_pass, step, chosen)
    return found | {"draw the preview": _PREVIEW * cost.a_pass, "write": _FIXED["write"]}


def estimate_cleaning(recipe: Recipe) -> dict[str, float]:
    """Return the seconds of each phase of cleaning an adapter, in order."""
    cost = _costs(recipe)
    step = recipe.data.batch_size * cost.a_pass
    if recipe.training.gradient_checkpointing:
        step *= _TWICE
    found = {"load the base": _FIXED["load the base"] + 4 * cost.weights / _BYTES_A_SECOND}
    chosen = {}
    if recipe.attribute.control == "words":
        found[SHOWING] = 2 * recipe.distil.sampler_steps * SHOWN * cost.a_pass
        chosen = {CHOOSING: cost.an_encoding * (SHOWN + 2 * recipe.distil.pairs)}
    found |= _distilling(recipe, cost.a_pass, step, chosen)
    return found | {"draw both previews": 3 * _PREVIEW * cost.a_pass, "write": _FIXED["write"]}


def seconds_a_pass(recipe: Recipe) -> float:
    """Return the seconds of the U-Net's pass over one picture, with one prompt."""
    return _costs(recipe).a_pass


class _Costs(NamedTuple):
    """What a recipe's base costs on this machine.

    Attributes:
        a_pass: seconds of the U-Net's pass over one picture, with one prompt.
        an_encoding: seconds to encode a picture.
        a_text: seconds to encode a text.
        weights: of the base, how many.
    """

    a_pass: float
    an_encoding: float
    a_text: float
    weights: int


def _costs(recipe: Recipe) -> _Costs:
    unet, vae = base_configs(recipe.training.base)
    side = needs_of(recipe, unet, vae).side
    key = f"{unet} {vae} {side}"
    if key not in _WORK:
        _WORK[key] = _work(unet, vae, side)
    passes, encode, weights = _WORK[key]
    a_flop = _seconds_a_flop(unet, side, recipe.training.precision)
    text = _reading(text_config(recipe.training.base))
    return _Costs(a_flop * passes, a_flop * encode, a_flop * text, weights)


def _distilling(
    recipe: Recipe, a_pass: float, step: float, chosen: Mapping[str, float]
) -> dict[str, float]:
    """Return the seconds of drawing pairs, of choosing some, and of learning from them."""
    distil = recipe.distil
    each = _PAIR_GLOBAL if recipe.attribute.scope == "global" else _PAIR_LOCAL
    held = distil.base_prompts + distil.empty_prompts  # the frozen model is asked about them
    return {
        DRAWING: each * distil.sampler_steps * distil.pairs * a_pass,
        **chosen,
        "distil": (2 + held) * step * distil.steps,
    }


def _work(unet: Mapping[str, Any], vae: Mapping[str, Any], side: int) -> tuple[int, int, int]:
    """Return operations of a U-Net's pass and of encoding a picture, and how many weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(dict(unet)).eval()
        coder = AutoencoderKL.from_config(dict(vae)).eval()
        latents = torch.empty(1, unet["in_channels"], side, side)
        states = torch.empty(1, _TOKENS, unet["cross_attention_dim"])
        pixels = torch.empty(1, 3, *(2 * (side * 2 ** (len(vae["block_out_channels"]) - 1),)))
        moment = torch.zeros(1, dtype=torch.long)
        one = _operations(lambda: model(latents, moment, states, return_dict=False))
        other = _operations(lambda: coder.encode(pixels))
    weights = sum(p.numel() for part in (model, coder) for p in part.parameters())
    return one, other, weights


def _reading(text: Mapping[str, Any]) -> int:
    """Return operations of a text encoder's pass over one prompt: its layers' matrices, twice."""
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers")
    wide, inner, layers = (int(text[size]) for size in sizes)
    return 2 * _TOKENS * layers * (4 * wide * wide + 2 * wide * inner)


def _operations(run: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _seconds_a_flop(unet: Mapping[str, Any], side: int, precision: str) -> float:
    """Time the U-Net's first block on this machine."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(dict(unet)).eval()
    block, wide = model.down_blocks[0], model.config.block_out_channels[0]
    device, dtype = default_device(), PRECISIONS[precision]
    rows, side = (_ROWS, side) if side < _SIDE else (1, _SIDE)
    words = (rows, _TOKENS, unet["cross_attention_dim"])
    shapes = ((rows, wide, side, side), (rows, 4 * wide), words)

    def run(on: torch.device) -> None:
        latents, moment, states = (torch.zeros(s, device=on, dtype=dtype) for s in shapes)
        more = {"encoder_hidden_states": states} if hasattr(block, "attentions") else {}
        block(latents, moment, **more)

    block.to(dtype=dtype)
    operations = _operations(lambda: run(torch.device("meta")))
    block.to_empty(device=device)
    for weight in block.parameters():
        torch.nn.init.zeros_(weight)
    return _shortest(lambda: run(device), device) / operations


@torch.no_grad()
def _shortest(run: Any, device: torch.device) -> float:
    """Return the seconds of the fastest of a few runs."""
    times: list[float] = []
    while not times or (sum(times) < _LEAST_TIMED and len(times) < 20):
        begun = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times)
