"""What a training will hold in memory, by part, told without holding it.

One step of the real U-Net runs forward and backward on fake tensors, which have shapes but no
numbers, and `Tally` counts them. Weights, adapter and optimizer follow from the shapes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from spf_lora.adapters.attach import attach_trainable, attach_trainable_text
from spf_lora.method import losses
from spf_lora.method.dual_path import dual_path
from spf_lora.training.encoders import ReadingUnet
from spf_lora.training.peak_memory import Tally
from spf_lora.training.precision import PRECISIONS, set_up

_TOKENS = 77
_8BIT_FROM, _BLOCK = 4096, 256  # bitsandbytes keeps smaller tensors' moments in fp32
_MOMENTS = {"adamw": 2, "adamw8bit": 2, "paged-adamw8bit": 2, "lion8bit": 1, "prodigy": 4}
GPU_OWN = 600_000_000  # of CUDA's context and libraries' workspaces; not measured here


@dataclass(frozen=True)
class Needs:
    """What decides the memory of a step.

    Attributes:
        side: of the latents.
        pictures: computed at once.
        preset: layers with an adapter.
        rank: of the adapter.
        optimizer: a row of `OPTIMIZERS`.
        precision: of the frozen weights and the computation.
        gradient_checkpointing: whether activations are computed twice.
        dual: whether a step runs the frozen model too.
        watched: whether it compares queries or attention.
        response: whether it decodes predictions.
        cuda: whether autocast is CUDA's, which computes norms in fp32, and not the CPU's.
    """

    side: int
    pictures: int
    preset: str
    rank: int
    optimizer: str
    precision: str = "fp32"
    gradient_checkpointing: bool = False
    dual: bool = True
    watched: bool = False
    response: bool = False
    cuda: bool = True


@dataclass(frozen=True)
class Estimate:
    """Bytes by part; their sum is the peak of a step."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    reference_targets: int
    response_loss: int

    @property
    def total(self) -> int:
        """The peak."""
        return sum(vars(self).values())


def optimizer_bytes(name: str, sizes: Iterable[int]) -> int:
    """Return the bytes of an optimizer's moments.

    Args:
        name: a row of `OPTIMIZERS`.
        sizes: number of weights of each trainable tensor.
    """
    each = 0
    for size in sizes:
        if "8bit" in name and size >= _8BIT_FROM:
            each += size + 4 * math.ceil(size / _BLOCK)
        else:
            each += 4 * size
    return _MOMENTS[name] * each


def estimate(
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    needs: Needs,
    text: Mapping[str, Any] | None = None,
) -> Estimate:
    """Weigh one step.

    Args:
        unet: the U-Net's config.
        vae: the VAE's; decodes for a response loss.
        needs: what is trained, and how.
        text: the text encoder's config, where it is trained too.
    """
    models = (unet, vae, text)
    plain, frozen, sizes = _peak(models, replace(needs, dual=False, response=False))
    dual = max(plain, _peak(models, replace(needs, response=False))[0]) if needs.dual else plain
    whole = dual
    if needs.dual and needs.response:
        peak, frozen, _ = _peak(models, needs)
        whole = max(dual, peak)
    adapter = 4 * sum(sizes)
    return Estimate(
        weights=frozen,
        adapter=adapter,
        gradients=min(adapter, plain),
        optimizer=optimizer_bytes(needs.optimizer, sizes),
        activations=max(0, plain - adapter),
        reference_targets=dual - plain,
        response_loss=whole - dual,
    )


_Configs = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any] | None]


