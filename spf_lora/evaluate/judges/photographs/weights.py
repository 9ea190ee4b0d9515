"""Models that score photographs: where they are, how large they are, how to get them.

Nothing here downloads. A model is looked for in a folder that the user names, then in the local
cache of the hub; when it is in neither, the error's hint is the command that fetches it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spf_lora.errors import ScorerError
from spf_lora.strict import did_you_mean

INSTALL = "pip install 'spf-lora[evaluate]'"


@dataclass(frozen=True)
class Pretrained:
    """A model on the hub.

    Attributes:
        repo: owner/name on the hub.
        files: what is read of it; all of them safetensors or text.
        megabytes: size of these files.
        licence: as its card names it.
        what: a few words for people.
    """

    repo: str
    files: tuple[str, ...]
    megabytes: int
    licence: str
    what: str

    @property
    def command(self) -> str:
        """The command that fetches it."""
        return f"hf download {self.repo} {' '.join(self.files)}"


_VISION_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
_CLIP_FILES = (*_VISION_FILES, "tokenizer.json", "tokenizer_config.json")

WEIGHTS: dict[str, Pretrained] = {
    "vgg16": Pretrained(
        "timm/vgg16.tv_in1k",
        ("model.safetensors",),
        553,
        "bsd-3-clause",
        "VGG-16, the trunk of LPIPS",
    ),
    "face": Pretrained(
        "minchul/cvlface_adaface_ir50_webface4m",
        ("model.safetensors",),
        175,
        "mit",
        "AdaFace IR-50, a face embedding",
    ),
    "parser": Pretrained(
        "jonathandinu/face-parsing",
        _VISION_FILES,
        339,
        "see its card",
        "SegFormer-B5 on CelebAMask-HQ, 19 parts of a face",
    ),
    "clip": Pretrained(
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        _CLIP_FILES,
        608,
        "mit",
        "CLIP ViT-B/32 of LAION, another one than Stable Diffusion's",
    ),
    "dinov2": Pretrained(
        "facebook/dinov2-base",
        _VISION_FILES,
        346,
        "apache-2.0",
        "DINOv2 base, features of whole pictures",
    ),
}


class AbsentError(ScorerError):
    """A model is not on this machine.

    Attributes:
        what: the model in words.
        command: fetches it.
        megabytes: its size.
    """

    def __init__(self, message: str, what: str, command: str, megabytes: int) -> None:
        super().__init__(message, hint=f"{command}   # {megabytes} MB")
        self.what, self.command, self.megabytes = what, command, megabytes


def locate_all(names: Sequence[str], sources: Mapping[str, str] | None = None) -> list[Path]:
    """Return the folders of several models; everything that is absent is told at once.

    Raises:
        ScorerError: as `locate`; with one command that fetches all.
    """
    folders, absent = [], []
    for name in names:
        try:
            folders.append(locate(name, sources))
        except AbsentError as error:
            absent.append(error)
    if len(absent) == 1:
        raise absent[0]
    if absent:
        raise AbsentError(
            f"not on this machine: {'; '.join(error.what for error in absent)}",
            what="; ".join(error.what for error in absent),
            command=" && ".join(error.command for error in absent),
            megabytes=sum(error.megabytes for error in absent),
        )
    return folders


def locate(name: str, sources: Mapping[str, str] | None = None) -> Path:
    """Return the folder that holds a model's files.

    Args:
        name: a key of `WEIGHTS`.
        sources: model name -> a folder, or another repository of the same layout, to use instead.

    Raises:
        ScorerError: the name is unknown, or the files are neither there nor in the hub's cache.
    """
    unknown = set(sources or {}) - set(WEIGHTS)
    if unknown:
        wrong = sorted(unknown)[0]
        raise ScorerError(
            f"no scorer uses a model called {wrong!r}{did_you_mean(wrong, WEIGHTS)}",
            hint="name one of the models, as in face=FOLDER",
        )
    weights = WEIGHTS[name]
    source = (sources or {}).get(name, weights.repo)
    folder = Path(source)
    if folder.is_dir():
        missing = [file for file in weights.files if not (folder / file).is_file()]
        if missing:
            raise AbsentError(
                f"{folder} holds no {missing[0]}, so it is not {weights.what}",
                weights.what,
                f"{weights.command} --local-dir {folder}",
                weights.megabytes,
            )
        return folder
    return _cached(source, weights)


def _cached(repo: str, weights: Pretrained) -> Path:
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise ScorerError(
            "the scorers for photographs need huggingface-hub", hint=INSTALL
        ) from error
    try:
        cached = [try_to_load_from_cache(repo, file) for file in weights.files]
    except HFValidationError as error:
        raise ScorerError(
            f"{repo} is neither a folder nor a repository of the hub",
            hint=f"{weights.command}   # {weights.megabytes} MB",
        ) from error
    paths = [Path(path) for path in cached if isinstance(path, str)]
    if len(paths) < len(cached):
        what = weights.what if repo == weights.repo else f"{repo} (in place of {weights.what})"
        command = weights.command.replace(weights.repo, repo, 1)
        raise AbsentError(f"{what} is not on this machine", what, command, weights.megabytes)
    return paths[0].parent
