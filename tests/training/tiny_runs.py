"""Small trainings on the tiny base, made by hand; `build_trainer` makes them of recipes."""

import random
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from spf_lora.adapters.attach import adapter_off, attach_trainable
from spf_lora.base.load import load_base
from spf_lora.data.cache import TensorCache
from spf_lora.data.worlds.portraits import caption, phrases, region, render, unbiased
from spf_lora.draw.trajectories import Drawing
from spf_lora.training.baselines import RIVALS, RivalObjective
from spf_lora.training.batch import draw_batch
from spf_lora.training.distil import Distil, Shares
from spf_lora.training.objectives import Learn, SpfPortrait, Weights, time_weights
from spf_lora.training.optim import make_optimizer
from spf_lora.training.pairs import Teaching
from spf_lora.training.precision import set_up
from spf_lora.training.prepare import prepare
from spf_lora.training.trainer import Plan, Stage, Trainer

PLAN = Plan(batch_size=4, learning_rate=1e-2, warmup_steps=1, max_grad_norm=1.0, seed=0)
PROMPTS = [("a man", "a man, a hat"), ("a woman", "a woman, a hat"), ("a child", "a child, a hat")]


def load(folder):
    return load_base(str(folder), device=torch.device("cpu"))


def portraits(base, count, **more):
    """Return the tensors of portraits with a hat."""
    rng = random.Random(0)
    people = [unbiased(rng) for _ in range(count)]
    return prepare(
        base,
        [render(p, ("hat",)) for p in people],
        base_prompts=[caption(p) for p in people],
        full_prompts=[caption(p, ("hat",)) for p in people],
        phrases=[phrases(p) for p in people],
        target_text="a hat",
        masks=[Image.fromarray(region(p, "hat")) for p in people],
        **more,
    )


def drawing(data, base, *, seed=0, own_share=0.0):
    """Return what draws a step's samples of pictures."""

    def batch(index, size):
        return draw_batch(
            data, base.scheduler, index=index, size=size, seed=seed, own_share=own_share
        )

    return batch


def learn(steps, base, data, *, seed=0):
    return Stage("learn", steps, Learn(base.unet, data), drawing(data, base, seed=seed))


def paper(steps, base, data, *, weights=None, embed=None, everywhere=False):
    weights = weights or Weights()
    alphas = base.scheduler.alphas_cumprod
    objective = SpfPortrait(
        base.unet, data, weights=weights, alphas=alphas, embed=embed, everywhere=everywhere
    )
    return Stage("align", steps, objective, drawing(data, base))


def rival(steps, base, data, *, name):
    row = RIVALS[name]
    objective = RivalObjective(base.unet, data, row, weight=row.weight)
    return Stage(name, steps, objective, drawing(data, base, own_share=row.own_share))


def teaching(base, cache: Path, *, seed=0):
    return Teaching(
        base,
        PROMPTS,
        [base_prompt for base_prompt, _ in PROMPTS],
        Drawing(2, 3.0, (8, 8)),
        TensorCache(cache),
        alpha=4.0,
        shares=Shares(0.25, 0.25),
        below="",
        seed=seed,
    )


def distil(steps, base, data, *, cache: Path, seed=0, teacher=None, fresh=True):
    """Return stage 2; with a teacher of its own it learns from that one, whatever was learned."""
    teach = teaching(base, cache, seed=seed)
    objective = Distil(
        base.unet, time_weights(base.scheduler, 5.0), partial(adapter_off, base.unet)
    )

    def begin(left, tell):
        return teach.begin(teacher or left, tell)

    return Stage("distil", steps, objective, teach.batch, begin, fresh=fresh)


def some_teacher(folder):
    """Return the parameters of an adapter that changes pictures."""
    made = attach_trainable(load(folder).unet, preset="attention", rank=4, alpha=4.0, seed=0)
    noise = torch.Generator().manual_seed(0)
    return {
        name: p.detach() + 0.1 * torch.randn(p.shape, generator=noise) for name, p in made.items()
    }


def trainer(
    base,
    data,
    path,
    *stages,
    plan=PLAN,
    optimizer="adamw8bit",
    run_id="run",
    processes=None,
    **how,
):
    """Return a trainer.

    Args:
        base: gets the adapter.
        data: of the training pictures.
        path: of the checkpoint.
        stages: functions that make them of base and data, such as `partial(learn, 3)`.
        plan: how.
        optimizer: a row of the table, or None for plain gradient descent, which hides nothing.
        run_id: of the checkpoint.
        processes: this one and its siblings.
        how: of `set_up`.
    """
    parameters = attach_trainable(base.unet, preset="attention", rank=4, alpha=4.0, seed=plan.seed)
    set_up(base.unet, **how)
    if optimizer is None:
        made = torch.optim.SGD(parameters.values(), lr=plan.learning_rate)
    else:
        made = make_optimizer(
            optimizer,
            list(parameters.values()),
            learning_rate=plan.learning_rate,
            weight_decay=0.01,
            betas=(0.9, 0.999),
        )
    return Trainer(
        unet=base.unet,
        parameters=parameters,
        optimizer=made,
        pictures=len(data),
        stages=[stage(base=base, data=data) for stage in stages],
        plan=plan,
        checkpoint=path,
        run_id=run_id,
        device=base.device,
        processes=processes,
    )


def weights_of(run):
    return {name: p.detach().clone() for name, p in run.parameters.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
