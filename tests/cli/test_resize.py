import numpy as np
import pytest
from adapter_files import heavy_imports, sound_file, spf_lora

from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.adapters.format.card import from_metadata
from spf_lora.adapters.format.hashes import content_id


def change(module):
    up, down = (np.asarray(one, np.float64) for one in (module.up, module.down))
    return module.scale * up @ down


def distance(before, after):
    squares = [
        np.linalg.norm(change(module) - change(after.modules[name])) ** 2
        for name, module in before.modules.items()
    ]
    whole = [np.linalg.norm(change(module)) ** 2 for module in before.modules.values()]
    return (sum(squares) / sum(whole)) ** 0.5


def test_the_relative_error_printed_is_the_one_made(tmp_path):
    path, out = sound_file(tmp_path), tmp_path / "out.safetensors"
    done = spf_lora("resize", path, out, "--rank", 2, "--dtype", "fp32", "--json").json
    before, after = read_adapter(path), read_adapter(out)
    assert {module.rank for module in after.modules.values()} == {2}
    assert done["relative_error"] == pytest.approx(distance(before, after), rel=1e-4)
    assert 0.4 < done["relative_error"] < 0.9
    total = sum(one["error"] ** 2 for one in done["blocks"].values()) ** 0.5
    whole = sum(one["norm"] ** 2 for one in done["blocks"].values()) ** 0.5
    assert total / whole == pytest.approx(done["relative_error"])


def test_energy_gives_each_module_its_own_rank_and_all_one_alpha(tmp_path):
    path, out = sound_file(tmp_path, rank=8), tmp_path / "out.safetensors"
    done = spf_lora("resize", path, out, "--energy", 0.8, "--json").json
    after = read_adapter(out)
    assert {str(module.rank) for module in after.modules.values()} == set(done["ranks"])
    assert len({module.alpha for module in after.modules.values()}) == 1
    assert done["relative_error"] <= 0.2**0.5
    assert distance(read_adapter(path), after) == pytest.approx(done["relative_error"], abs=1e-3)
    assert spf_lora("verify", out).returncode == 0


def test_the_full_rank_costs_nothing(tmp_path):
    path, out = sound_file(tmp_path), tmp_path / "out.safetensors"
    done = spf_lora("resize", path, out, "--rank", 64, "--json").json
    assert done["relative_error"] < 1e-9
    assert distance(read_adapter(path), read_adapter(out)) < 1e-3


def test_the_new_file_names_the_old_one_as_its_parent_and_drops_its_metrics(tmp_path):
    path, out = sound_file(tmp_path), tmp_path / "out.safetensors"
    spf_lora("resize", path, out, "--rank", 2)
    card = from_metadata(read_adapter(out).metadata)
    assert card.parents == (content_id(read_adapter(path)),)
    assert card.metrics == {}


def test_the_table_has_a_line_for_each_block(tmp_path):
    shown = spf_lora("resize", sound_file(tmp_path), tmp_path / "o.safetensors", "--rank", 1).stdout
    assert sum(line.strip().startswith("unet.") for line in shown.splitlines()) == 6
    assert "relative error" in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "either a rank or an energy"),
        (("--rank", 2, "--energy", 0.5), "either a rank or an energy"),
        (("--rank", 0), "less than 1"),
        (("--energy", 2), "not in"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_read(
    tmp_path, arguments, reason
):
    done = spf_lora("resize", tmp_path / "missing", tmp_path / "out", *arguments, code=1)
    assert reason in done.stderr


def test_resize_imports_no_torch(tmp_path):
    path = sound_file(tmp_path)
    assert heavy_imports(["resize", path, tmp_path / "b.safetensors", "--rank", 2]) == []
