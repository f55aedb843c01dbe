"""A hub on this machine: the part of the Hugging Face hub's HTTP interface that its own client needs to fetch."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/?]+))?")
FILE = re.compile(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Repository(NamedTuple):
    """Files at one commit, which is what the branch main has too."""

    folder: Path
    commit: str = COMMIT


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: Mapping[str, Repository]
    fetched: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        if found := API.fullmatch(path):
            self.api(*found.groups())
        elif found := FILE.fullmatch(path):
            self.file(*found.groups())
        else:
            self.answer(404, b"")

    def api(self, name, what, revision):
        repository = self.repository(name, revision or "main")
        if repository is not None:
            answer = self.tree(repository) if what == "tree" else self.info(name, repository)
            self.answer(200, json.dumps(answer).encode(), repository)

    def file(self, name, revision, path):
        repository = self.repository(name, revision)
        if repository is None:
            return
        file = repository.folder / path
        if not file.is_file():
            self.answer(404, b"", repository, "EntryNotFound")
            return
        if self.command == "GET":
            self.fetched.append(path)
        self.answer(200, file.read_bytes(), repository)

    def repository(self, name, revision):
        """The one asked for; where there is none the question is answered already."""
        try:
            repository = self.repositories[name]
        except KeyError:
            self.answer(404, b"", error="RepoNotFound")
            return None
        if revision in ("main", repository.commit):
            return repository
        self.answer(404, b"", error="RevisionNotFound")
        return None

    def info(self, name, repository):
        return {"id": name, "_id": "1", "sha": repository.commit, "private": False, "tags": [], "downloads": 0}

    def tree(self, repository):
        files = (path for path in repository.folder.rglob("*") if path.is_file())
        return [
            {
                "type": "file",
                "path": path.relative_to(repository.folder).as_posix(),
                "size": path.stat().st_size,
                "oid": "0" * 40,
            }
            for path in files
        ]

    def answer(self, status, content, repository=None, error=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        if repository is not None:
            self.send_header("X-Repo-Commit", repository.commit)
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(repositories):
    """The address of a hub with these repositories, by `owner/name`; and the names of the files fetched, in order."""
    fetched = []
    handler = type("Handler", (Hub,), {"repositories": repositories, "fetched": fetched})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        server.server_close()
