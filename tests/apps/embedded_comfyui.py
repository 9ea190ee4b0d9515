"""The embedded base inside the real ComfyUI, in this process; COMFYUI_PATH says where that is."""

import importlib.util
import math
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from apps.comfyui_main import stand_in_for_torchvision
from base.layouts import ldm_unet

from spf_lora.apps.comfyui.install import install
from spf_lora.base.load import Base
from spf_lora.base.texts import encode

_LATENT_SCALE = 0.18215  # SD1.5's, which ComfyUI takes out of what it returns


class Comfy(NamedTuple):
    """The embedded base as ComfyUI has it.

    Attributes:
        model: its MODEL.
        nodes: our node classes by id.
        base: the embedded base.
    """

    model: Any
    nodes: dict[str, Any]
    base: Base

    def conditioning(self, text: str) -> list[Any]:
        """Return a prompt as CONDITIONING."""
        return [[encode(self.base, [text]), {}]]

    def sample(
        self,
        model: Any,
        positive: Any,
        *,
        seeds: list[int],
        steps: int = 25,
        cfg: float = 3.0,
        sampler: str = "ddim",
        scheduler: str = "ddim_uniform",
        negative: Any = None,
        size: tuple[int, int] = (16, 16),
        as_ours: bool = False,
        **more: Any,
    ) -> torch.Tensor:
        """Return latents as the embedded VAE takes them, as KSampler draws them.

        ComfyUI's last step ends at no noise, that of our scheduler at the least it was trained
        with; `as_ours` ends there too.
        """
        import comfy.sample
        import comfy.samplers

        rows = [torch.randn((4, *size), generator=torch.Generator().manual_seed(s)) for s in seeds]
        sigmas = comfy.samplers.calculate_sigmas(
            model.get_model_object("model_sampling"), scheduler, steps
        )
        if as_ours:
            sigmas[-1] = model.get_model_object("model_sampling").sigmas[0]
        first = float(sigmas[0])
        noise = torch.stack(rows)
        most = float(model.get_model_object("model_sampling").sigma_max)
        if not math.isclose(first, most, rel_tol=1e-4):
            noise = noise * (1 + first**2) ** 0.5 / first  # our first latents have variance 1
        drawn = comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            sampler,
            scheduler,
            positive,
            self.conditioning("") if negative is None else negative,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=seeds[0],
            sigmas=sigmas,
            **more,
        )
        return drawn * (_LATENT_SCALE / (1 + float(sigmas[-1]) ** 2) ** 0.5)


def start(base: Base, loras: Path, custom_nodes: Path) -> Comfy:
    """Load the real ComfyUI with our nodes.

    Args:
        base: the embedded base.
        loras: a folder of LoRA files.
        custom_nodes: an empty folder, that the pack is written to.
    """
    import diffusers  # noqa: F401  # it must not see the torchvision that stands in below
    import transformers  # noqa: F401

    home = Path(os.environ["COMFYUI_PATH"]).resolve()
    stand_in_for_torchvision()
    sys.path.insert(0, str(home))
    said, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args  # it reads the command line

    sys.argv = said
    import comfy.sd
    import comfy.supported_models
    import folder_paths

    folder_paths.add_model_folder_path("loras", str(loras))
    config = base.unet.config
    kind = comfy.supported_models.SD15
    kind.unet_config = {
        **kind.unet_config,
        "context_dim": config.cross_attention_dim,
        "model_channels": config.block_out_channels[0],
    }
    kind.unet_extra_config = {**kind.unet_extra_config, "num_heads": config.attention_head_dim}
    groups, made = config.norm_num_groups, torch.nn.GroupNorm.__init__

    def few_groups(self: Any, num_groups: int, *rest: Any, **named: Any) -> None:
        made(self, groups if num_groups == 32 else num_groups, *rest, **named)

    torch.nn.GroupNorm.__init__ = few_groups
    try:
        weights = {ldm_unet(name): value.clone() for name, value in base.unet.state_dict().items()}
        model = comfy.sd.load_diffusion_model_state_dict(weights)
    finally:
        torch.nn.GroupNorm.__init__ = made
    return Comfy(model, pack(custom_nodes).NODE_CLASS_MAPPINGS, base)


def pack(folder: Path) -> Any:
    """Install the pack into a folder that looks like ComfyUI's, and import it as that does."""
    for mark in ("nodes.py", "folder_paths.py", "comfy/samplers.py"):
        (folder / mark).parent.mkdir(parents=True, exist_ok=True)
        (folder / mark).touch()
    where = install(folder)
    spec = importlib.util.spec_from_file_location("spf_lora_nodes", where / "__init__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["spf_lora_nodes"] = module
    spec.loader.exec_module(module)
    return module
