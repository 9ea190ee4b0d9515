"""Files that lie: each is read right or refused in one clear sentence, fast, in little memory."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from root import ROOT

from spf_lora.adapters.check.facts import inspect
from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.errors import SpfError

SCRIPT = ROOT / "scripts" / "make_hostile_corpus.py"
spec = importlib.util.spec_from_file_location("make_hostile_corpus", SCRIPT)
corpus = importlib.util.module_from_spec(spec)
spec.loader.exec_module(corpus)

# what the message must name, so that each file is refused for its own fault
REASONS = {
    "empty": "0 bytes, too few",
    "seven-bytes": "7 bytes, too few",
    "truncated-header": "declares a header of 427 bytes but only 52",
    "one-byte-more": "appended|should be 6837 bytes by its header but is 6838",
    "header-negative": "declares a header of 18446744073709551615",
    "header-past-end": "declares a header of 1048576",
    "header-zero": "no JSON object",
    "header-short": "no valid JSON",
    "header-8-mb-lists": "nests too deep",
    "header-8-mb-empty-lists": "more than 8192",
    "header-8-mb-strings": "describes tensor 'a' wrongly",
    "header-8-mb-quotes": "no valid JSON",
    "not-json": "no JSON object",
    "not-utf8": "utf-8",
    "json-list": "no JSON object",
    "json-nan": "NaN is not allowed",
    "long-integer": "no valid JSON",
    "float-shape": "impossible shape",
    "true-shape": "impossible shape",
    "negative-shape": "impossible shape",
    "overflow-shape": "6144 bytes where its shape needs",
    "many-dimensions": "impossible shape",
    "reversed-offsets": "-256 bytes where",
    "offsets-past-end": "leaves a hole",
    "three-offsets": "impossible offsets",
    "dtype-list": "as .'F16'.",
    "bool-factor": "as 'BOOL'",
    "integer-factor": "as I16, not as floating point",
    "extra-field": "wrongly",
    "entry-is-text": "wrongly",
    "no-tensors": "holds no tensors",
    "three-dimensional": "no LoRA pair",
    "mixed-kinds": "no LoRA pair",
    "only-alpha": "no down factor",
    "alpha-vector": "not one number",
    "nul-name": "no module",
    "escape-name": "no module",
    "unicode-digits": "no module",
    "stranger": "no module",
    "metadata-numbers": "not all text",
    "metadata-list": "not all text",
    "metadata-surrogate": "broken characters",
    "pickle-2": "Python pickle",
    "web-page": "a web page",
    "lfs-pointer": "git-lfs pointer",
    "link-to-itself": "cannot be opened",
    "truncated-data": "cut short|should be",
    "header-huge": "declares a header of 9223372036854775808",
    "header-100-mb": "declares a header of 100000002",
    "million-keys": "declares a header of",
    "many-keys": "more than 8192 tensors",
    "deep-json": "nests too deep",
    "duplicate-key": "appears twice",
    "overlap": "overlaps",
    "hole": "leaves a hole",
    "wrong-dtype": "'float16'",
    "zero-d-factor": "no LoRA pair",
    "empty-factor": "no LoRA pair",
    "rank-disagrees": "down has rank 4 but up has rank 3",
    "missing-up": "no up factor",
    "nan": "NaN or inf",
    "infinite": "NaN or inf",
    "alpha-nan": "alpha .* that is nan",
    "pickle": "Python pickle",
    "zip": "a zip or a PyTorch checkpoint",
    "fifo": "no regular file",
    "link-to-nothing": "does not exist",
    "path-parts": "no module",
    "loha": "LoHa",
    "lokr": "LoKr",
    "dora": "DoRA",
    "oft": "OFT",
    "diff": "diff",
    "sdxl-text": "Stable Diffusion XL",
    "peft-regex": "regular expression",
    "peft-without-config": "adapter_config.json is not beside it",
    "folder": "folder without adapter_config.json",
}
# what is wrong with these is not the adapter, so they are read
SOUND = {"card-deep"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return {path.stem: path for path in corpus.write(folder)}


def is_sound(adapter):
    """Whether it is exactly the file that the corpus was made from."""
    (module,) = adapter.modules.values()
    return (
        module.name == "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
        and module.alpha == 4
        and module.down.shape == (4, 768)
        and module.up.shape == (32, 4)
        and (module.down == 0.5).all()
        and (module.up == 0.5).all()
    )


def test_every_lying_file_is_refused_in_one_printable_sentence_within_two_seconds(files):
    def read(name, path):
        """Return the processor time that one file takes."""
        began = time.thread_time()
        if name in SOUND:
            assert is_sound(read_adapter(path)), name
        else:
            with pytest.raises(SpfError, match=REASONS[name]) as caught:
                read_adapter(path)
            assert caught.value.message.isprintable(), name
            assert caught.value.hint, name
        return time.thread_time() - began

    for name, path in files.items():
        # the first file that needs a library loads it, so what is slow is read once more
        assert read(name, path) < 2 or read(name, path) < 2, name


def test_no_pickle_of_the_corpus_was_opened(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pickle", "pickle-2"):
        with pytest.raises(SpfError, match="pickle"):
            read_adapter(files[name])
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_sound_file_is_read(files):
    link = files["nan"].with_name("link.safetensors")
    link.symlink_to("real.bin")
    assert is_sound(read_adapter(link))


def test_a_damaged_card_does_not_hide_the_adapter(files):
    assert "card" in inspect(files["card-deep"]).notes[0]


MEASURE = """
import re, sys
from spf_lora.adapters.format.adapter_file import read_adapter
from spf_lora.errors import SpfError
for path in sys.argv[1:]:
    try:
        read_adapter(path)
    except SpfError:
        pass
    print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_no_file_of_the_corpus_takes_200_mb(files):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, files.values())],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    peaks = [int(line) / 1024 for line in done.stdout.splitlines()]
    assert len(peaks) == len(files)
    assert max(peaks) < 200


