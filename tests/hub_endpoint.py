"""A Hub in this process: enough of the Hugging Face Hub's HTTP API for the real client to push and pull.

The ``hub`` fixture starts the server on a free local port and gives `huggingface_hub` an HTTP client whose
transport sends everything meant for ``https://huggingface.co`` there. No code under test learns of it, and a
request to any other host is refused, so a passing test has not touched the network. For code in a subprocess,
use the variables of `Hub.env`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook

PUBLIC_HOST = "huggingface.co"
LFS_FROM_BYTES = 10_000
"""Files of this size and above, and all .safetensors, go through large file storage."""


@dataclass
class Repo:
    """One repository: its commits' file trees (path -> bytes) in order, with their messages."""

    commits: list[tuple[str, dict[str, bytes], str]] = field(default_factory=list)
    lfs_paths: set[str] = field(default_factory=set)

    def commit(self, files: dict[str, bytes], message: str) -> str:
        """Add a commit that holds exactly ``files``; return its 40-digit hash."""
        sha = hashlib.sha1(f"{len(self.commits)} {message} {sorted(files)}".encode()).hexdigest()
        self.commits.append((sha, files, message))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Hash and files of ``main`` or of a commit hash; None where there is no such revision."""
        for sha, files, _ in reversed(self.commits):
            if revision in ("main", sha):
                return sha, files
        return None


def git_blob_hash(data: bytes) -> str:
    """The id git gives a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """The server and its memory."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        hub = self

        class BoundHandler(Handler):
            """The handler class that knows this hub."""

            state = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), BoundHandler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def files(self, repo_id: str, repo_type: str = "model") -> dict[str, bytes]:
        """The files at the head of ``main``."""
        return dict(self.repos[repo_type, repo_id].commits[-1][1])

    def messages(self, repo_id: str, repo_type: str = "model") -> list[str]:
        """The commit messages, oldest first."""
        return [message for _, _, message in self.repos[repo_type, repo_id].commits]

    @property
    def env(self) -> dict[str, str]:
        """Variables that point a subprocess's client at this hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "hf_test",
        }


