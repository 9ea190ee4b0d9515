"""Puts the nodes into a ComfyUI, or the newer ones in the place of the older."""

import secrets
import shutil
from pathlib import Path

from spf_lora.atomic import unwritable
from spf_lora.errors import OutputError

NAME = "spf_lora"
_HERE = Path(__file__).parent
_MARKS = ("nodes.py", "folder_paths.py", "comfy/samplers.py")  # what a ComfyUI has


def files() -> dict[str, Path]:
    """Return the files of the node pack by their names in it.

    The arithmetic of the control map has one home; the pack carries a copy of it.
    """
    pack = {path.name: path for path in sorted((_HERE / "pack").iterdir()) if path.is_file()}
    return {**pack, "control_map.py": _HERE.parent.parent / "method" / "control_map.py"}


def install(comfyui: Path, *, link: bool = False) -> Path:
    """Write the pack to `custom_nodes/spf_lora` and return that folder.

    It is filled beside the target and renamed; what an older version left is gone then.

    Args:
        comfyui: the folder that has ComfyUI's `main.py`.
        link: link the files instead of copying them.

    Raises:
        OutputError: the folder is no ComfyUI, has other nodes of that name, or cannot be written.
    """
    missing = [mark for mark in _MARKS if not (comfyui / mark).is_file()]
    if missing:
        raise OutputError(
            f"{comfyui} is no ComfyUI: it has no {missing[0]}",
            hint="name the folder with ComfyUI's main.py",
        )
    target = comfyui / "custom_nodes" / NAME
    if target.is_symlink() or (target.exists() and not _is_ours(target)):
        raise OutputError(
            f"{target} is there and is not ours", hint="move it away, then install again"
        )
    mark = secrets.token_hex(4)
    beside, old = (target.with_name(f".{NAME}.{mark}.{kind}") for kind in ("new", "old"))
    try:
        beside.mkdir(parents=True)
        for name, path in files().items():
            if link:
                (beside / name).symlink_to(path.resolve())
            else:
                shutil.copyfile(path, beside / name)
        if target.exists():
            target.replace(old)
        beside.replace(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.replace(target)
        raise unwritable(target, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return target


def _is_ours(folder: Path) -> bool:
    """Tell whether a folder holds a version of the pack, or nothing."""
    about = folder / "pyproject.toml"
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    return about.is_file() and 'DisplayName = "spf-lora"' in about.read_text("utf-8", "replace")
