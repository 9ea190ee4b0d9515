"""A small hub on this machine: the HTTP interface that huggingface_hub calls to push and pull.

Repositories are kept in memory: a list of commits, each a table of names and bytes. Only what the
client really asks for is there; a token is checked wherever something is changed.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

import yaml

TOKEN = "hf_aTokenThatNobodyMayEverSee"
LICENSES = {"cc-by-4.0", "creativeml-openrail-m", "other"}
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
Files = dict[str, bytes]


class Hub:
    """What is stored, and what was asked."""

    def __init__(self) -> None:
        self.repos: dict[str, list[tuple[str, Files]]] = {}
        self.large: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []
        self.broken: set[str] = set()  # parts of paths that are answered with 500
        self.sizes: dict[str, int] = {}  # what is said of a file, if it is a lie
        self.says: dict[str, object] = {}  # what is said of a repository, if it is a lie
        self.meanwhile: Callable[[], object] = lambda: None  # just before a commit
        self.url = ""

    def commit(self, repo: str, files: Files) -> str:
        """Add files to a repository, which is made if need be; return the commit."""
        history = self.repos.setdefault(repo, [])
        table = {**(history[-1][1] if history else {}), **files}
        oid = hashlib.sha1(repr((len(history), sorted(table.items()))).encode()).hexdigest()
        history.append((oid, table))
        return oid

    def at(self, repo: str, revision: str | None = None) -> tuple[str, Files] | None:
        """Return commit and files of a revision, "main" or a commit."""
        history = self.repos.get(repo, [])
        if revision in (None, "main"):
            return history[-1] if history else None
        return next((one for one in history if one[0] == revision), None)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        return

    def _say(
        self, status: int, value: Any = None, *, code: str = "", body: bytes = b"", **headers: str
    ) -> None:
        data = body or (b"" if value is None else json.dumps(value).encode())
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _handle(self) -> None:
        path, body = unquote(urlparse(self.path).path), self._body()
        self.hub.asked.append(f"{self.command} {path}")
        if any(part in path for part in self.hub.broken):
            return self._say(500, {"error": "broken"})
        changes = self.command in ("POST", "PUT") and not path.startswith("/large/")
        if changes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._say(401, {"error": "no"})
        for method, pattern, act in _ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                return act(self, match, body)
        return self._say(404, {"error": "no such page"})

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def create(self, _: re.Match[str], body: bytes) -> None:
        table = json.loads(body)
        repo = f"{table['organization']}/{table['name']}"
        if repo in self.hub.repos:
            return self._say(409, {"error": "it is there"})
        self.hub.commit(repo, {})
        if table.get("visibility") == "private":
            self.hub.private.add(repo)
        return self._say(200, {"url": f"{self.hub.url}/{repo}"})

    def info(self, match: re.Match[str], _: bytes) -> None:
        repo, revision = match["repo"], match.groupdict().get("revision")
        if repo not in self.hub.repos:
            return self._say(404, {"error": "no"}, code="RepoNotFound")
        found = self.hub.at(repo, revision)
        if found is None:
            return self._say(404, {"error": "no"}, code="RevisionNotFound")
        rows = [
            {"rfilename": name, "size": self.hub.sizes.get(name, len(data))}
            for name, data in found[1].items()
        ]
        return self._say(200, {"id": repo, "sha": found[0], "siblings": rows} | self.hub.says)

    def check_yaml(self, _: re.Match[str], body: bytes) -> None:
        text = json.loads(body)["content"]
        table = yaml.safe_load(text.split("---")[1])
        faults = [] if table.get("license") in LICENSES else [{"message": "no such license"}]
        self._say(400 if faults else 200, {"errors": faults, "warnings": []})

    def modes(self, _: re.Match[str], body: bytes) -> None:
        large = (".safetensors", ".png")
        rows = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(large) else "regular",
                "shouldIgnore": False,
            }
            for one in json.loads(body)["files"]
        ]
        self._say(200, {"files": rows})

    def batch(self, _: re.Match[str], body: bytes) -> None:
        rows = []
        for one in json.loads(body)["objects"]:
            upload = {"href": f"{self.hub.url}/large/{one['oid']}"}
            rows.append({**one, "actions": {"upload": upload}})
        self._say(200, {"transfer": "basic", "objects": rows})

    def put(self, match: re.Match[str], body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == match["oid"]
        self.hub.large[match["oid"]] = body
        self._say(200)

    def add(self, match: re.Match[str], body: bytes) -> None:
        head, *rows = [json.loads(line) for line in body.splitlines()]
        self.hub.meanwhile()
        now = self.hub.at(match["repo"])
        parent = head["value"].get("parentCommit")
        if now is None or (parent and parent != now[0]):
            return self._say(412, {"error": "it changed"})
        files = {
            row["value"]["path"]: self.hub.large[row["value"]["oid"]]
            if row["key"] == "lfsFile"
            else base64.b64decode(row["value"]["content"])
            for row in rows
        }
        oid = self.hub.commit(match["repo"], files)
        url = f"{self.hub.url}/{match['repo']}/commit/{oid}"
        return self._say(200, {"commitUrl": url, "commitOid": oid})

    def resolve(self, match: re.Match[str], _: bytes) -> None:
        found = self.hub.at(match["repo"], match["revision"])
        if found is None or match["file"] not in found[1]:
            return self._say(404, {"error": "no"}, code="EntryNotFound")
        data = found[1][match["file"]]
        tag = hashlib.sha256(data).hexdigest()
        return self._say(200, body=data, ETag=f'"{tag}"', X_Repo_Commit=found[0])


_ROUTES = (
    ("POST", "/api/repos/create", _Answer.create),
    ("POST", "/api/validate-yaml", _Answer.check_yaml),
    ("GET", f"/api/models/{_REPO}", _Answer.info),
    ("GET", f"/api/models/{_REPO}/revision/(?P<revision>.+)", _Answer.info),
    ("POST", f"/api/models/{_REPO}/preupload/main", _Answer.modes),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Answer.batch),
    ("PUT", "/large/(?P<oid>[0-9a-f]{64})", _Answer.put),
    ("POST", f"/api/models/{_REPO}/commit/main", _Answer.add),
    ("HEAD", f"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Answer.resolve),
    ("GET", f"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Answer.resolve),
)


@contextmanager
def running() -> Iterator[Hub]:
    """Run a hub while the context lasts."""
    hub = Hub()
    handler = type("Answer", (_Answer,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