class Handler(BaseHTTPRequestHandler):
    """Routes of the Hub API that `huggingface_hub` needs to create, commit, list and download."""

    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Keep test output quiet; `Hub.requests` has the log."""

    # Plumbing

    def body(self) -> bytes:
        """The request's body, whether sized or chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def reply(self, status: int, data: Any = b"", **headers: str) -> None:
        """Send ``data`` (bytes as they are, anything else as JSON); header names spell ``-`` as ``_``."""
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        if not isinstance(data, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def handle_any(self) -> None:
        """Read the body, then let the first matching route answer."""
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        self.state.requests.append(f"{self.command} {path}")
        body = self.body()
        for method, pattern, route in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                return route(self, body, **match.groupdict())
        self.reply(404, {"error": f"no route for {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 (the base class's names)

    def find(self, kind: str | None, repo: str) -> Repo | None:
        """The repository, or None after a 404 reply."""
        found = self.state.repos.get(((kind or "models").removesuffix("s"), repo))
        if found is None:
            self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return found

    def find_tree(self, kind: str | None, repo: str, revision: str) -> tuple[Repo, str, dict[str, bytes]] | None:
        """Repository, commit hash and files, or None after a 404 reply."""
        found = self.find(kind, repo)
        if found is None:
            return None
        tree = found.at(revision)
        if tree is None:
            self.reply(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
            return None
        return found, *tree

    @property
    def origin(self) -> str:
        """The address under which this client knows the hub."""
        return f"https://{PUBLIC_HOST}" if self.headers["Host"] == PUBLIC_HOST else self.state.url

    # Routes

    def whoami(self, body: bytes) -> None:
        """The user behind any token."""
        self.reply(200, {"type": "user", "name": "user", "orgs": [], "auth": {"type": "access_token"}})

    def create(self, body: bytes) -> None:
        """Create a repository with an empty first commit; 409 where it exists."""
        wanted = json.loads(body)
        kind, repo = wanted.get("type") or "model", f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        exists = (kind, repo) in self.state.repos
        if not exists:
            self.state.repos[kind, repo] = Repo()
            self.state.repos[kind, repo].commit({}, "initial commit")
        prefix = "" if kind == "model" else f"{kind}s/"
        self.reply(409 if exists else 200, {"url": f"{self.origin}/{prefix}{repo}", "name": repo})

    def info(self, body: bytes, kind: str, repo: str, revision: str | None = None) -> None:
        """`model_info` / `dataset_info`."""
        if (found := self.find_tree(kind, repo, revision or "main")) is None:
            return
        _, sha, files = found
        names = [{"rfilename": name} for name in sorted(files)]
        self.reply(200, {"id": repo, "modelId": repo, "sha": sha, "private": False, "siblings": names, "tags": []})

    def entry(self, repo: Repo, path: str, data: bytes) -> dict[str, Any]:
        """One file of a listing."""
        row: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_blob_hash(data)}
        if path in repo.lfs_paths:
            row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return row

    def tree(self, body: bytes, kind: str, repo: str, revision: str, under: str | None = None) -> None:
        """List the files of a revision, below ``under`` where given, always recursively."""
        if (found := self.find_tree(kind, repo, revision)) is None:
            return
        owner, _, files = found
        prefix = f"{under.strip('/')}/" if under and under.strip("/") else ""
        self.reply(200, [self.entry(owner, p, files[p]) for p in sorted(files) if p.startswith(prefix)])

    def paths_info(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        """Describe the named paths that exist."""
        if (found := self.find_tree(kind, repo, revision)) is None:
            return
        owner, _, files = found
        try:
            paths = json.loads(body)["paths"]
        except json.JSONDecodeError:
            paths = parse_qs(body.decode())["paths"]
        self.reply(200, [self.entry(owner, p, files[p]) for p in paths if p in files])

    def preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        """Say how each file is to be uploaded."""
        if self.find_tree(kind, repo, revision) is None:
            return
        answers = []
        for wanted in json.loads(body)["files"]:
            large = wanted["size"] >= LFS_FROM_BYTES or wanted["path"].endswith(".safetensors")
            mode = "lfs" if large else "regular"
            answers.append({"path": wanted["path"], "uploadMode": mode, "shouldIgnore": False})
        self.reply(200, {"files": answers})

    def lfs_batch(self, body: bytes, repo: str) -> None:
        """Say where to put each large object; an object already here needs no action."""
        objects = []
        for wanted in json.loads(body)["objects"]:
            row = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.state.large:
                row["actions"] = {"upload": {"href": f"{self.origin}/lfs/{wanted['oid']}", "header": {}}}
            objects.append(row)
        self.reply(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        """Store a large object whose bytes match its name."""
        if hashlib.sha256(body).hexdigest() != oid:
            return self.reply(400, {"error": "content does not match its sha256"})
        self.state.large[oid] = body
        self.reply(200)

    def commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        """Apply a commit's operations (one JSON object a line) on top of the revision."""
        if (found := self.find_tree(kind, repo, revision)) is None:
            return
        owner, _, old = found
        files, message = dict(old), ""
        for line in body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                owner.lfs_paths.discard(value["path"])
            elif key == "lfsFile":
                if value["oid"] not in self.state.large:
                    return self.reply(400, {"error": f"{value['path']}: large object was never uploaded"})
                files[value["path"]] = self.state.large[value["oid"]]
                owner.lfs_paths.add(value["path"])
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                files = {p: d for p, d in files.items() if not p.startswith(value["path"].rstrip("/") + "/")}
        sha = owner.commit(files, message)
        self.reply(200, {"commitUrl": f"{self.origin}/{repo}/commit/{sha}", "commitOid": sha, "success": True})

    def resolve(self, body: bytes, repo: str, revision: str, file: str, kind: str | None = None) -> None:
        """Metadata (HEAD) or content (GET) of one file."""
        if (found := self.find_tree(kind, repo, revision)) is None:
            return
        owner, sha, files = found
        if file not in files:
            return self.reply(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        data = files[file]
        headers = {"X_Repo_Commit": sha, "ETag": f'"{git_blob_hash(data)}"'}
        if file in owner.lfs_paths:
            headers |= {
                "X_Linked_ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X_Linked_Size": str(len(data)),
            }
        self.reply(200, data, **headers)

    def accept_card(self, body: bytes) -> None:
        """Card metadata passes as it is."""
        self.reply(200, {"errors": [], "warnings": []})


API = r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", Handler.whoami),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.accept_card),
    ("GET", API, Handler.info),
    ("GET", API + r"/revision/(?P<revision>[^/]+)", Handler.info),
    ("GET", API + r"/tree/(?P<revision>[^/]+)(?P<under>/.*)?", Handler.tree),
    ("POST", API + r"/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
    ("POST", API + r"/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", API + r"/commit/(?P<revision>[^/]+)", Handler.commit),
    ("POST", r"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
    (
        "GET HEAD",
        r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)",
        Handler.resolve,
    ),
]


class LocalTransport(httpx.HTTPTransport):
    """Sends requests for the public Hub to ``hub`` and refuses every other host."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the hub, its path and its Host header as they were."""
        if request.url.host == PUBLIC_HOST:
            local = httpx.URL(self.hub.url)
            request.url = request.url.copy_with(scheme=local.scheme, host=local.host, port=local.port)
        if str(request.url.copy_with(raw_path=b"/")).rstrip("/") != self.hub.url:
            raise httpx.ConnectError(f"this test may only talk to {self.hub.url}, not to {request.url.host}")
        return super().handle_request(request)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub that the real `huggingface_hub` client takes for the public one; the cache is empty."""
    served = Hub()
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")  # never the user's own
    set_client_factory(
        lambda: httpx.Client(
            transport=LocalTransport(served),
            event_hooks={"request": [hf_request_event_hook]},
            follow_redirects=True,
            timeout=30,
        )
    )
    yield served
    set_client_factory(default_client_factory)
    served.server.shutdown()
    served.server.server_close()
    thread.join()
