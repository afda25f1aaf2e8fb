"""A small hub on this machine that speaks its HTTP, as far as one file goes there and back, with
faults to switch on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
API = re.compile(r"/api/models/([^/]+/[^/]+)(/preupload/main|/commit/main)?")


@dataclass
class Repository:
    """What was committed, by commit; `main` is the last one."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """(commit, what it holds), or None for a revision that there is not."""
        last = next(reversed(self.commits), "")
        commit = self.tags.get(revision, last if revision == "main" else revision)
        return (commit, self.commits[commit]) if commit in self.commits else None

    def commit(self, files: dict[str, bytes]) -> str:
        """Add files on top of the last commit; its name."""
        _, before = self.files("main") or ("", {})
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = before | files
        return name


class HubStandIn:
    """A hub while inside a `with`.

    fault: "" or one of "cut" (a transfer ends early), "short" (the same, and the length says so),
        "altered" (other bytes of the same length), "gated", "refused" (401 for whoever writes),
        "down" (503).
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.fault = ""
        self.asked: list[str] = []  # "METHOD /path" of every request
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> HubStandIn:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    def holds(self, repo: str, **files: bytes) -> str:
        """Put files there, as {"prompt.vpt": …}; the commit."""
        return self.repositories.setdefault(repo, Repository(False)).commit(files)


def use(hub: HubStandIn, cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT, HF_HUB_CACHE and HF_TOKEN say when the library is imported, set later."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    huggingface_hub.close_session()  # of another hub


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            """Nothing."""

        def do_HEAD(self) -> None:
            self._file(self._path(), body=False)

        def do_GET(self) -> None:
            path = self._path()
            if match := API.fullmatch(path):
                repo = hub.repositories.get(match[1])
                if repo is None:
                    self._error(404, "RepoNotFound")
                else:
                    self._json({"id": match[1], "private": repo.private, "siblings": []})
                return
            self._file(path, body=True)

        def do_POST(self) -> None:
            path = self._path()
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            if hub.fault == "refused" or "Authorization" not in self.headers:
                self._error(401, "", "Invalid credentials in Authorization header")
            elif path == "/api/repos/create":
                self._create(json.loads(sent))
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif (match := API.fullmatch(path)) and match[1] not in hub.repositories:
                self._error(404, "RepoNotFound")
            elif match and match[2] == "/preupload/main":
                files = [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for one in json.loads(sent)["files"]
                ]
                self._json({"files": files})
            else:
                self._commit(match[1], [json.loads(line) for line in sent.splitlines()])

        def _create(self, wanted: dict) -> None:
            name = f"{wanted['organization']}/{wanted['name']}"
            there = name in hub.repositories
            if not there:
                hub.repositories[name] = Repository(wanted.get("visibility") == "private")
            self._json({"url": f"{hub.url}/{name}"}, 409 if there else 200)

        def _commit(self, name: str, rows: list[dict]) -> None:
            files = {
                row["value"]["path"]: base64.b64decode(row["value"]["content"])
                for row in rows
                if row["key"] == "file"
            }
            made = hub.repositories[name].commit(files)
            self._json({"commitUrl": f"{hub.url}/{name}/commit/{made}", "commitOid": made})

        def _file(self, path: str, body: bool) -> None:
            match = FILE.fullmatch(path)
            repo = hub.repositories.get(match[1]) if match else None
            found = repo.files(unquote(match[2])) if repo else None
            if hub.fault == "down":
                self._error(503)
            elif hub.fault == "gated":
                self._error(403, "GatedRepo")
            elif repo is None:
                self._error(401, "RepoNotFound")
            elif found is None:
                self._error(404, "RevisionNotFound")
            elif match[3] not in found[1]:
                self._error(404, "EntryNotFound")
            else:
                self._send(found[0], found[1][match[3]], body)

        def _send(self, commit: str, data: bytes, body: bool) -> None:
            size, sent = len(data), data
            if hub.fault == "altered":
                sent = data[:-1] + bytes([data[-1] ^ 1])
            elif hub.fault in ("cut", "short"):
                sent = b"" if "Range" in self.headers else data[: size // 2]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("X-Linked-Size", str(size))
            told = len(sent) if body and hub.fault == "short" else size
            self.send_header("Content-Length", str(told))
            self.end_headers()
            if body:
                self.wfile.write(sent)

        def _path(self) -> str:
            path = urlsplit(self.path).path
            if path == "/api/agent-harnesses":  # what the library asks for itself
                return path
            hub.asked.append(f"{self.command} {path}")
            return path

        def _json(self, value: object, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _error(self, status: int, code: str = "", message: str = "") -> None:
            self.send_response(status)
            for name, value in (("X-Error-Code", code), ("X-Error-Message", message)):
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler
