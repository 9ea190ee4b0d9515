"""Measure what LoRA Local in the real ComfyUI changes besides the attribute, by sampler.

`COMFYUI_PATH=FOLDER python benchmarks/comfyui.py [--attribute beard] [--prompts 8] [--out FILE]`

The embedded base draws held-out people, one seed each, in ComfyUI and by `generate --local`. P and
leakage are those of docs/evaluation.md. Each row is measured against the base's own pictures of the
same program and sampler, and divided by what another seed moves there, since another sampler draws
other pictures. `ratio` is P over that of `generate --local` with the nearest sampler, on the same
prompts and seeds; its interval draws the prompts again, with both their P. Leakage is measured
with `map_steps` 0: prompts that ask for nothing look for no map.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import command_line, mean_interval, write_result

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from apps.embedded_comfyui import Comfy, start  # noqa: E402

from spf_lora.adapters.format.adapter_file import read_adapter  # noqa: E402
from spf_lora.base.load import Base, load_base  # noqa: E402
from spf_lora.base.texts import encode  # noqa: E402
from spf_lora.draw.act import NOTHING, acting, draw  # noqa: E402
from spf_lora.draw.pixels import pixels_of  # noqa: E402
from spf_lora.draw.prompts import asking, taught  # noqa: E402
from spf_lora.draw.sample import GUIDANCE, STEPS, Style, decode  # noqa: E402
from spf_lora.evaluate.judges.world import WorldJudge, world_judge  # noqa: E402
from spf_lora.evaluate.numbers import Pixels, numbers_of  # noqa: E402
from spf_lora.evaluate.protocol import Case, held_out_cases, other_seed  # noqa: E402
from spf_lora.evaluate.result import CHANNELS  # noqa: E402

# of `generate` -> sampler and scheduler of ComfyUI
SAMPLERS = {
    "euler": ("euler", "normal"),
    "dpm++2m": ("dpmpp_2m", "karras"),
}
MAP_STEPS = (0, 8)
# prompts and seeds -> pictures (batch, 3, h, w) in [-1, 1]
Paint = Callable[[Sequence[str], Sequence[int]], torch.Tensor]


class Numbers(NamedTuple):
    """What one way of drawing does, each with a row a prompt, (prompts,)."""

    response: np.ndarray
    pollution: np.ndarray
    leakage: np.ndarray | None


def in_runtime(base: Base, adapter: Any, sampler: str) -> tuple[Paint, Paint]:
    """Return what draws the base's pictures, and what draws as `generate --local` does."""
    added, style = taught(adapter), Style(sampler)

    def paint(prompts: Sequence[str], seeds: Sequence[int], *, on: bool) -> torch.Tensor:
        asks = [asking(text, [added], local=on) for text in prompts]
        acts = acting(adapter, local=True) if on else NOTHING
        return _stacked(draw(base, asks, seeds, acts, style=style))

    return lambda *what: paint(*what, on=False), lambda *what: paint(*what, on=True)


def in_comfyui(
    comfy: Comfy, file: str, within: dict[str, str], sampler: tuple[str, str], map_steps: int
) -> tuple[Paint, Paint]:
    """Return what draws the base's pictures in ComfyUI, and what draws by LoRA Local."""

    def paint(prompts: Sequence[str], seeds: Sequence[int], *, on: bool) -> torch.Tensor:
        full, model = [[encode(comfy.base, prompts), {}]], comfy.model
        if on:
            base = [[encode(comfy.base, [within[text] for text in prompts]), {}]]
            node = comfy.nodes["SpfLoraLocal"]()
            (model,) = node.put_on(model, base, full, file, 1.0, 0.0, 1.0, 0.6, map_steps)
        how = {"steps": STEPS, "cfg": GUIDANCE, "sampler": sampler[0], "scheduler": sampler[1]}
        return _stacked(decode(comfy.base, comfy.sample(model, full, seeds=list(seeds), **how)))

    return lambda *what: paint(*what, on=False), lambda *what: paint(*what, on=True)


def _stacked(pictures: Sequence[Any]) -> torch.Tensor:
    return torch.stack([pixels_of(picture) for picture in pictures])


def measured(
    judge: WorldJudge,
    local: Paint,
    cases: Sequence[Case],
    own: tuple[torch.Tensor, torch.Tensor],
    *,
    leakage: bool = False,
) -> Numbers:
    """Draw everything in one way and return its numbers.

    Args:
        judge: of the attribute.
        local: what draws locally.
        cases: prompts and seeds.
        own: the base's pictures of the base prompts from the same seeds, and from others.
        leakage: whether prompts that ask for nothing are drawn too.
    """
    seeds, (i0, iz) = [case.seeds[0] for case in cases], own
    i1 = local([case.prompt for case in cases], seeds)
    ib = local([case.base_prompt for case in cases], seeds) if leakage else i0
    region = _stacked([truth.region for truth in judge.truths(i0)])[:, :1]
    table = numbers_of(judge, Pixels(i0, i0, i1, ib, iz, (region < 0).float(), None))
    rows = {name: row.double().numpy() for name, row in table.items()}

    def share(prefix: str, ceiling: str) -> np.ndarray:
        shares = [rows[prefix + c] / rows[ceiling + c].mean() for c in CHANNELS]
        return np.asarray(np.mean(shares, axis=0))

    leaked = share("leak:", "leak-ceiling:") if leakage else None
    return Numbers(rows["shown"], share("", "ceiling:"), leaked)


def row_of(numbers: Numbers, beside: Numbers | None = None) -> dict[str, Any]:
    """Return a row of the result."""
    table = numbers._asdict().items()
    row: dict[str, Any] = {
        name: round(float(rows.mean()), 4) for name, rows in table if rows is not None
    }
    row["pollution_95"] = _rounded(mean_interval([numbers.pollution]))
    if beside is None:
        return row
    pairs, rng = np.stack([numbers.pollution, beside.pollution]), np.random.default_rng(0)
    count = pairs.shape[1]
    drawn = pairs[:, rng.integers(count, size=(2000, count))].mean(axis=2)
    row["ratio"] = round(float(pairs[0].mean() / pairs[1].mean()), 3)
    row["ratio_95"] = _rounded(np.quantile(drawn[0] / drawn[1], (0.025, 0.975)))
    return row


def _rounded(interval: Any) -> list[float]:
    return [round(float(end), 3) for end in interval]


def result_of(comfy: Comfy, attribute: str, prompts: int) -> dict[str, Any]:
    """Return the rows of all samplers."""
    cases = held_out_cases(attribute, prompts=prompts, seeds=1)
    within = {text: case.base_prompt for case in cases for text in (case.prompt, case.base_prompt)}
    seeds = [case.seeds[0] for case in cases]
    others = [other_seed(case.seeds, 0) for case in cases]
    file = f"{attribute}.safetensors"
    adapter, judge = read_adapter(ROOT / "adapters/demo" / file), world_judge(attribute)
    result: dict[str, Any] = {}

    def base_of(plain: Paint) -> tuple[torch.Tensor, torch.Tensor]:
        base = [case.base_prompt for case in cases]
        return plain(base, seeds), plain(base, others)

    for name, sampler in SAMPLERS.items():
        plain, local = in_runtime(comfy.base, adapter, name)
        beside = measured(judge, local, cases, base_of(plain))
        rows = result[name] = {"generate --local": row_of(beside)}
        own = base_of(in_comfyui(comfy, file, within, sampler, 0)[0])
        for map_steps in MAP_STEPS:
            _, local = in_comfyui(comfy, file, within, sampler, map_steps)
            title = f"{' '.join(sampler)}, map_steps {map_steps}"
            found = measured(judge, local, cases, own, leakage=not map_steps)
            rows[title] = row_of(found, beside)
        print(name, rows, file=sys.stderr, flush=True)
    return result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attribute", default="beard", choices=("beard", "glasses"))
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    base = load_base("embedded", device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        comfy = start(base, ROOT / "adapters/demo", Path(folder))
    from comfyui_version import __version__

    measure = result_of(comfy, given.attribute, given.prompts)
    settings = {"attribute": given.attribute, "prompts": given.prompts, "seeds": 1}
    run = command_line(**settings, steps=STEPS, guidance=GUIDANCE)
    write_result(run, measure, given.out, comfyui=__version__)


if __name__ == "__main__":
    main()
