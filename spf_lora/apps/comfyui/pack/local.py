"""Local drawing with any sampler: LoRAs change the base's own picture where they answer.

The sampler runs three times or more from one noise: without LoRAs; with them, for each LoRA's own
prompt; and with them for the whole prompt, while the base's latents are put back outside of the
control map before each prediction. All is measured in predicted pictures, so that it is the same
for models that predict noise, velocity or a flow.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import comfy.hooks
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch

from .control_map import apart, region

KEY = "spf_lora"
_MAP_SHARE = 0.75  # of a short run's steps: the last ones, with little noise, hardly count
_COVERED = 0.95  # of a picture: more keeps nothing of the base's


class Part(NamedTuple):
    """One LoRA that is drawn locally.

    Attributes:
        hooks: its weights.
        base: conditioning of the prompt without any attribute.
        full: conditioning of the prompt that asks for this LoRA alone.
        start: share of the time steps that are over when it and its words begin.
        end: share that is over when it ends; its words stay.
        area_cap: largest share of the picture that its map may cover.
    """

    hooks: Any
    base: Any
    full: Any
    start: float
    end: float
    area_cap: float


class Step(NamedTuple):
    """One call of the model: what it saw, at which noise, which picture the prompt predicts."""

    latents: torch.Tensor
    sigma: torch.Tensor
    picture: torch.Tensor


class Local:
    """What a MODEL does when it is sampled.

    Attributes:
        parts: the LoRAs, in the order of their nodes.
        map_steps: steps that maps are looked for in, or 0: all.
        map_only: whether the last run is left out, for a map alone.
        last_map: of the last sampling, (batch, 1, h, w) in [0, 1].
    """

    def __init__(
        self, parts: tuple[Part, ...], map_steps: int = 0, *, map_only: bool = False
    ) -> None:
        self.parts, self.map_steps, self.map_only = parts, map_steps, map_only
        self.last_map: torch.Tensor | None = None

    def put_on(self, model: Any) -> Any:
        """Return a clone of a MODEL that draws so."""
        clone, wrappers = model.clone(), comfy.patcher_extension.WrappersMP
        for kind, wrapper in (
            (wrappers.OUTER_SAMPLE, self.prepare),
            (wrappers.SAMPLER_SAMPLE, self.sample),
        ):
            clone.remove_wrappers_with_key(kind, KEY)
            clone.add_wrapper_with_key(kind, KEY, wrapper)
        clone.set_attachments(KEY, self)
        return clone

    def prepare(self, executor: Any, noise: Any, latent: Any, *rest: Any, **named: Any) -> Any:
        """Register the LoRAs and add our conditionings to the sampler's, for one sampling."""
        guider = executor.class_obj
        _check(guider, noise, rest[2] if len(rest) > 2 else named.get("denoise_mask"))
        patcher, options = guider.model_patcher, guider.model_options
        every = comfy.hooks.HookGroup.combine_all_hooks(
            [
                *(part.hooks for part in self.parts),
                *(cond.get("hooks") for conds in guider.conds.values() for cond in conds),
            ]
        )
        target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model)
        options["registered_hooks"] = patcher.register_all_hook_patches(
            every, target, options, options.get("registered_hooks")
        )
        patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram  # one patched copy at a time
        convert = comfy.sampler_helpers.convert_cond
        guider.conds = {
            **guider.conds,
            f"{KEY} base": convert(self.parts[0].base),
            **{f"{KEY} {at}": convert(part.full) for at, part in enumerate(self.parts)},
        }
        return executor(noise, latent, *rest, **named)

    @torch.no_grad()
    def sample(
        self,
        executor: Any,
        guider: Any,
        sigmas: torch.Tensor,
        extra: dict[str, Any],
        callback: Callable[..., None] | None,
        *rest: Any,
    ) -> torch.Tensor:
        """Run the sampler as often as it takes."""
        conds, runs = guider.conds, Runs(executor, guider, extra, rest, self.parts)
        few = fewer(sigmas, self.map_steps)
        total = (1 if self.map_only else 2) * (len(sigmas) - 1) + len(self.parts) * (len(few) - 1)
        tell = _counted(callback, total)
        try:
            base, drawn = runs.run(sigmas, conds[f"{KEY} base"], (), tell)
            where = torch.zeros_like(drawn[:, :1])
            for at, part in enumerate(self.parts):
                if not same(part.base, part.full):
                    own = self._map(runs, base, few, conds[f"{KEY} {at}"], part, tell)
                    where = torch.maximum(where, own.to(where))
            self.last_map = where.cpu()
            if self.map_only:
                return drawn
            if float(where.mean()) > _COVERED:
                logging.warning("LoRA Local: the maps cover the picture, nothing of it is kept")
            _, ours = runs.run(sigmas, conds["positive"], self.parts, tell, keep=(base, where))
            return torch.lerp(drawn, ours, where)
        finally:
            guider.conds = conds

    def _map(
        self,
        runs: "Runs",
        base: list[Step],
        sigmas: torch.Tensor,
        full: Any,
        part: Part,
        tell: Callable[..., None] | None,
    ) -> torch.Tensor:
        """Return the control map of one LoRA."""
        response, _ = runs.run(sigmas, full, (part,), tell)
        looked = {float(step.sigma[0]) for step in response}
        along_base = [step for step in base if float(step.sigma[0]) in looked]
        where: torch.Tensor = region(
            runs.distance(along_base, full, part, on=True),
            runs.distance(response, runs.base, part, on=False),
            area_cap=part.area_cap,
        )
        return where


