"""The node pack without ComfyUI: its arithmetic is `draw.local`'s, its nodes are what is told.

What stands in for ComfyUI here knows Euler's sampler, noise predictions and hooks; the real one is
run by test_comfyui.py.
"""

import contextlib
import importlib.util
import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
import torch
from tiny_base import noisy_adapter

from spf_lora.apps.comfyui.install import install
from spf_lora.apps.comfyui.workflow import KINDS
from spf_lora.base.load import load_base
from spf_lora.base.texts import encode
from spf_lora.draw.local import Asking, draw_locally
from spf_lora.draw.sample import start_noise
from spf_lora.draw.weights import attached

STEPS, CFG, SEEDS = 3, 3.0, [1, 2]


class HookGroup:
    def __init__(self, hooks=()):
        self.hooks = list(hooks)

    @staticmethod
    def combine_all_hooks(groups):
        hooks = [hook for group in groups if group for hook in group.hooks]
        return HookGroup(hooks) if hooks else None


def calc_cond_batch(model, conds, x, sigma, _options):
    return [model.picture(rows[0], x, sigma) for rows in conds]


@pytest.fixture
def pack(comfyui, monkeypatch):
    """The installed pack, imported as ComfyUI does it."""
    stand_ins = {
        "comfy": {},
        "comfy.hooks": {
            "HookGroup": HookGroup,
            "create_target_dict": lambda _: {},
            "EnumWeightTarget": SimpleNamespace(Model="model"),
            "EnumHookMode": SimpleNamespace(MinVram="small"),
            "create_hook_lora": lambda *given: HookGroup([SimpleNamespace(given=given)]),
        },
        "comfy.lora": {},
        "comfy.lora_convert": {},
        "comfy.patcher_extension": {
            "WrappersMP": SimpleNamespace(OUTER_SAMPLE="outer", SAMPLER_SAMPLE="sampler")
        },
        "comfy.sample": {},
        "comfy.sampler_helpers": {"convert_cond": lambda conds: [{"states": c[0]} for c in conds]},
        "comfy.samplers": {
            "calc_cond_batch": calc_cond_batch,
            "KSampler": SimpleNamespace(SAMPLERS=["euler"], SCHEDULERS=["normal"]),
        },
        "comfy.sd": {},
        "comfy.utils": {},
        "folder_paths": {"get_filename_list": lambda _: ["beard.safetensors"]},
        "node_helpers": {},
    }
    for name, values in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
        if "." in name:
            setattr(sys.modules["comfy"], name.split(".")[1], module)
    spec = importlib.util.spec_from_file_location("pack", install(comfyui) / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    for name in ("", ".nodes", ".local", ".lora", ".control_map"):
        monkeypatch.delitem(sys.modules, f"pack{name}", raising=False)
    monkeypatch.setitem(sys.modules, "pack", module)
    spec.loader.exec_module(module)
    return module


class Guider:
    """What samples, on the tiny base: noise predictions at sigmas of its own scheduler."""

    def __init__(self, base, conds, adapted):
        self.base, self.conds, self.adapted, self.calls = base, conds, adapted, 0
        self.inner_model = self
        self.model_sampling = SimpleNamespace(percent_to_sigma=self.percent_to_sigma)
        self.model_options = {}
        self.model_patcher = SimpleNamespace(
            patch_hooks=lambda _: None,
            register_all_hook_patches=lambda hooks, *_: hooks,
        )
        base.scheduler.set_timesteps(STEPS)
        kept = base.scheduler.alphas_cumprod
        self.of_time = ((1 - kept) / kept) ** 0.5
        self.sigmas = torch.stack([*self.of_time[base.scheduler.timesteps], self.of_time[0]])

    def percent_to_sigma(self, percent):
        if percent in (0.0, 1.0):
            return 1e9 if percent == 0 else 0.0
        return float(self.of_time[int((1 - percent) * 1000)])

    def picture(self, cond, x, sigma):
        self.calls += len(x)
        t = (self.of_time - sigma[0]).abs().argmin()
        unet = self.adapted if cond.get("hooks") else self.base.unet
        states = cond["states"].expand(len(x), -1, -1)
        noise = unet(x / (1 + sigma[0] ** 2) ** 0.5, t, states, return_dict=False)[0]
        return x - sigma[0] * noise

    def __call__(self, x, sigma, *, model_options, seed):
        empty, asking = (
            self.picture(self.conds[which][0], x, sigma) for which in ("negative", "positive")
        )
        drawn = empty + CFG * (asking - empty)
        for look in model_options["sampler_post_cfg_function"]:
            drawn = look({"denoised": drawn, "cond_denoised": asking})
        return drawn


def euler(guider, sigmas, _extra, callback, noise, *_):
    x = noise * (1 + sigmas[0] ** 2) ** 0.5
    for at, (now, then) in enumerate(pairwise(sigmas)):
        drawn = guider(x, now.expand(len(x)), model_options={}, seed=0)
        if callback:
            callback(at, drawn, x, len(sigmas) - 1)
        x = x + (x - drawn) / now * (then - now)
    return x


@pytest.fixture(scope="module")
def hat(tiny_folder):
    return noisy_adapter(tiny_folder)


@pytest.fixture(scope="module")
def adapted(tiny_folder, hat):
    """The tiny U-Net with the adapter on."""
    unet = load_base(str(tiny_folder), device=torch.device("cpu")).unet
    with attached(unet, [(hat, 1.0)]):
        yield unet


@pytest.fixture
def drawn(pack, tiny, adapted):
    """Draws in ComfyUI's way; returns latents as ours, what did it, and the sampler's guider."""

    def run(prompts, positive="a man, a hat", base="a man", callback=None, **how):
        local = sys.modules["pack.local"]
        given = {"start": 0.0, "end": 1.0, "area_cap": 0.6, **how}
        steps = given.pop("map_steps", 0)

        def conditioning(text):
            return [[encode(tiny, [text]), {}]]

        parts = [
            local.Part(HookGroup([at]), conditioning(base), conditioning(text), **given)
            for at, text in enumerate(prompts)
        ]
        conds = {
            "positive": [{"states": encode(tiny, [positive])}],
            "negative": [{"states": encode(tiny, [""])}],
        }
        guider, acts = Guider(tiny, conds, adapted), local.Local(tuple(parts), steps)

        def sampled(*_, **__):
            latent = torch.zeros(2, 4, 8, 8)
            rest = (start_noise(tiny, SEEDS), latent, None, True)
            extra = {"model_options": {}}
            return acts.sample(euler, guider, guider.sigmas, extra, callback, *rest)

        class Executor:
            class_obj = guider

            def __call__(self, *given, **named):
                return sampled()

        found = acts.prepare(Executor(), start_noise(tiny, SEEDS), None, None, None)
        last = guider.sigmas[-1]
        return found / (1 + last**2) ** 0.5, acts, guider

    return run


def ours(tiny, hat, prompts, positive="a man, a hat", base="a man"):
    def on():
        return attached(tiny.unet, [(hat, 1.0)] if hat else [])

    def states(text):
        return encode(tiny, [text] * len(SEEDS))

    each = [Asking(states(text), on) for text in prompts] if len(prompts) > 1 else ()
    how = {"steps": STEPS, "guidance": CFG, "within": states(base), "acting": on, "each": each}
    return draw_locally(tiny, states(positive), SEEDS, **how)


@pytest.mark.parametrize("prompts", [("a man, a hat",), ("a man, a hat", "a man, red")])
def test_it_draws_what_the_runtime_draws(drawn, tiny, hat, prompts):
    positive = "a man, a hat, red" if len(prompts) > 1 else prompts[0]
    found, acts, guider = drawn(prompts, positive)
    wanted = ours(tiny, hat, prompts, positive)
    # the same steps in other units: rounding, which a steep map makes larger
    torch.testing.assert_close(acts.last_map, wanted.control_map, atol=5e-3, rtol=0)
    torch.testing.assert_close(found, wanted.response[-1].latents, atol=2e-2, rtol=1e-2)
    assert guider.calls == len(SEEDS) * STEPS * (4 + 4 * len(prompts))  # a plain one has 2


def test_fewer_steps_for_the_map_cost_less(pack, drawn):
    fewer = sys.modules["pack.local"].fewer
    sigmas = torch.arange(26.0).flip(0)
    assert fewer(sigmas, 8).tolist() == [25, 22, 19, 16, 13, 9, 6]  # of six steps
    assert torch.equal(fewer(sigmas, 0), sigmas)
    assert torch.equal(fewer(sigmas, 25), sigmas)
    # of 25 steps: 50 predictions of the base, 50 at the end, and 6 steps of 4
    assert [(50 + 50 + loras * 4 * (len(fewer(sigmas, 8)) - 1)) / 50 for loras in (1, 2)] == [
        2.48,
        2.96,
    ]
    assert drawn(["a man, a hat"], map_steps=2)[2].calls < drawn(["a man, a hat"])[2].calls


def test_a_prompt_that_asks_for_nothing_is_the_bases_picture(drawn, tiny):
    found, acts, _ = drawn(["a man"])
    assert not acts.last_map.any()
    torch.testing.assert_close(found, ours(tiny, None, ["a man"], "a man").reference[-1].latents)


def test_before_the_start_and_without_a_share_left_all_is_the_bases(drawn, tiny, hat):
    always, _, _ = drawn(["a man, a hat"])
    late, _, _ = drawn(["a man, a hat"], start=0.5)
    assert not torch.allclose(late, always, atol=1e-2)
    never, _, _ = drawn(["a man, a hat"], start=0.9999)
    base = ours(tiny, hat, ["a man"], "a man").reference[-1].latents
    torch.testing.assert_close(never, base)
    ended, _, _ = drawn(["a man, a hat"], end=0.5)
    assert not torch.allclose(ended, always, atol=1e-2)


def test_two_maps_that_cover_everything_keep_nothing_and_say_so(drawn, pack, monkeypatch, caplog):
    local = sys.modules["pack.local"]
    turn = [torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)]
    turn[0][..., :4] = turn[1][..., 4:] = 1
    monkeypatch.setattr(local, "region", lambda *_, area_cap: turn.pop())
    _, acts, _ = drawn(["a man, a hat", "a man, red"], "a man, a hat, red")
    assert bool((acts.last_map == 1).all())
    assert "nothing of it is kept" in caplog.text


