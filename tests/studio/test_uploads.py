"""A file from a page goes through the readers, and its name is no path."""

import os
import pickle

import pytest
from made_adapters import make_adapter  # noqa: F401

from spf_lora.adapters.format.adapter_file import write_adapter
from spf_lora.errors import AdapterFileError
from spf_lora.registry.names import check_name
from spf_lora.studio import uploads


@pytest.fixture
def lora(tmp_path, make_adapter):  # noqa: F811
    path = tmp_path / "My LoRA (v1).safetensors"
    write_adapter(make_adapter(), path)
    return path


def test_a_sound_file_is_copied_under_a_name_of_ours(lora, tmp_path):
    path, facts = uploads.take(lora, tmp_path / "taken")
    assert path.name == "my-lora-v1.safetensors"
    assert path.parent.parent == tmp_path / "taken"
    assert path.read_bytes() == lora.read_bytes()
    assert facts.layout == "kohya"
    assert "My LoRA" not in str(facts.path)


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "gone-off"),))

    for name in ("evil.safetensors", "evil.ckpt", "evil.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(AdapterFileError) as caught:
            uploads.take(tmp_path / name, tmp_path / "taken")
        assert "pickled" in caught.value.hint
        assert str(tmp_path) not in caught.value.message
    assert not (tmp_path / "gone-off").exists()
    assert not [*(tmp_path / "taken").rglob("*.*")]


def test_another_file_of_the_same_name_leaves_the_first_as_it_was(lora, tmp_path, make_adapter):  # noqa: F811
    first, _ = uploads.take(lora, tmp_path / "taken")
    before = first.read_bytes()
    write_adapter(make_adapter(seed=1), lora, overwrite=True)
    second, _ = uploads.take(lora, tmp_path / "taken")
    assert second.name == first.name
    assert second != first
    assert first.read_bytes() == before


def test_a_file_of_a_gigabyte_is_refused_without_being_read(tmp_path):
    path = tmp_path / "large.safetensors"
    path.touch()
    os.truncate(path, 1 << 30)  # no bytes on disk
    with pytest.raises(AdapterFileError, match="1024 MiB; a page takes 512"):
        uploads.take(path, tmp_path / "taken")
    assert not (tmp_path / "taken").exists()


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo.safetensors")
    for name in ("fifo.safetensors", "absent"):
        with pytest.raises(AdapterFileError, match="cannot be read"):
            uploads.take(tmp_path / name, tmp_path / "taken")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "<b>x</b>", "Ünïcode", "", "-" * 300, "a" * 999]
)
def test_whatever_a_file_is_called_its_name_is_one_of_the_registrys(name):
    assert check_name(uploads.slug(name))