SOUND_BYTES = corpus.sound()
LENGTH = int.from_bytes(SOUND_BYTES[:8], "little")
TOKENS = [
    *(b"0", b"1", b"-1", b"4", b"768", b"4294967296", b"1e9", b"null", b"true", b"NaN", b'""'),
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b'"F16"', b'"F32"', b'"BF16"', b'"F64"'),
    *(b"lora_up", b"lora_down", b"alpha", b"hada_w1_a", b"attn1", b"to_v", b"\x00", b"\xff"),
]


@st.composite
def mutated(draw):
    """A sound file with one to four edits; most keep the declared lengths consistent."""
    head, body = bytearray(SOUND_BYTES[8 : 8 + LENGTH]), bytearray(SOUND_BYTES[8 + LENGTH :])
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.sampled_from(["token", "byte", "cut", "body", "tail"]))
        at = draw(st.integers(0, max(len(head) - 1, 0)))
        if where == "token":
            span = draw(st.integers(0, 6))
            head[at : at + span] = draw(st.sampled_from(TOKENS))
        elif where == "byte" and head:
            head[at] = draw(st.integers(0, 255))
        elif where == "cut":
            del head[at : at + draw(st.integers(1, 40))]
        elif where == "body":
            spot = draw(st.integers(0, max(len(body) - 2, 0)))
            body[spot : spot + 2] = draw(st.sampled_from([b"\x00\x7e", b"\x00\x7c", b"\x01\x02"]))
        else:
            body = body[: draw(st.integers(0, len(body)))]
    honest = draw(st.integers(0, 9)) > 0
    length = len(head) if honest else draw(st.integers(0, 2**64 - 1))
    return length.to_bytes(8, "little") + bytes(head) + bytes(body)


def check(content, path):
    """Read a mutated file; whatever is accepted must be what its bytes say."""
    path.write_bytes(content)
    began = time.process_time()
    adapter, message = outcome(path)
    assert message.isprintable()
    assert time.process_time() - began < 2
    if adapter is not None:
        assert_says_what_the_bytes_say(adapter, content)
    return adapter is not None


def outcome(path):
    try:
        return read_adapter(path), ""
    except SpfError as error:
        return None, error.message


def assert_says_what_the_bytes_say(adapter, content):
    """An independent reading with the safetensors library: same numbers, nothing left over."""
    from safetensors import deserialize

    tensors = dict(deserialize(content))
    factors = [key for key in tensors if not key.endswith(".alpha")]
    assert len(factors) == 2 * len(adapter.modules)
    for module in adapter.modules.values():
        assert module.down.ndim == module.up.ndim
        assert np.isfinite(module.down).all()
        assert np.isfinite(module.up).all()
        assert np.isfinite(module.alpha)
        for array in (module.down, module.up):
            same = [one for one in tensors.values() if one["shape"] == list(array.shape)]
            kept = array.tobytes()
            widened = (np.asarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
            assert any(bytes(one["data"]) in (kept, widened.tobytes()) for one in same)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(content=mutated())
def test_a_mutated_file_is_read_right_or_refused(content, tmp_path_factory):
    check(content, tmp_path_factory.getbasetemp() / f"mutated-{os.getpid()}.safetensors")


def peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


@pytest.mark.slow
def test_20000_mutated_files_are_read_right_or_refused_and_none_takes_200_mb(tmp_path):
    counts = {True: 0, False: 0}
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()

    @settings(
        max_examples=20_000,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=mutated())
    def run(content):
        counts[check(content, tmp_path / "mutated.safetensors")] += 1

    run()
    print(f"read {counts[True]}, refused {counts[False]}, peak +{peak_mb() - before:.0f} MB")
    assert sum(counts.values()) >= 20_000
    assert counts[True] > 100
    assert peak_mb() - before < 200
