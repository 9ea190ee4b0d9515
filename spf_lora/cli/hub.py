"""`spf-lora push` and `spf-lora pull`: adapters to and from the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from spf_lora.cli import out
from spf_lora.cli.options import Json, Registry


def push(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A file or a name.")],
    repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="Where to.")],
    card: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What `card` wrote; out/cards/NAME.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write into a repository that is there.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Make a repository that others cannot see.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files; the hub is not asked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Upload the folder that `card` wrote, in one commit."""
    from spf_lora.publish import hub
    from spf_lora.publish.folder import ready_files
    from spf_lora.registry.names import resolve

    hub.check_repo(repo)
    path = resolve(adapter)
    files = ready_files(card or out.OUT / "cards" / path.stem, path)
    url = None if dry_run else hub.push(files, repo, update=update, private=private)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    if as_json:
        out.show_json({"repo": repo, "files": sizes, "commit": url})
        return
    out.show(out.table([[name, f"{size:,} bytes"] for name, size in sizes.items()]))
    out.say(f"nothing was pushed to {repo}: --dry-run" if url is None else f"pushed: {url}")


def pull(
    spec: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="With @REVISION if need be.")],
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it; as its file by default.")
    ] = None,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Fetch an adapter into the registry, if it is whole and what its repository says."""
    from spf_lora.publish import hub

    pulled = hub.pull(spec, name, registry)
    if as_json:
        table = {"name": pulled.entry.name, "file": str(pulled.entry.path)}
        rest = {"commit": pulled.commit, "content_id": pulled.content_id, "stated": pulled.stated}
        out.show_json(table | rest)
        return
    out.show(str(pulled.entry.path))
    out.say(f"commit {out.printable(pulled.commit)}, content id {pulled.content_id}")
    if not pulled.stated:
        out.warn("the repository states no content id, so nothing says that this is the same file")
