"""Local drawing in a pipeline of diffusers: LoRAs change the base's own picture where they answer.

It is `draw.local` with the pipeline's own loop: three runs of it from one noise, the first without
LoRAs, the last with the latents of the first put back outside of the control map after each step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from spf_lora.draw.late import begun
from spf_lora.errors import PromptError
from spf_lora.method import control_map

_CALLBACK = "callback_on_step_end"
# what a prediction is -> how far pictures are apart for predictions that are 1 apart, given the
# share of the signal that is left at that time, alphas_cumprod
_PICTURE_SCALES: dict[str, Callable[[float], float]] = {
    "epsilon": lambda kept: ((1 - kept) / kept) ** 0.5,
    "v_prediction": lambda kept: (1 - kept) ** 0.5,
    "sample": lambda kept: 1.0,
}


@dataclass
class _Run:
    """What one run of the pipeline did.

    Attributes:
        latents: after each step.
        noisy: what the U-Net saw, of the prompts alone, at each of its calls.
        times: the time step of each.
        predicted: the U-Net's predictions of the prompts alone.
        given: what else the U-Net was given for the prompts, empty prompts first if guided.
        output: what the pipeline returned.
    """

    latents: list[torch.Tensor] = field(default_factory=list)
    noisy: list[torch.Tensor] = field(default_factory=list)
    times: list[torch.Tensor] = field(default_factory=list)
    predicted: list[torch.Tensor] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    output: Any = None


@torch.no_grad()
def local(
    pipe: Any,
    prompt: str | Sequence[str],
    base_prompt: str | Sequence[str],
    adapters: Mapping[str, float],
    *,
    each: Sequence[str] = (),
    start_percent: float = 0.0,
    area_cap: float = control_map.AREA_CAP,
    **how: Any,
) -> Any:
    """Draw a prompt locally and return what the pipeline returns.

    Args:
        pipe: a pipeline with `unet`, `scheduler` and `callback_on_step_end`.
        prompt: one, or one per picture.
        base_prompt: the same without the attributes.
        adapters: names of loaded LoRAs and their strengths; no other LoRA acts.
        each: of several LoRAs the prompt that asks for one of them, of each. Their maps are joined;
            the loudest would hide the others in one map of all.
        start_percent: share of the time steps, in [0, 1), that are drawn as the base draws them.
        area_cap: largest share of the picture that a map may cover, in (0, 1].
        how: what the pipeline takes besides: `generator` or `latents`, `num_inference_steps`,
            `guidance_scale`, `negative_prompt`, `num_images_per_prompt`, `output_type`.

    Raises:
        PromptError: the pipeline or what is asked for does not fit.
    """
    prompts, within = _texts(prompt), _texts(base_prompt)
    _check(pipe, prompts, within, adapters, each, start_percent, how)
    with _repeatable(how) as again, _switchable(pipe, adapters) as switch:

        def drawn(texts: list[str], *, on: bool, **more: Any) -> _Run:
            again()
            return _run(pipe, texts, {**how, **more}, switch, on=on)

        hidden = {"output_type": "latent", "return_dict": False}
        base = drawn(within, on=False, **hidden)
        late = _late(base.given, start_percent) if start_percent else None
        where = torch.zeros_like(base.latents[0][:, :1], dtype=torch.float32)
        for texts in [[one] * len(prompts) for one in each] or [prompts]:
            response = drawn(texts, on=True, late=late, **hidden)
            answers = [
                _apart(pipe, switch, *pair, start_percent)
                for pair in ((base, response, True), (response, base, False))
            ]
            own = control_map.region(*answers, area_cap=area_cap)
            asked = [a != b for a, b in zip(texts, within, strict=True)]
            copies = len(own) // len(asked)
            rows = torch.tensor(asked, device=own.device).repeat_interleave(copies)
            where = torch.maximum(where, own * rows[:, None, None, None])
        return drawn(prompts, on=True, late=late, keep=(base.latents, where)).output


def _texts(prompt: str | Sequence[str]) -> list[str]:
    return [prompt] if isinstance(prompt, str) else list(prompt)


def _check(
    pipe: Any,
    prompts: Sequence[str],
    within: Sequence[str],
    adapters: Mapping[str, float],
    each: Sequence[str],
    start_percent: float,
    how: Mapping[str, Any],
) -> None:
    """Refuse what cannot be drawn, before anything is drawn."""
    unet, kind = getattr(pipe, "unet", None), _prediction_type(pipe)
    if unet is None or kind not in _PICTURE_SCALES:
        raise PromptError(
            f"{type(pipe).__name__} cannot draw locally: it has "
            + ("no U-Net" if unet is None else f"predictions of the type {kind}"),
            hint="take a pipeline of Stable Diffusion, as StableDiffusionPipeline",
        )
    if len(prompts) != len(within):
        raise PromptError(
            f"there are {len(prompts)} prompts and {len(within)} base prompts",
            hint="each prompt needs the same prompt without the attribute",
        )
    if not 0 <= start_percent < 1:
        raise PromptError(
            f"start_percent={start_percent} is no share of the steps",
            hint="give a number from 0 to 0.99",
        )
    if taken := sorted({_CALLBACK, "callback_on_step_end_tensor_inputs"} & set(how)):
        raise PromptError(
            f"local drawing has a {taken[0]} of its own", hint="leave it out of the call"
        )
    loaded = {name for names in pipe.get_list_adapters().values() for name in names}
    if unknown := sorted(set(adapters) - loaded) or (["no LoRA"] if not adapters else []):
        raise PromptError(
            f"the pipeline has not loaded {unknown[0]}" if adapters else "no LoRA is named",
            hint='pipe.load_lora_weights(FILE, adapter_name="beard") loads one; loaded: '
            + (", ".join(sorted(loaded)) or "none"),
        )
    if each and len(each) != len(adapters):
        raise PromptError(
            f"there are {len(adapters)} LoRAs and {len(each)} prompts that ask for one each",
            hint="give one prompt in `each` for every LoRA",
        )


def _prediction_type(pipe: Any) -> str:
    return str(pipe.scheduler.config.get("prediction_type", "flow"))


@contextmanager
def _repeatable(how: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """Yield what makes the next run draw the same noise as the first."""
    if how.get("generator") is None:
        how["generator"] = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    made = how["generator"]
    generators = [made] if isinstance(made, torch.Generator) else list(made)
    states = [one.get_state() for one in generators]

    def again() -> None:
        for one, state in zip(generators, states, strict=True):
            one.set_state(state)

    yield again


@contextmanager
def _switchable(pipe: Any, adapters: Mapping[str, float]) -> Iterator[Callable[[bool], None]]:
    """Yield what puts the named LoRAs on and all LoRAs off; afterwards all are as they were."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    models = [getattr(pipe, name, None) for name in ("unet", "text_encoder", "text_encoder_2")]
    layers = [
        layer
        for model in models
        if isinstance(model, nn.Module)
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer)
    ]
    before = [(one.active_adapters, one.disable_adapters, dict(one.scaling)) for one in layers]

    def switch(on: bool) -> None:
        for layer in layers:
            layer.enable_adapters(on)

    try:
        pipe.set_adapters(list(adapters), list(adapters.values()))
        yield switch
    finally:
        for layer, (active, disabled, scaling) in zip(layers, before, strict=True):
            layer.set_adapter(active)
            layer.enable_adapters(not disabled)
            layer.scaling.update(scaling)


