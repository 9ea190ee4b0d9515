"""stable-diffusion.cpp, the C++ reader: every tensor of a full-size file is applied.

It runs in an environment of its own, because its wheel pins nothing of ours: set SPF_SDCPP_PYTHON
to an interpreter that has cyllama, or the test makes a venv and installs it.
"""

import json
import os
import re
import subprocess
import venv

import pytest

from spf_lora.adapters import sd15
from spf_lora.adapters.check import apps
from spf_lora.adapters.format.adapter_file import open_adapter, write_adapter

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")

WHEEL = "cyllama==0.2.18"

DRAW = """
import hashlib, json, sys
import cyllama.sd as sd

base, lora, strength, out = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
lines = []
sd.set_log_callback(lambda level, text: lines.append(text))
context = sd.SDContextParams()
context.model_path = base
context.n_threads = 2
model = sd.SDContext(context)
image = sd.SDImageGenParams()
image.prompt, image.width, image.height, image.seed = "a beard", 64, 64, 1
image.sample_params.sample_steps = 1
image.sample_params.cfg_scale = 1.0
if lora != "none":
    image.set_loras([{"path": lora, "multiplier": strength}])
pictures = model.generate_with_params(image)
pixels = bytes(pictures[0].to_numpy().tobytes())
json.dump({"pixels": hashlib.sha256(pixels).hexdigest(), "log": lines}, open(out, "w"))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    given = os.environ.get("SPF_SDCPP_PYTHON")
    if given:
        return given
    home = tmp_path_factory.mktemp("sdcpp")
    venv.create(home, with_pip=True)
    made = home / "bin" / "python"
    done = subprocess.run([made, "-m", "pip", "install", "-q", WHEEL, "numpy"], check=False)
    if done.returncode:
        pytest.skip(f"{WHEEL} cannot be installed here")
    return str(made)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """One 2 GB file with random weights in the shapes of Stable Diffusion 1.5."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("base") / "base.safetensors"
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )
    state = {f"unet.{key}": one for key, one in unet.state_dict().items()}
    state |= {f"vae.{key}": one for key, one in vae.state_dict().items()}
    state |= {f"te.text_model.{key}": one for key, one in text.state_dict().items()}
    save_file({key: one.half().contiguous() for key, one in state.items()}, file)
    yield file
    file.unlink()


def draw(python, base, tmp_path, lora="none", strength=1.0):
    out = tmp_path / "result.json"
    script = tmp_path / "draw.py"
    script.write_text(DRAW)
    subprocess.run(
        [python, script, base, str(lora), str(strength), out], check=True, timeout=1200, env=clean()
    )
    return json.loads(out.read_text())


def clean():
    return {key: text for key, text in os.environ.items() if not key.startswith("PYTHON")}


@pytest.mark.parametrize("modules", ["kohya set", "every module"])
@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_the_tensors_our_table_promises_are_applied_and_the_picture_moves(
    python, base, tmp_path, make_adapter, layout, modules
):
    names = sd15.kohya_modules() if modules == "kohya set" else list(sd15.weight_shapes())
    lora = tmp_path / "lora.safetensors"
    write_adapter(make_adapter(names=names, full_size=True), lora, layout=layout)
    with open_adapter(lora) as opened:
        promised = apps.reading(apps.APPS["stable-diffusion.cpp"], opened.tensors, opened.metadata)
    plain = draw(python, base, tmp_path)
    moved = draw(python, base, tmp_path, lora)
    found = [re.search(r"\((\d+) / (\d+)\) LoRA tensors", line) for line in moved["log"]]
    applied = [tuple(map(int, one.groups())) for one in found if one]
    print(layout, modules, applied)
    assert applied == [(promised.total - len(promised.dropped), promised.total)]
    assert moved["pixels"] != plain["pixels"]
    if (layout, modules) == ("kohya", "kohya set"):
        assert applied == [(792, 792)]
