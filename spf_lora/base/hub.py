"""Bases on the Hugging Face hub: fetched once into the hub's own cache, pinned to a commit.

`HF_HUB_OFFLINE=1` is honoured: then only the cache is looked at.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from spf_lora.base import families
from spf_lora.errors import BaseModelError

_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
_SMALL = ["model_index.json", "*/config.json", "scheduler/*.json", "tokenizer/*"]
_TOKENIZER = ["vocab.json", "merges.txt", "tokenizer.json", "*_config.json", "*_map.json"]
CLIP = "openai/clip-vit-large-patch14"  # SD1.5's text encoder and tokenizer come from there
_CLIP_FILES = ["config.json", "model.safetensors", *_TOKENIZER]
_CLIP_SIZE = "1.7 GB"


def is_hub_id(spec: str) -> bool:
    """Tell whether a text can be a hub id, as `owner/name` or `owner/name@revision`."""
    return _ID.fullmatch(spec) is not None and not spec.endswith(
        (".safetensors", *families.PICKLES)
    )


def split_hub_id(spec: str) -> tuple[str, str | None]:
    """Return the repository and the revision of a hub id."""
    match = _ID.fullmatch(spec)
    assert match is not None
    return match["repo"], match["revision"]


def fetch_base(spec: str) -> tuple[Path, str]:
    """Return the folder of a base in the hub's cache, and its id pinned as `owner/name@commit`.

    Configs come first, so a base of another family is refused before gigabytes are fetched; of the
    weights only the files that are read are fetched.

    Raises:
        BaseModelError: it is neither in the cache nor to be had; or it is another family's.
    """
    from spf_lora.base.folder import MODELS, check_unet_config, read_json, weight_files

    repo, revision = split_hub_id(spec)
    folder = _snapshot(spec, repo, revision, _SMALL)
    families.check_class(spec, read_json(folder / "model_index.json", spec))
    check_unet_config(spec, read_json(folder / "unet" / "config.json", spec))
    local = [p.relative_to(folder).as_posix() for p in folder.glob("*/*")]
    if not all(weight_files(local, part) for part in MODELS):
        names = _listing(spec, repo, folder.name)
        _fetch_weights(spec, repo, folder.name, names)
    return folder, f"{repo}@{folder.name}"


def fetch_tokenizer(spec: str = CLIP) -> Path:
    """Return a folder with a tokenizer from the hub or its cache; CLIP's own is SD1.5's.

    Raises:
        BaseModelError: it is neither in the cache nor to be had.
    """
    patterns = [*_TOKENIZER, "tokenizer/*"]
    return _snapshot(spec, *split_hub_id(spec), patterns)


def fetch_clip(tell: Callable[[str, int, int], None]) -> Path:
    """Return the folder of SD1.5's own CLIP in the hub's cache; its size is told before it comes.

    Raises:
        BaseModelError: it is neither in the cache nor to be had.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    kept = [try_to_load_from_cache(CLIP, name) for name in ("config.json", "model.safetensors")]
    if all(isinstance(path, str) for path in kept):
        return Path(str(kept[0])).parent
    if constants.HF_HUB_OFFLINE:  # a snapshot of its tokenizer alone may be there
        raise _unreachable(CLIP)
    tell(f"fetch {CLIP}, {_CLIP_SIZE}", 0, 0)
    return _snapshot(CLIP, CLIP, None, _CLIP_FILES)


def _fetch_weights(spec: str, repo: str, commit: str, names: Sequence[str]) -> None:
    from spf_lora.base.folder import MODELS, weight_files

    wanted = {part: weight_files(names, part) for part in MODELS}
    missing = [part for part, files in wanted.items() if not files]
    if missing and any(n.endswith(families.PICKLES) for n in names):
        raise families.pickled(f"{spec}, part {missing[0]},", "there only as a pickle")
    if missing:
        raise BaseModelError(
            f"{spec} has no weights of the {', '.join(missing)}", hint="name another base"
        )
    _snapshot(spec, repo, commit, [file for files in wanted.values() for file in files])


def _listing(spec: str, repo: str, commit: str) -> list[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return HfApi().list_repo_files(repo, revision=commit)
    except (OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise _unreachable(spec, error) from error


def _snapshot(spec: str, repo: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise BaseModelError(
            f"{spec} is no base: neither a file or folder here nor a hub id",
            hint="--base embedded, a folder, a .safetensors file, or owner/name",
        ) from error
    except (OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise _unreachable(spec, error) from error


def _unreachable(spec: str, error: Exception | None = None) -> BaseModelError:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        why, way = (
            "whole in the hub's cache, and HF_HUB_OFFLINE is set",
            "unset it once to fetch it",
        )
    else:
        why, way = f"to be had from the hub ({type(error).__name__})", "look at its spelling"
    return BaseModelError(
        f"{spec} is neither a file or folder here nor {why}",
        hint=f"{way}; a gated model needs `hf auth login`; or name a local file or folder",
    )
