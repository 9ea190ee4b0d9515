"""Both profiles are one method: what is measured on the embedded base is what SD1.5 gets."""

from spf_lora.documents import read_toml
from spf_lora.shipped import shipped_folder

# What may differ, and why.
SIZE_AND_COST = {
    "data.batch_size": "memory",
    "data.passes": "memory",
    "learn.steps": "a step sees fewer pictures",
    "distil.steps": "a step sees fewer pictures",
    "optimizer.warmup_steps": "a share of the steps",
    "optimizer.learning_rate": "falls as the U-Net's width grows",
    "distil.sampler_steps": "the base's own sampler",
    "distil.guidance": "the base's own CFG scale",
    "training.precision": "memory",
    "training.base": "a name",
    "data.vocabulary": "a name: words for what pictures show",
    "distil.vocabulary": "a name: words for what pictures show",
}


def flat(name: str) -> dict[str, object]:
    table = read_toml(shipped_folder("recipes") / "profiles" / f"{name}.toml", most_bytes=1 << 20)
    return {f"{head}.{key}": value for head, keys in table.items() for key, value in keys.items()}


def test_the_profiles_differ_in_size_and_cost_alone():
    proven, sd15 = flat("embedded"), flat("sd15")
    assert proven.keys() == sd15.keys()
    assert {key for key in proven if proven[key] != sd15[key]} == SIZE_AND_COST.keys()


def test_the_learning_rate_falls_as_the_width_grows():
    from spf_lora.training.fit_gpu import base_configs

    small, large = (base_configs(spec)[0]["block_out_channels"][0] for spec in ("embedded", "SD"))
    rates = [flat(name)["optimizer.learning_rate"] for name in ("embedded", "sd15")]
    assert large / small == rates[0] / rates[1] == 10
