"""A server on localhost that speaks the part of the Hugging Face Hub's API that ``huggingface_hub`` uses for models.

Every commit holds whole contents by path. Files whose names end in ``.safetensors`` are large files, as on the Hub:
their content goes through the LFS protocol, and comes from another host than the others.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = ".safetensors"


class HubServer(http.server.ThreadingHTTPServer):
    """What it holds, what it was asked, and how it fails.

    Args:
        port: where to listen; 0 takes any free one.

    Attributes:
        commits: repository -> commit -> path -> content; the last commit is the branch ``main``.
        asked: method and path of every request.
        ranges: ``Range`` of every request for a large file.
        breaks: numbers of bytes after which the next transfers of large files break off.
        leaves: whether the server is gone after a transfer that broke off.
        token: what a commit needs; None: nothing.
        etag: what small files are called; None: their SHA-1, as on the Hub.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.ranges: list[str | None] = []
        self.breaks: list[int] = []
        self.leaves = False
        self.token: str | None = None
        self.etag: str | None = None

    @property
    def url(self) -> str:
        """Its address, for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def large_url(self) -> str:
        """Where large files are, which is another host as for the Hub."""
        return f"http://localhost:{self.server_port}/large"

    def leave(self) -> None:
        """Answer nobody any more."""
        self.shutdown()
        self.server_close()

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit; returns its 40 digits."""
        history = self.commits.setdefault(repository, {})
        content = {**(history[list(history)[-1]] if history else {}), **files}
        text = repr([len(history), *sorted((path, hashlib.sha256(data).hexdigest()) for path, data in content.items())])
        name = hashlib.sha1(text.encode()).hexdigest()
        history[name] = content
        return name


@contextmanager
def running(server: HubServer) -> Iterator[HubServer]:
    """Serve in a thread."""
    with server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.leave()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server: HubServer

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._path()
        if match := re.fullmatch(r"/large/(\w{64})", path):
            return self._send_large(self.server.large[match[1]])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(*match.groups())
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._describe(match[1], match[2] or "main")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            return self._list(*match.groups())
        return self._send(404, {"error": "unknown"})

    def do_PUT(self) -> None:
        match = re.fullmatch(r"/large/(\w{64})", self._path())
        content = self._body()
        if hashlib.sha256(content).hexdigest() != match[1]:
            return self._send(400, {"error": "another content than was announced"})
        self.server.large[match[1]] = content
        return self._send(200, {})

    def do_POST(self) -> None:
        path, body = self._path(), self._body()
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._send(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values['organization']}/{values['name']}"
            self.server.commits.setdefault(name, {})
            return self._send(200, {"url": f"{self.server.url}/{name}"})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return self._announce(match[1], json.loads(body)["files"])
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._where_to_put(json.loads(body)["objects"])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        return self._send(404, {"error": "unknown"})

    def _announce(self, repository: str, files: list[dict]) -> None:
        if repository not in self.server.commits:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in files
        ]
        return self._send(200, {"files": modes})

    def _where_to_put(self, objects: list[dict]) -> None:
        places = [
            {**item, "actions": {"upload": {"href": f"{self.server.large_url}/{item['oid']}"}}} for item in objects
        ]
        return self._send(200, {"transfer": "basic", "objects": places})

    def _commit(self, repository: str, lines: list[dict]) -> None:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commit = self.server.commit(repository, files)
        return self._send(200, {"commitUrl": f"{self.server.url}/{repository}/commit/{commit}", "commitOid": commit})

    def _find(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision; None once the request was answered with an error."""
        history = self.server.commits.get(repository)
        if history is None:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        commit = list(history)[-1] if revision == "main" else revision
        if commit not in history:
            return self._send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        return commit, history[commit]

    def _describe(self, repository: str, revision: str) -> None:
        if found := self._find(repository, revision):
            siblings = [{"rfilename": path} for path in found[1]]
            self._send(200, {"id": repository, "sha": found[0], "siblings": siblings})

    def _list(self, repository: str, revision: str) -> None:
        if found := self._find(repository, revision):
            self._send(
                200,
                [
                    {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in found[1].items()
                ],
            )

    def _resolve(self, repository: str, revision: str, path: str) -> None:
        found = self._find(repository, revision)
        if found is None:
            return
        commit, files = found
        known = {"X-Repo-Commit": commit}
        if path not in files:
            self._send(404, {"error": "Entry not found"}, {**known, "X-Error-Code": "EntryNotFound"})
        elif path.endswith(LARGE):
            digest = hashlib.sha256(files[path]).hexdigest()
            self.server.large.setdefault(digest, files[path])
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(files[path]))}
            self._send(302, {}, {**known, **linked, "Location": f"{self.server.large_url}/{digest}"})
        else:
            etag = self.server.etag or hashlib.sha1(files[path]).hexdigest()
            self._send(200, files[path], {**known, "ETag": f'"{etag}"'})

    def _send_large(self, content: bytes) -> None:
        """The rest of a large file, of which the transfer may break off."""
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        limit = self.server.breaks.pop(0) if self.server.breaks else len(content)
        self.wfile.write(content[start : start + limit])
        if start + limit < len(content) and self.server.leaves:
            self.server.leave()

    def _send(self, status: int, content: dict | list | bytes, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _path(self) -> str:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        return path

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_: object) -> None:
        pass
