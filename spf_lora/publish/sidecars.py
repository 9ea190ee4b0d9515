"""The files beside an adapter that managers of A1111, Forge and ComfyUI read."""

import json
from pathlib import Path
from typing import Any

from spf_lora.adapters.format.hashes import file_sha256
from spf_lora.adapters.format.privacy import without_leaks
from spf_lora.publish.subject import Subject
from spf_lora.registry.names import SUFFIX

INFO, WORDS = ".civitai.info", ".txt"


def civitai_info(subject: Subject, file: Path) -> str:
    """Return the JSON of a model's version in the form that Civitai answers with.

    Managers look for `trainedWords`, `baseModel` and the primary file's hashes. There is no id: the
    file is not on Civitai.

    Args:
        subject: the adapter.
        file: as it is published.
    """
    sha256 = file_sha256(file, 0).upper()
    table: dict[str, Any] = {
        "id": None,
        "modelId": None,
        "name": subject.name,
        "description": without_leaks(subject.facts.declared.get("description", "")),
        "baseModel": "Other" if subject.base.kind == "embedded" else "SD 1.5",
        "trainedWords": [subject.trigger] if subject.trigger else [],
        "model": {"name": subject.name, "type": "LORA"},
        "files": [
            {
                "name": f"{subject.name}{SUFFIX}",
                "type": "Model",
                "primary": True,
                "sizeKB": file.stat().st_size / 1024,
                "metadata": {"format": "SafeTensor"},
                "hashes": {"SHA256": sha256, "AutoV2": sha256[:10]},
            }
        ],
        "images": [],
    }
    return json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
