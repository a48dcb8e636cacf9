"""A small Hugging Face hub on loopback, so that tests can read data sets "from the hub" without a network.

It answers the requests with which `datasets` and `huggingface_hub` look a data set up, list its files and read them,
by ranges too. Both libraries read `HF_ENDPOINT` when they are imported, so only a subprocess can use it:

    with Hub() as hub:
        sha = hub.add_dataset("owner/name", {"data/train.jsonl": b'{"text": "one"}\\n'})
        subprocess.run([sys.executable, "-c", program], env=hub.environment(), check=True)
"""

import hashlib
import json
import os
import re
import tempfile
import threading
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

# /api/datasets/owner/name[/tree/main[/folder]][?query] or /datasets/owner/name/resolve/main/file; its parts are quoted
ADDRESS = re.compile(r"(?:/api)?/(datasets/[^/?]+/[^/?]+)(?:/([\w-]+)/([^/?]+)(?:/([^?]+))?)?(?:\?(.*))?")


def blob_id(content: bytes) -> str:
    """The id that git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Commit:
    """All files of a repository at one revision; its id depends on them alone: the same files, the same commit."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.tree: dict[str, dict[str, str | int]] = {}  # every folder and file, as the hub describes them
        for path, content in sorted(files.items()):
            for folder in (path[: slash.start()] for slash in re.finditer("/", path)):
                self.tree[folder] = {"type": "directory", "path": folder, "size": 0, "oid": blob_id(folder.encode())}
            self.tree[path] = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        self.sha = hashlib.sha1(json.dumps(self.tree).encode()).hexdigest()


class Missing(Exception):
    """Answered with 404 and an error code from which `huggingface_hub` tells what is missing."""


class Hub:
    """Serves the repositories added to it until its `with` block ends, and remembers the `requests` it got."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Commit]] = {}  # "datasets/owner/name" -> "main" or an id -> commit
        self.requests: list[str] = []  # "METHOD path", the path as sent: quoted, with its query

    def __enter__(self) -> "Hub":
        self._home = tempfile.TemporaryDirectory(prefix="hub-", ignore_cleanup_errors=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._home.cleanup()

    def add_dataset(self, name: str, files: dict[str, bytes]) -> str:
        """Commit to main; `files` are all the files of the new commit. Returns its id."""
        commit = Commit(files)
        self.repositories.setdefault(f"datasets/{name}", {}).update({commit.sha: commit, "main": commit})
        return commit.sha

    def environment(self) -> dict[str, str]:
        """The whole environment of a subprocess that knows this hub only, and no token, cache or proxy of ours."""
        ours = re.compile("HF_|TRANSFORMERS_OFFLINE|(http|https|all)_proxy", re.IGNORECASE)
        return {**{key: value for key, value in os.environ.items() if not ours.match(key)},
                "HF_ENDPOINT": self.url, "HF_HOME": self._home.name, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}

    def answer(self, method: str, address: str, body: bytes) -> tuple[bytes, dict[str, str]]:
        """The content at an address and its headers."""
        if not (match := ADDRESS.fullmatch(address)):
            raise Missing("NoSuchAddress")
        repository, action, revision, path, query = (unquote(part or "") for part in match.groups())
        if repository not in self.repositories:
            raise Missing("RepoNotFound")
        if not (commit := self.repositories[repository].get(revision or "main")):
            raise Missing("RevisionNotFound")
        headers = {"X-Repo-Commit": commit.sha}
        match method, action:
            case "GET", "" | "revision":
                files = [{"rfilename": name} for name in commit.files]
                value = {"id": repository.split("/", 1)[1], "sha": commit.sha, "tags": [], "siblings": files}
            case "GET", "tree":
                below = {name.removeprefix(f"{path}/") if path else name: entry for name, entry in commit.tree.items()
                         if not path or name.startswith(f"{path}/")}
                if path and not below:
                    raise Missing("EntryNotFound", headers)
                deep = "recursive=true" in query.lower()
                value = [entry for name, entry in below.items() if deep or "/" not in name]
            case "POST", "paths-info":
                value = [commit.tree[name] for name in parse_qs(body.decode())["paths"] if name in commit.tree]
            case "GET", "resolve":
                if path not in commit.files:
                    raise Missing("EntryNotFound", headers)
                return commit.files[path], {**headers, "ETag": f'"{commit.tree[path]["oid"]}"'}
            case _:
                raise Missing("NoSuchAddress")
        return json.dumps(value).encode(), headers


class _Handler(BaseHTTPRequestHandler):
    """HTTP around `Hub.answer`: connections that stay open, ranges, HEAD without a body."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body, sent after its header, may wait 40 ms

    def __init__(self, hub: Hub, *arguments) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a reader that has seen enough hangs up
            super().handle()

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            content, headers = self.hub.answer(self.command.replace("HEAD", "GET"), self.path, body)
            status, size = 200, len(content)
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start, end = int(asked[1]), min(int(asked[2] or size), size - 1)
                status, content = (206, content[start : end + 1]) if start < size else (416, b"")
                headers["Content-Range"] = f"bytes {start}-{end}/{size}" if start < size else f"bytes */{size}"
        except Missing as missing:
            code, *known = missing.args
            status, content, headers = 404, b"", {"X-Error-Code": code, "X-Error-Message": f"{code}: {self.path}"}
            headers.update(*known)
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_GET

    def log_message(self, *arguments) -> None:
        """Nothing on standard error: `Hub.requests` is the log."""