def test_a_conditioning_of_another_length_asks(pack):
    same, states = sys.modules["pack.local"].same, torch.ones(1, 77, 4)
    assert same([[states, {}]], [[states.clone(), {}]])
    assert not same([[states, {}]], [[torch.ones(1, 154, 4), {}]])
    assert not same([[states, {}]], [[states, {}], [states, {}]])


def test_steps_of_all_runs_are_counted_once(drawn):
    told = []
    drawn(["a man, a hat"], callback=lambda at, _d, _x, total: told.append((at, total)))
    assert told == [(at, 3 * STEPS) for at in range(3 * STEPS)]


def test_a_cancelled_sampling_leaves_the_guider_as_it_was(drawn):
    seen = []

    def cancel(*given):
        seen.append(given)
        if len(seen) == STEPS + 2:
            raise InterruptedError

    with contextlib.suppress(InterruptedError):
        drawn(["a man, a hat"], callback=cancel)
    assert len(seen) == STEPS + 2
    assert not drawn(["a man"])[1].last_map.any()


@pytest.mark.parametrize(
    ("conds", "noise", "mask", "said"),
    [
        (("positive",), 4, True, "noise mask"),
        (("positive",), 5, None, "not video"),
        (("middle",), 4, None, "positive prompt"),
    ],
)
def test_what_cannot_be_sampled_is_refused_with_the_next_step(pack, conds, noise, mask, said):
    check = sys.modules["pack.local"]._check
    with pytest.raises(ValueError, match=said):
        check(SimpleNamespace(conds=dict.fromkeys(conds)), torch.zeros((1,) * noise), mask)