class Runs:
    """Runs of one sampler from one noise."""

    def __init__(
        self, executor: Any, guider: Any, extra: dict[str, Any], rest: Any, parts: tuple[Part, ...]
    ) -> None:
        self.executor, self.guider, self.extra, self.rest = executor, guider, extra, rest
        self.conds, self.base, self.parts = guider.conds, guider.conds[f"{KEY} base"], parts
        self.inner_model = guider.inner_model
        self._groups: dict[Any, Any] = {}

    def run(
        self,
        sigmas: torch.Tensor,
        positive: Any,
        asking: tuple[Part, ...],
        tell: Callable[..., None] | None,
        keep: tuple[list[Step], torch.Tensor] | None = None,
    ) -> tuple[list[Step], torch.Tensor]:
        """Run the sampler once; return each call of the model, and the latents at the end.

        Args:
            sigmas: to sample at.
            positive: the prompt's conditioning.
            asking: whose words are in the prompt; without any, no LoRA acts.
            tell: the callback, or None.
            keep: the base's calls, and where its latents are not put back.
        """
        steps: list[Step] = []
        self._reset()

        def predict(
            x: torch.Tensor, sigma: torch.Tensor, model_options: Any = None, seed: Any = None
        ) -> Any:
            if keep is not None:
                x.copy_(torch.lerp(_at(keep[0], len(steps), sigma).latents, x, keep[1]))
            begun = any(self._begun(part, sigma) for part in asking)
            on = self._active(sigma) if begun else ()
            self.guider.conds = {
                "positive": self._hooked(positive if begun else self.base, on),
                "negative": self._hooked(self.conds.get("negative"), on),
            }
            seen = x.clone()

            def look(given: dict[str, Any]) -> Any:
                steps.append(Step(seen, sigma, given["cond_denoised"].clone()))
                return given["denoised"]

            others = (model_options or {}).get("sampler_post_cfg_function", [])
            options = {**(model_options or {}), "sampler_post_cfg_function": [look, *others]}
            return self.guider(x, sigma, model_options=options, seed=seed)

        standing = _Standing(self.guider, predict)
        latents = self.executor(standing, sigmas, dict(self.extra), tell, *self.rest)
        return steps, latents

    def distance(self, steps: list[Step], conds: Any, part: Part, *, on: bool) -> torch.Tensor:
        """Return how far the other model's pictures are from these in all, (batch, 1, h, w)."""
        total = torch.zeros_like(steps[0].picture[:, :1])
        options = self.extra["model_options"]
        self._reset()
        for step in steps:
            if self._begun(part, step.sigma):
                hooked = self._hooked(conds, self._active(step.sigma) if on else ())
                (picture,) = comfy.samplers.calc_cond_batch(
                    self.inner_model, [hooked], step.latents, step.sigma, options
                )
                total += apart(picture, step.picture)
        return total

    def _reset(self) -> None:
        """Begin anew with the schedules of the hooks that conditionings had before."""
        for conds in self.conds.values():
            for hook in [
                hook for cond in conds if cond.get("hooks") for hook in cond["hooks"].hooks
            ]:
                hook.initialize_timesteps(self.inner_model)
        self.guider.model_patcher.patch_hooks(None)

    def _begun(self, part: Part, sigma: torch.Tensor) -> bool:
        return bool(sigma[0] <= self.inner_model.model_sampling.percent_to_sigma(part.start))

    def _active(self, sigma: torch.Tensor) -> tuple[Part, ...]:
        end = self.inner_model.model_sampling.percent_to_sigma
        return tuple(p for p in self.parts if self._begun(p, sigma) and sigma[0] >= end(p.end))

    def _hooked(self, conds: Any, on: tuple[Part, ...]) -> Any:
        """Return conditionings with the weights of these LoRAs on top of their own hooks."""
        return conds and [{**cond, "hooks": self._group(cond.get("hooks"), on)} for cond in conds]

    def _group(self, own: Any, on: tuple[Part, ...]) -> Any:
        """Return one group for the same hooks: ComfyUI tells groups apart by identity."""
        key = (id(own), tuple(id(part) for part in on))
        if key not in self._groups:
            every = [own, *(part.hooks for part in on)]
            self._groups[key] = comfy.hooks.HookGroup.combine_all_hooks(every)
        return self._groups[key]