def _peak(configs: _Configs, needs: Needs) -> tuple[int, int, list[int]]:
    """Return a step's peak above the weights, the frozen weights' bytes, the trainable sizes."""
    (unet, vae, text), encoder, more = configs, None, list[int]()
    model, decoder, frozen, sizes = _models(unet, vae, needs)
    if text is not None:
        encoder, more = _text_encoder(text, needs)
        frozen += 4 * sum(p.numel() for p in encoder.parameters()) - 4 * sum(more)
    width = unet["cross_attention_dim"]
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.enable_grad():
        for one in filter(None, (model, decoder, encoder)):
            _make_fake(one, PRECISIONS[needs.precision] if one is model else torch.float32)
        set_up(
            model, precision=needs.precision, gradient_checkpointing=needs.gradient_checkpointing
        )
        if needs.cuda:
            _norms_in_fp32(model)
        latents = torch.randn(needs.pictures, unet["in_channels"], needs.side, needs.side)
        states = torch.randn(needs.pictures, _TOKENS, width)
        if encoder is not None:
            states = torch.zeros(needs.pictures, _TOKENS, dtype=torch.long)
        t = torch.zeros(needs.pictures, dtype=torch.long)
        read = [] if encoder is None else [*encoder.parameters(), *encoder.buffers()]
        known = [*model.parameters(), *decoder.parameters(), *read, latents, states, t]
        reads = model if encoder is None else ReadingUnet(model, encoder)
        with Tally(known) as tally:
            _loss(reads, decoder, latents, states, t, needs).backward()
        assert fake is not None
        return tally.peak, frozen, sizes + more


def _text_encoder(config: Mapping[str, Any], needs: Needs) -> tuple[Any, list[int]]:
    """Return a text encoder on the meta device with its adapter, and the trainable sizes."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**config)).requires_grad_(False).eval()
    attach_trainable_text(model, rank=needs.rank, alpha=1.0, seed=0)
    return model, [p.numel() for p in model.parameters() if p.requires_grad]


def _models(
    unet: Mapping[str, Any], vae: Mapping[str, Any], needs: Needs
) -> tuple[Any, Any, int, list[int]]:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(dict(unet)).requires_grad_(False).eval()
        decoder = AutoencoderKL.from_config(dict(vae)).requires_grad_(False).eval()
    count = sum(p.numel() for p in model.parameters())
    attach_trainable(model, preset=needs.preset, rank=needs.rank, alpha=1.0, seed=0)
    sizes = [p.numel() for p in model.parameters() if p.requires_grad]
    bytes_each = torch.empty(0, dtype=PRECISIONS[needs.precision]).element_size()
    weights = count * bytes_each
    if needs.response:
        weights += 4 * sum(p.numel() for p in decoder.parameters())
    return model, decoder, weights, sizes


def _make_fake(model: Any, dtype: torch.dtype) -> None:
    """Give a model on the meta device fake weights; call it inside a FakeTensorMode."""
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                kind = torch.float32 if weight.requires_grad else dtype
                fake = torch.empty(weight.shape, dtype=kind)
                module._parameters[name] = torch.nn.Parameter(fake, weight.requires_grad)


def _norms_in_fp32(model: Any) -> None:
    """Compute norms in fp32, as CUDA's autocast does; call it inside a FakeTensorMode."""
    for module in model.modules():
        if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            for name, weight in list(module.named_parameters(recurse=False)):
                module._parameters[name] = torch.nn.Parameter(weight.detach().float(), False)
            module.register_forward_pre_hook(lambda _, args: (args[0].float(),))


def _loss(
    unet: Any, vae: Any, latents: torch.Tensor, states: torch.Tensor, t: torch.Tensor, needs: Needs
) -> Any:
    """Return the loss with all terms that `Needs` asks for, as the objectives compute it."""
    if not needs.dual:
        eps = unet(latents, t, states, return_dict=False)[0]
        return losses.denoise(eps, latents)
    reference, response = dual_path(
        unet, latents, t, base_states=states, full_states=states, watched=needs.watched
    )
    control = torch.zeros_like(latents[:, :1])
    total = losses.denoise(response.eps, latents)
    if not needs.watched:  # a rival holds the prediction itself
        total = total + losses.denoise(response.eps, reference.eps, 1 - control)
    else:
        groups = torch.zeros(len(latents), _TOKENS, _TOKENS)
        total = total + losses.fine_grained(response.queries, reference.queries, control)
        total = total + losses.text_consistent(
            response.attention, reference.attention, groups, groups, control
        )
    if needs.response:
        side = min(needs.side, 32)
        small = torch.nn.functional.interpolate(response.eps, size=(side, side))
        total = total + vae.decode(small).sample.square().mean()
    return total