def test_a_sampler_with_steps_of_its_own_is_refused(pack):
    local = sys.modules["pack.local"]
    with pytest.raises(ValueError, match="dpm_adaptive"):
        local._at([local.Step(None, torch.tensor([2.0]), None)], 0, torch.tensor([1.0]))


class Model:
    """A MODEL of one layer."""

    def __init__(self, attached=None):
        self.model, self._attached = None, attached

    def model_state_dict(self):
        return {"layer": torch.zeros(6, 4)}

    def get_attachment(self, _key):
        return self._attached


def patches(up, down):
    return {"layer": SimpleNamespace(name="lora", weights=(torch.zeros(up), torch.zeros(down)))}


@pytest.fixture
def lora(pack, monkeypatch):
    module = sys.modules["pack.lora"]
    comfy = sys.modules["comfy"]
    comfy.lora.model_lora_keys_unet = lambda _model, keys: keys
    comfy.lora_convert.convert_lora = lambda tensors: tensors
    return module


@pytest.mark.parametrize(
    ("found", "said"),
    [({}, "none of the model's modules"), (patches((6, 2), (2, 9)), "another shape")],
)
def test_a_lora_for_another_family_is_refused(lora, found, said):
    sys.modules["comfy"].lora.load_lora = lambda *_, **__: found
    with pytest.raises(ValueError, match=said):
        lora.hook_of(lora.Lora("xl.safetensors", {}, {}), Model(), 1.0)


