"""Teachers of other methods: what is read moves a weight as the method's own equation says."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from spf_lora.adapters.format.multiplied import method_of, read_multiplied
from spf_lora.errors import AdapterFileError

RNG = np.random.default_rng(0)
LINEAR = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", (12, 10)
CONV = "unet.mid_block.resnets.0.conv1", (12, 8, 3, 3)
RANK, ALPHA, CLOSE = 3, 1.5, {"rtol": 1e-4, "atol": 1e-6}  # sums of float32 in another order


def numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def flat(shape):
    return (shape[0], int(np.prod(shape[1:])))


def tensor(name):
    return torch.from_numpy(name).double()


def loha(shape):
    out, wide = flat(shape)
    return {
        f"hada_w{i}_{e}": numbers(*s)
        for i in "12"
        for e, s in (("a", (out, RANK)), ("b", (RANK, wide)))
    }


def by_loha(f, weight):
    halves = [tensor(f[f"hada_w{i}_a"]) @ tensor(f[f"hada_w{i}_b"]) for i in "12"]
    return (halves[0] * halves[1]).reshape(weight.shape) * ALPHA / RANK


def loha_core(shape):
    out, wide, *taps = shape
    rows = {f"hada_w{i}_a": numbers(RANK, out) for i in "12"}
    rows |= {f"hada_w{i}_b": numbers(RANK, wide) for i in "12"}
    return rows | {f"hada_t{i}": numbers(RANK, RANK, *taps) for i in "12"}


def by_loha_core(f, weight):
    def half(i):
        total = torch.zeros(weight.shape, dtype=torch.double)
        t, a, b = (tensor(f[f"hada_{one}"]) for one in (f"t{i}", f"w{i}_a", f"w{i}_b"))
        for r in range(RANK):
            for s in range(RANK):
                total += a[r][:, None, None, None] * b[s][None, :, None, None] * t[r, s]
        return total

    return half(1) * half(2) * ALPHA / RANK


def lokr(shape):
    out, wide = shape[0] // 4, shape[1] // 2 * int(np.prod(shape[2:]))
    return {
        "lokr_w1": numbers(4, 2),
        "lokr_w2_a": numbers(out, RANK),
        "lokr_w2_b": numbers(RANK, wide),
    }


def by_lokr(f, weight):
    w2 = tensor(f["lokr_w2_a"]) @ tensor(f["lokr_w2_b"])
    w2 = w2.reshape(len(w2), weight.shape[1] // 2, *weight.shape[2:])
    w1 = tensor(f["lokr_w1"]).reshape(4, 2, *(1 for _ in weight.shape[2:]))
    return torch.kron(w1, w2) * ALPHA / RANK


def lokr_whole(shape):
    return {"lokr_w1": numbers(4, 2), "lokr_w2": numbers(shape[0] // 4, shape[1] // 2, *shape[2:])}


def by_lokr_whole(f, weight):
    w1 = tensor(f["lokr_w1"]).reshape(4, 2, *(1 for _ in weight.shape[2:]))
    return torch.kron(w1, tensor(f["lokr_w2"]))  # whole factors have scale 1


def dora(shape):
    taps = (1,) * (len(shape) - 2)
    down, up = numbers(RANK, *shape[1:]), numbers(shape[0], RANK, *taps)
    return {
        "lora_down.weight": down,
        "lora_up.weight": up,
        "dora_scale": numbers(shape[0], 1, *taps),
    }


def by_dora(f, weight):
    up, down = (tensor(f[f"lora_{one}.weight"]) for one in ("up", "down"))
    new = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape) * ALPHA / RANK
    length = new.flatten(1).norm(dim=1).reshape(f["dora_scale"].shape)
    return tensor(f["dora_scale"]) * new / length - weight


def dora_columns(shape):
    return dora(shape) | {"dora_scale": numbers(1, shape[1], *(1 for _ in shape[2:]))}


def by_dora_columns(f, weight):
    up, down = (tensor(f[f"lora_{one}.weight"]) for one in ("up", "down"))
    new = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape) * ALPHA / RANK
    length = new.transpose(0, 1).flatten(1).norm(dim=1).reshape(f["dora_scale"].shape)
    return tensor(f["dora_scale"]) * new / length - weight


def locon_core(shape):
    return {
        "lora_down.weight": numbers(RANK, shape[1], 1, 1),
        "lora_up.weight": numbers(shape[0], RANK, 1, 1),
        "lora_mid.weight": numbers(RANK, RANK, *shape[2:]),
    }


def by_locon_core(f, weight):
    up, mid, down = (tensor(f[f"lora_{one}.weight"]) for one in ("up", "mid", "down"))
    picture = torch.randn(1, weight.shape[1], 5, 5, dtype=torch.double)
    moved = torch.zeros_like(weight)
    for m in range(RANK):
        for n in range(RANK):
            rows, columns = up[:, m, 0, 0], down[n, :, 0, 0]
            moved += rows[:, None, None, None] * columns[None, :, None, None] * mid[m, n]
    steps = torch.conv2d(torch.conv2d(torch.conv2d(picture, down), mid), up)
    torch.testing.assert_close(torch.conv2d(picture, moved), steps)
    return moved * ALPHA / RANK


def oft(shape):
    return {
        "oft_blocks": 0.1 * numbers(3, 4, 4),
        "rescale": numbers(shape[0], *(1 for _ in shape[1:])),
    }


def by_oft(f, weight):
    rows = []
    for block, part in zip(tensor(f["oft_blocks"]), weight.chunk(3), strict=True):
        q, one = block - block.T, torch.eye(4, dtype=torch.double)
        turn = (one + q) @ torch.linalg.inv(one - q)
        torch.testing.assert_close(turn @ turn.T, one)  # it is a rotation
        rows.append(torch.einsum("nm,n...->m...", turn, part))
    return tensor(f["rescale"]) * torch.cat(rows) - weight


METHODS = {
    "LoHa": (loha, by_loha),
    "LoKr": (lokr, by_lokr),
    "LoKr, whole": (lokr_whole, by_lokr_whole),
    "DoRA": (dora, by_dora),
    "DoRA by columns": (dora_columns, by_dora_columns),
    "OFT": (oft, by_oft),
    "LoHa with a core": (loha_core, by_loha_core),
    "LoCon with a Tucker core": (locon_core, by_locon_core),
}


def save(path, name, factors, alpha=ALPHA):
    body = "lora_unet_" + name.removeprefix("unet.").replace(".", "_")
    tensors = {f"{body}.{factor}": value for factor, value in factors.items()}
    save_file(tensors | {f"{body}.alpha": np.array(alpha, np.float32)}, path)
    return path


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", [LINEAR, CONV], ids=["linear", "conv"])
def test_a_method_multiplied_out_is_its_own_equation(tmp_path, method, where):
    name, shape = where
    if "core" in method and len(shape) == 2:
        return  # only convolutions have one
    make, by_hand = METHODS[method]
    factors, weight = make(shape), numbers(*shape)
    path = save(tmp_path / "a.safetensors", name, factors, 0.0 if method == "OFT" else ALPHA)
    assert method_of(path) == method.partition(" by")[0].partition(",")[0].removesuffix(
        " with a core"
    )
    module = read_multiplied(path, {name: weight}.__getitem__).modules[name]
    moved = module.scale * module.up.reshape(shape[0], -1) @ module.down.reshape(module.rank, -1)
    expected = by_hand(factors, tensor(weight)).numpy().reshape(moved.shape)
    np.testing.assert_allclose(moved, expected, **CLOSE)


def test_a_turn_is_no_larger_than_its_constraint(tmp_path):
    name, shape = LINEAR
    factors, weight = oft(shape), numbers(*shape)
    del factors["rescale"]
    longest = 0.01 * shape[0]
    q = tensor(factors["oft_blocks"]) - tensor(factors["oft_blocks"]).transpose(1, 2)
    small = {"oft_blocks": factors["oft_blocks"] * float(longest / q.norm())}
    moved = []
    for file, alpha, of in (("a", 0.01, factors), ("b", 0.0, small)):
        path = save(tmp_path / f"{file}.safetensors", name, of, alpha)
        module = read_multiplied(path, {name: weight}.__getitem__).modules[name]
        moved.append(module.up @ module.down)
    np.testing.assert_allclose(*moved, **CLOSE)


@pytest.mark.parametrize("wrong", ["shape", "lacking", "NaN", "whole numbers", "too large"])
def test_a_damaged_file_is_refused_by_its_module(tmp_path, wrong):
    name, shape = LINEAR
    factors = loha(shape)
    if wrong == "shape":
        factors["hada_w2_b"] = numbers(RANK, shape[1] + 1)
    elif wrong == "lacking":
        del factors["hada_w2_b"]
    elif wrong == "NaN":
        factors["hada_w2_b"][0, 0] = np.nan
    elif wrong == "whole numbers":
        factors["hada_w2_b"] = factors["hada_w2_b"].astype(np.int8)
    else:
        factors["hada_w1_a"], factors["hada_w1_b"] = numbers(10**6, 1), numbers(1, 10**6)
    path = save(tmp_path / "a.safetensors", name, factors)
    match = {"NaN": "NaN or inf", "whole numbers": "not as floating point"}
    with pytest.raises(AdapterFileError, match=match.get(wrong, "do not fit a weight")):
        read_multiplied(path, {name: numbers(*shape)}.__getitem__)


def test_a_key_of_no_module_and_a_method_that_cannot_be_are_not_taken(tmp_path):
    path = save(tmp_path / "a.safetensors", "unet.unheard_of", loha((4, 4)))
    with pytest.raises(AdapterFileError, match="belongs to no module"):
        read_multiplied(path, dict.__getitem__)
    mixed = loha((4, 4)) | {"on_input": numbers(4)}
    assert method_of(save(tmp_path / "b.safetensors", LINEAR[0], mixed)) is None