class _Standing:
    """Stands for the guider in one run of the sampler."""

    def __init__(self, guider: Any, predict: Callable[..., Any]) -> None:
        self._guider, self._predict = guider, predict

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._predict(*args, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)


def fewer(sigmas: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the first three quarters of so many steps of a schedule; all of it for 0 or more."""
    if not 0 < steps < len(sigmas) - 1:
        return sigmas
    at = torch.linspace(0, len(sigmas) - 1, steps + 1).round().long()
    return sigmas[at[: max(1, round(_MAP_SHARE * steps)) + 1].to(sigmas.device)]


def same(one: Any, other: Any) -> bool:
    """Tell whether two conditionings are of one prompt."""
    return len(one) == len(other) and all(
        a[0].shape == b[0].shape and torch.equal(a[0], b[0])
        for a, b in zip(one, other, strict=True)
    )


def _at(steps: list[Step], at: int, sigma: torch.Tensor) -> Step:
    if at >= len(steps) or float(steps[at].sigma[0]) != float(sigma[0]):
        raise ValueError(
            "LoRA Local needs a sampler that takes the same steps each time: choose another than "
            "dpm_adaptive"
        )
    return steps[at]


def _counted(callback: Callable[..., None] | None, total: int) -> Callable[..., None] | None:
    """Return a callback that counts the steps of all runs."""
    if callback is None:
        return None
    done = iter(range(total))
    return lambda _step, picture, latents, _total: callback(
        next(done, total - 1), picture, latents, total
    )


def _check(guider: Any, noise: torch.Tensor, mask: Any) -> None:
    if mask is not None:
        raise ValueError(
            "LoRA Local keeps the rest of the picture itself: remove the latent's noise mask"
        )
    if noise.ndim != 4:
        raise ValueError("LoRA Local draws pictures, not video: connect a model of pictures")
    if "positive" not in guider.conds:
        raise ValueError("LoRA Local needs a sampler with a positive prompt, as KSampler")