def test_a_lora_that_fits_is_hooked_at_its_strength(lora):
    fitting = patches((6, 2), (2, 4))
    sys.modules["comfy"].lora.load_lora = lambda *_, **__: fitting
    (hook,) = lora.hook_of(lora.Lora("x", {}, {}), Model(), 0.5).hooks
    assert hook.given == (fitting, 0.5, 0.0)
    assert hook.need_weight_init is False


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "3"])
def test_a_card_that_is_none_is_read_as_none(lora, monkeypatch, text):
    monkeypatch.setattr(lora.folder_paths, "get_full_path_or_raise", lambda *_: "x", raising=False)
    monkeypatch.setattr(
        lora.comfy.utils,
        "load_torch_file",
        lambda *_, **__: ({}, {"spf_lora": text}),
        raising=False,
    )
    assert lora.read_lora("x") == lora.Lora("x", {}, {})


def test_a_card_says_words_strength_and_start(lora):
    card = {"trigger": " a beard ", "metrics": {"strength": 0.8, "start_percent": 0.4}}
    assert lora.words_of(lora.Lora("x", {}, card)) == ("a beard", 0.8, 0.4)
    odd = {"trigger": "a beard", "metrics": {"strength": "1", "start_percent": 7}}
    assert lora.words_of(lora.Lora("x", {}, odd)) == ("a beard", 1.0, 0.0)
    for card in ({}, {"trigger": 3}, {"trigger": " "}):
        with pytest.raises(ValueError, match="no card that says"):
            lora.words_of(lora.Lora("x", {}, card))


def test_nodes_have_what_the_workflow_writes(pack):
    for name in ("SpfLoraLocal", "SpfLoraLocalMap"):
        node, kind = pack.NODE_CLASS_MAPPINGS[name], KINDS[name]
        inputs = node.INPUT_TYPES()["required"]
        sockets = tuple((key, row[0]) for key, row in inputs.items() if str(row[0]).isupper())
        links = tuple(one for one in sockets if one[1] in ("MODEL", "CONDITIONING", "LATENT"))
        assert (links, node.RETURN_TYPES) == (kind.sockets, kind.outputs)
        assert tuple(key for key in inputs if key not in dict(links)) == kind.widgets
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node, node.FUNCTION))
    assert pack.NODE_DISPLAY_NAME_MAPPINGS["SpfLoraLocal"] == "LoRA Local"


def test_nodes_refuse_what_does_not_go_together(pack):
    nodes, local = sys.modules["pack.nodes"], sys.modules["pack.local"]
    how = ("beard.safetensors", 1.0, 0.6, 0.2, 0.6, 0)
    with pytest.raises(ValueError, match=r"starts at 0\.6 and ends at 0\.2"):
        nodes.LoraLocal().put_on(Model(), [], [], *how)
    below = local.Local((local.Part(None, [[torch.zeros(1), {}]], [], 0.0, 1.0, 0.6),))
    with pytest.raises(ValueError, match="base conditioning differs"):
        nodes.LoraLocal().put_on(
            Model(below), [[torch.ones(1), {}]], [], "x.safetensors", 1.0, 0.0, 1.0, 0.6, 0
        )
    with pytest.raises(ValueError, match="no LoRA Local"):
        nodes.LocalMap().look(Model(), {})
    with pytest.raises(ValueError, match="not sampled yet"):
        nodes.LocalMap().look(Model(below), {})