def _run(
    pipe: Any,
    texts: list[str],
    how: Mapping[str, Any],
    switch: Callable[[bool], None],
    *,
    on: bool,
) -> _Run:
    """Run the pipeline once and look at what its U-Net is given and says.

    Args:
        pipe: see `local`.
        texts: the prompts.
        how: of the pipeline; `late`, what `_late` returned, and `keep`, the latents of the base's
            run and where they are not put back, are ours.
        switch: see `_switchable`.
        on: whether LoRAs act.
    """
    run, settings = _Run(), dict(how)
    late, keep = settings.pop("late", None), settings.pop("keep", None)

    def before(unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run.given = kwargs
        if late is None:
            return None
        given = late(args[1])
        switch(given is None)
        return (args, given) if given is not None else None

    def after(_unet: nn.Module, args: Any, _kwargs: Any, result: Any) -> None:
        pictures = len(texts) * settings.get("num_images_per_prompt", 1)
        run.noisy.append(args[0][-pictures:])
        run.times.append(args[1])
        run.predicted.append(result[0][-pictures:])

    def at_end(_pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents = tensors["latents"]
        if keep is not None:
            base, where = keep
            latents = torch.lerp(base[step], latents, where.to(latents.dtype))
        run.latents.append(latents)
        return {"latents": latents}

    switch(on)
    handles = [
        pipe.unet.register_forward_pre_hook(before, with_kwargs=True),
        pipe.unet.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        run.output = pipe(texts, **settings, **{_CALLBACK: at_end})
    finally:
        for handle in handles:
            handle.remove()
    return run


def _late(
    given: Mapping[str, Any], start_percent: float
) -> Callable[[torch.Tensor], Mapping[str, Any] | None]:
    """Return what tells what the U-Net is given instead at a time step that is too early."""
    return lambda t: None if begun(t, start_percent) else given


def _apart(
    pipe: Any,
    switch: Callable[[bool], None],
    along: _Run,
    other: _Run,
    on: bool,
    start_percent: float,
) -> torch.Tensor:
    """Return how far the other model's pictures are from a run's in all, (batch, 1, h, w)."""
    scale = _PICTURE_SCALES[_prediction_type(pipe)]
    kept = pipe.scheduler.alphas_cumprod
    given = _of_prompts(other.given, len(along.noisy[0]))
    total = torch.zeros_like(along.noisy[0][:, :1], dtype=torch.float32)
    switch(on)
    for noisy, t, own in zip(along.noisy, along.times, along.predicted, strict=True):
        if begun(t, start_percent):
            prediction = pipe.unet(noisy, t, **given)[0]
            at = min(round(float(t)), len(kept) - 1)
            distance = control_map.apart(prediction.float(), own.float())
            total += distance * scale(float(kept[at]))
    return total


def _of_prompts(given: Any, pictures: int) -> Any:
    """Return what the U-Net was given with the rows of the prompts alone, nested tables too."""
    if isinstance(given, Mapping):
        return {name: _of_prompts(value, pictures) for name, value in given.items()}
    return given[-pictures:] if isinstance(given, torch.Tensor) and given.ndim else given
