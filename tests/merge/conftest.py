import pytest

from spf_lora.adapters.format.adapter_file import read_adapter, write_adapter
from spf_lora.merge.execute import execute
from spf_lora.merge.plan import Settings, make_plan
from spf_lora.merge.sources import open_sources


@pytest.fixture
def merged(tmp_path):
    """Merge adapters in memory through files; return the modules read back, and the outcome."""

    def run(adapters, weights=None, *, stored="fp32", block_weights=(), mixed=False, **settings):
        paths = []
        for adapter in adapters:
            path = tmp_path / f"in{len(list(tmp_path.iterdir()))}.safetensors"
            # what is written is read again, so that inputs in 16 bits are what they are
            write_adapter(adapter, path, dtype=stored)
            paths.append(path)
        target = tmp_path / f"out{len(list(tmp_path.iterdir()))}.safetensors"
        opening = open_sources(
            paths, weights=weights, block_weights=block_weights, allow_mixed_base=mixed
        )
        with opening as sources:
            done = execute(make_plan(sources, Settings(**settings)), target)
        return read_adapter(target), done

    return run
