"""Adapters to and from the Hugging Face hub; whoever logs in there keeps the token.

`HF_ENDPOINT` names another hub and `HF_HUB_OFFLINE=1` none, as everywhere.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spf_lora.base.hub import is_hub_id, split_hub_id
from spf_lora.errors import AdapterFileError, HubError
from spf_lora.publish.folder import MANIFEST, MOST_TEXT, content_id_at, read_manifest
from spf_lora.publish.subject import refuse_unsound
from spf_lora.registry.edit import add
from spf_lora.registry.locks import refuse_taken
from spf_lora.registry.names import SUFFIX, Entry, check_name, home

MOST_BYTES = 1 << 30  # of an adapter; one of rank 256 on every layer of SD1.5 has half of it
_COMMIT = re.compile("[0-9a-f]{40}")
_FILE = re.compile(r"\w[\w .()+-]{0,150}\.safetensors")  # in no folder; a stranger named it
_LOGIN = "hf auth login; or set HF_TOKEN to a token that may write"


@dataclass(frozen=True)
class Pulled:
    """What came from the hub.

    Attributes:
        entry: in the registry.
        commit: of the repository that it came from.
        content_id: of its numbers.
        stated: whether the repository said this content id.
    """

    entry: Entry
    commit: str
    content_id: str
    stated: bool


def check_repo(repo: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        HubError: it is none.
    """
    if not is_hub_id(repo) or "@" in repo:
        raise HubError(f"{repo!r} is no repository", hint="write it like owner/name")


def push(files: Mapping[str, Path], repo: str, *, update: bool, private: bool) -> str:
    """Upload files in one commit and return its address.

    Args:
        files: name in the repository -> file.
        repo: owner/name.
        update: change a repository that is there; without, it is refused.
        private: make a new repository that others cannot see.

    Raises:
        HubError: there is no token or no connection, the repository is there, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    check_repo(repo)
    _check_online("pushed")
    if get_token() is None:
        raise HubError("nobody is logged in to the hub, so nothing can be pushed", hint=_LOGIN)
    api = HfApi()
    with _asking(repo):
        there = api.repo_exists(repo)
        if there and not update:
            raise HubError(
                f"{repo} is there already, and nothing in it was changed",
                hint="--update writes these files into it; or name another --repo",
            )
        head = api.model_info(repo).sha if there else None
        if not there:
            api.create_repo(repo, private=private or None)
    try:
        with _asking(repo):
            done = api.create_commit(
                repo,
                [CommitOperationAdd(name, str(file)) for name, file in files.items()],
                commit_message="Add adapter and card with spf-lora",
                parent_commit=head,  # refused if somebody else changed it meanwhile
            )
    except HubError as error:
        if there:
            raise
        raise HubError(
            f"{error.message}; {repo} was made and is empty", hint=f"{error.hint}; add --update"
        ) from error
    return str(done.commit_url)


def pull(spec: str, name: str | None = None, registry: Path | None = None) -> Pulled:
    """Fetch an adapter and put it into the registry, once its numbers are what was said.

    Args:
        spec: owner/name or owner/name@revision.
        name: what to call it; as its file by default.
        registry: the folder to put it into.

    Raises:
        HubError: it cannot be had, or its repository holds no adapter that can be told.
        RegistryError: the name is taken or no name.
        AdapterFileError: the file is no adapter of ours, or not the one that was published.
        CheckFailedError: it is damaged or says what is not so.
    """
    from huggingface_hub import HfApi

    if not is_hub_id(spec):
        raise HubError(f"{spec!r} is no repository", hint="write it like owner/name@revision")
    repo, revision = split_hub_id(spec)
    _check_online("pulled")
    with _asking(spec):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {
            str(one.rfilename): one.size for one in info.siblings or [] if isinstance(one.size, int)
        }
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit) or (
            revision and _COMMIT.fullmatch(revision) and revision != commit
        ):
            raise ValueError("it names no commit, or another one")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file, stated = _adapter_of(spec, repo, commit, sizes, folder)
        own = check_name(name or file.removesuffix(SUFFIX))
        refuse_taken(home(registry).folder, own)
        path = _fetch(repo, commit, file, sizes, MOST_BYTES, folder)
        identity = content_id_at(path)
        if stated and identity != stated:
            raise AdapterFileError(
                f"{spec} holds another adapter than was published: its content id is "
                f"{identity[:12]}, not {stated[:12]}",
                hint="ask its maker; or pull an earlier revision: owner/name@COMMIT",
            )
        refuse_unsound(path, own)
        entry = add(path, own, registry).entry
    return Pulled(entry, commit, identity, bool(stated))


def _adapter_of(
    spec: str, repo: str, commit: str, sizes: Mapping[str, int], folder: Path
) -> tuple[str, str]:
    """Return the adapter's file and the content id that the repository states, or ""."""
    if MANIFEST in sizes:
        try:
            manifest = read_manifest(_fetch(repo, commit, MANIFEST, sizes, MOST_TEXT, folder))
        except (OSError, ValueError) as error:
            raise HubError(f"{spec}: {MANIFEST}: {error}", hint="ask its maker") from error
        return f"{manifest.name}{SUFFIX}", manifest.content_id
    found = [file for file in sizes if _FILE.fullmatch(file)]
    if len(found) != 1:
        raise HubError(
            f"{spec} has {len(found)} {SUFFIX} files and no {MANIFEST} that says which it is",
            hint="hf download OWNER/NAME FILE, then spf-lora adapters add FILE",
        )
    return found[0], ""


def _fetch(
    repo: str, commit: str, file: str, sizes: Mapping[str, int], most: int, folder: Path
) -> Path:
    """Fetch one file of a commit into a folder.

    Raises:
        HubError: it is not there, too large, or cannot be had.
    """
    from huggingface_hub import hf_hub_download

    size = sizes.get(file)
    if size is None:
        raise HubError(f"{repo} has no {file}", hint="ask its maker")
    if size > most:
        raise HubError(
            f"{file} of {repo} has {size >> 20} MiB; the limit is {most >> 20}",
            hint="no adapter for Stable Diffusion 1.5 needs so much",
        )
    with _asking(repo):
        path = Path(hf_hub_download(repo, file, revision=commit, local_dir=folder))
    if path.stat().st_size != size:
        raise HubError(f"{file} of {repo} did not come whole", hint="pull it again")
    return path


def _check_online(what: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise HubError(f"HF_HUB_OFFLINE is set, so nothing can be {what}", hint="unset it")


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn what can go wrong with the hub into one sentence; no token and no address is in it."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(f"{what} is only for those whom its owner lets in", hint=_LOGIN) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{what}: there is no such revision", hint="name a commit or branch"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{what} is not on the hub, or you may not see it", hint=f"check the name; or {_LOGIN}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(what, error.response.status_code) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise HubError(
            f"the hub cannot be reached ({type(error).__name__})", hint="try again later"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise HubError(
            f"the hub's answer about {what} cannot be used: {str(error)[:300]}",
            hint="look at the file it names; or try again later",
        ) from error


def _refused(what: str, status: int) -> HubError:
    if status in (401, 403):
        return HubError(f"you may not do this with {what}", hint=_LOGIN)
    if status in (409, 412):
        return HubError(
            f"{what} was made or changed by somebody else meanwhile", hint="look, then push again"
        )
    return HubError(f"the hub refuses {what} (status {status})", hint="try again later")
