"""A small Hugging Face hub on loopback, so that tests read from "the hub", and push to it, without a network.

It answers the requests with which `datasets`, `transformers` and `huggingface_hub` look a repository up, list its files
and read them, by ranges too; and, of models and Spaces, those that create one, send files to it (git LFS, not xet),
commit, branch and tag. It fails as the real one does, and as a `Fault` says. These libraries read `HF_ENDPOINT` when
they are imported, so only a subprocess can use it:

    with Hub() as hub:
        sha = hub.add_dataset("owner/name", {"data/train.jsonl": b'{"text": "one"}\\n'})
        token = hub.add_account("ada")
        hub.faults.append(Fault("PUT /lfs/", status=503, times=2))
        subprocess.run([sys.executable, "-c", program], env=hub.environment() | {"HF_TOKEN": token}, check=True)
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

import yaml

# /api/datasets/owner/name[/tree[/main[/folder]]][?query]; its parts are quoted
API = re.compile(r"/api/(models|datasets|spaces)/([^/?]+/[^/?]+)(?:/([\w-]+)(?:/([^/?]+)(?:/([^?]+))?)?)?(?:\?(.*))?")
FILE = re.compile(r"(?:/api)?/(?:(datasets)/)?([^/?]+/[^/?]+)/resolve/([^/?]+)/([^?]+)(?:\?.*)?")
STORED = re.compile(r"/(lfs|cdn)/([0-9a-f]{64})\?signature=\w+")
LARGE = (".safetensors", ".bin", ".pt")  # what git LFS holds; of other files the repository itself


def blob_id(content: bytes) -> str:
    """The id that git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Commit:
    """All files of a repository at one revision. Its id depends on them, its message and its parent alone: the same
    files of a data set, which has neither, are the same commit.
    """

    def __init__(self, files: dict[str, bytes], large: tuple[str, ...] = (), message: str = "",
                 parent: "Commit | None" = None) -> None:
        self.files, self.message, self.parent = dict(files), message, parent
        self.tree: dict[str, dict] = {}  # every folder and file, as the hub describes them
        for path, content in sorted(files.items()):
            for folder in (path[: slash.start()] for slash in re.finditer("/", path)):
                self.tree[folder] = {"type": "directory", "path": folder, "size": 0, "oid": blob_id(folder.encode())}
            entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
            if path.endswith(large):
                sha = hashlib.sha256(content).hexdigest()
                entry |= {"oid": blob_id(sha.encode()), "lfs": {"oid": sha, "size": len(content), "pointerSize": 134}}
            self.tree[path] = entry
        about = [self.tree, message, parent.sha] if parent else self.tree
        self.sha = hashlib.sha1(json.dumps(about).encode()).hexdigest()


@dataclass
class Repository:
    """Commits by the branches and tags that are on them, and by their ids."""

    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        return self.branches.get(revision) or self.tags.get(revision) or self.commits.get(revision)

    def move(self, branch: str, commit: Commit) -> None:
        self.commits[commit.sha] = self.branches[branch] = commit


@dataclass
class Fault:
    """What goes wrong with the next `times` requests ("METHOD path") that `request` is found in."""

    request: str
    times: int = 1
    status: int | None = None
    """Answered with this status instead, and with `headers`."""
    headers: dict[str, str] = field(default_factory=dict)
    drop: int | None = None
    """The connection is reset after so many bytes of the request's body."""
    lost: bool = False
    """What is asked for is done, but the connection is reset before the answer."""
    delay: float = 0.0
    """Seconds before anything happens."""


class Refused(Exception):
    """Answered with a status, an error code or message from which `huggingface_hub` tells what is wrong, headers."""

    def __init__(self, status: int, code: str = "", message: str = "", headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = {**(headers or {}), **({"X-Error-Code": code} if code else {}),
                        **({"X-Error-Message": message or code} if message or code else {})}


class Hub:
    """Serves the repositories added or pushed to it until its `with` block ends; remembers the `requests` it got."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}  # "datasets/owner/name", "models/owner/name"
        self.accounts: dict[str, tuple[str, ...]] = {}  # token -> the name it is of, and the owners it may write for
        self.stored: dict[str, bytes] = {}  # what LFS holds, by SHA-256
        self.faults: list[Fault] = []
        self.requests: list[str] = []  # "METHOD path", the path as sent: quoted, with its query
        self.received = 0  # bytes of bodies

    def __enter__(self) -> "Hub":
        self._home = tempfile.TemporaryDirectory(prefix="hub-", ignore_cleanup_errors=True)
        self._listen()
        self.url = f"http://127.0.0.1:{self.port}"
        self.storage_url = f"http://localhost:{self.port}"  # another host, as of the real hub's files
        return self

    def __exit__(self, *exception: object) -> None:
        self._hang_up()
        self._home.cleanup()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Nobody listens within the block."""
        self._hang_up()
        try:
            yield
        finally:
            self._listen(self.port)

    def _listen(self, port: int = 0) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, self))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _hang_up(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_dataset(self, name: str, files: dict[str, bytes]) -> str:
        """Commit to main; `files` are all the files of the new commit. Returns its id."""
        commit = Commit(files)
        self.repositories.setdefault(f"datasets/{name}", Repository()).move("main", commit)
        return commit.sha

    def add_model(self, name: str, files: dict[str, bytes], private: bool = False) -> str:
        """A new model, its only commit holding `files`. Returns the commit's id."""
        commit = Commit(files, LARGE)
        self.repositories[f"models/{name}"] = Repository(private)
        self.repositories[f"models/{name}"].move("main", commit)
        return commit.sha

    def add_account(self, name: str, owners: tuple[str, ...] | None = None) -> str:
        """A token, made up, that reads what belongs to `name` and writes what belongs to `owners` (itself)."""
        token = f"hf_{hashlib.sha256(f'{name} {owners}'.encode()).hexdigest()[:34]}"
        self.accounts[token] = (name, *((name,) if owners is None else owners))
        return token

    def model(self, name: str) -> Repository:
        return self.repositories[f"models/{name}"]

    def environment(self) -> dict[str, str]:
        """The whole environment of a subprocess that knows this hub only, and no token, cache or proxy of ours."""
        ours = re.compile("HF_|HUGGING_FACE_|TRANSFORMERS_OFFLINE|(http|https|all)_proxy", re.IGNORECASE)
        return {**{key: value for key, value in os.environ.items() if not ours.match(key)},
                "HF_ENDPOINT": self.url, "HF_HOME": self._home.name, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}

    # --- what it answers: content and headers ---------------------------------------------------------------------

    def answer(self, method: str, address: str, body: bytes, authorization: str = "") -> tuple[int, bytes, dict]:
        """The status, content and headers for a request."""
        if match := STORED.fullmatch(address):
            return self._stored(method, *match.groups(), body, authorization)
        account = self.accounts.get(authorization.removeprefix("Bearer "))
        if authorization and account is None:
            raise Refused(401, message="Invalid credentials in Authorization header")
        if match := FILE.fullmatch(address):
            return self._file(*(unquote(part or "") for part in match.groups()), account)
        match method, address.partition("?")[0]:
            case "GET", "/api/whoami-v2":
                if account is None:
                    raise Refused(401, message="Invalid username or password.")
                return _json({"type": "user", "name": account[0], "orgs": [{"name": name} for name in account[1:]]})
            case "POST", "/api/validate-yaml":
                return _validated(json.loads(body)["content"])
            case "POST", "/api/repos/create":
                return self._create(json.loads(body), account)
            case "POST", path if path.endswith(".git/info/lfs/objects/batch"):
                self._repository("models", path[1:].removesuffix(".git/info/lfs/objects/batch"), account, writes=True)
                return self._batch(json.loads(body))
        if not (match := API.fullmatch(address)):
            raise Refused(404, "NoSuchAddress")
        kind, name, action, revision, path, query = (unquote(part or "") for part in match.groups())
        writing = method == "POST" and action in ("preupload", "commit", "branch", "tag")
        repository = self._repository(kind, name, account, writing)
        if action == "refs":
            return _json({"converts": [], **{
                kind: [{"name": ref, "ref": f"refs/{short}/{ref}", "targetCommit": commit.sha}
                       for ref, commit in getattr(repository, kind).items()]
                for kind, short in (("branches", "heads"), ("tags", "tags"))}})
        if writing and action == "branch":
            return self._new_ref(repository, repository.branches, revision, "main", "branch")
        if not (commit := repository.at(revision or "main")):
            raise Refused(404, "RevisionNotFound")
        if writing and action == "tag":
            return self._new_ref(repository, repository.tags, json.loads(body)["tag"], revision, "tag")
        if writing and action == "commit":
            return self._commit(repository, name, revision, commit, [json.loads(line) for line in body.splitlines()])
        headers = {"X-Repo-Commit": commit.sha}
        match method, action:
            case "GET", "" | "revision":
                files = [{"rfilename": name} for name in commit.files]
                value = {"id": name, "sha": commit.sha, "tags": [], "siblings": files, "private": repository.private}
            case "GET", "tree":
                below = {name.removeprefix(f"{path}/") if path else name: entry for name, entry in commit.tree.items()
                         if not path or name.startswith(f"{path}/")}
                if path and not below:
                    raise Refused(404, "EntryNotFound", headers=headers)
                deep = "recursive=true" in query.lower()
                value = [entry for name, entry in below.items() if deep or "/" not in name]
            case "POST", "paths-info":
                value = [commit.tree[name] for name in parse_qs(body.decode())["paths"] if name in commit.tree]
            case "POST", "preupload":
                value = {"files": []}
                for file in json.loads(body)["files"]:
                    known = commit.tree.get(file["path"], {})
                    mode = "lfs" if file["path"].endswith(LARGE) else "regular"
                    value["files"].append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False,
                                           "oid": known.get("lfs", known).get("oid")})
            case _:
                raise Refused(404, "NoSuchAddress")
        return _json(value, headers)

    def _repository(self, kind: str, name: str, account: tuple[str, ...] | None, writes: bool = False) -> Repository:
        repository, owner = self.repositories.get(f"{kind}/{name}"), name.split("/")[0]
        if repository is None or repository.private and owner not in (account or ()):
            raise Refused(404 if account else 401, "RepoNotFound")
        if writes and owner not in (account or ())[1:]:
            raise Refused(403, message="Authorization error.")
        return repository

    def _file(self, kind: str, name: str, revision: str, path: str, account: tuple[str, ...] | None
              ) -> tuple[int, bytes, dict]:
        if not (commit := self._repository(kind or "models", name, account).at(revision)):
            raise Refused(404, "RevisionNotFound")
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            raise Refused(404, "EntryNotFound", headers=headers)
        entry = commit.tree[path]
        if "lfs" not in entry:
            return 200, commit.files[path], {**headers, "ETag": f'"{entry["oid"]}"'}
        sha = entry["lfs"]["oid"]
        self.stored[sha] = commit.files[path]
        return 302, b"", {**headers, "X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(entry["size"]),
                          "Location": f"{self.storage_url}/cdn/{sha}?signature=SIGNED"}

    def _stored(self, method: str, place: str, sha: str, body: bytes, authorization: str) -> tuple[int, bytes, dict]:
        if authorization:
            raise Refused(400, message="a signed address takes no Authorization header")
        if (method, place) == ("PUT", "lfs"):
            if hashlib.sha256(body).hexdigest() != sha:
                raise Refused(400, message="not the content that was announced")
            self.stored[sha] = body
            return 200, b"", {}
        if (method, place) != ("GET", "cdn") or sha not in self.stored:
            raise Refused(404, "NoSuchAddress")
        return 200, self.stored[sha], {"ETag": f'"{sha}"'}

    def _create(self, asked: dict, account: tuple[str, ...] | None) -> tuple[int, bytes, dict]:
        if account is None:
            raise Refused(401, message="Invalid username or password.")
        owner = asked["organization"] or account[0]
        name = f"{owner}/{asked['name']}"
        if owner not in account[1:]:
            raise Refused(403, message=f'You don\'t have the rights to create a model under the namespace "{owner}"')
        kind = f"{asked.get('type', 'model')}s"
        if kind == "spaces" and not asked.get("sdk"):
            raise Refused(400, message="a Space needs an sdk")
        if f"{kind}/{name}" in self.repositories:
            return _json({"error": "You already created this repo", "url": f"{self.url}/{name}"}, status=409)
        self.repositories[f"{kind}/{name}"] = made = Repository(asked.get("visibility") == "private")
        made.move("main", Commit({".gitattributes": b"*.safetensors filter=lfs\n"}, LARGE))
        return _json({"url": f"{self.url}/{name}", "name": name})

    def _batch(self, asked: dict) -> tuple[int, bytes, dict]:
        objects = []
        for item in asked["objects"]:
            upload = {"href": f"{self.storage_url}/lfs/{item['oid']}?signature=SIGNED"}
            objects.append(item if item["oid"] in self.stored else item | {"actions": {"upload": upload}})
        return _json({"transfer": "basic", "objects": objects})

    def _commit(self, repository: Repository, name: str, branch: str, head: Commit, lines: list[dict]
                ) -> tuple[int, bytes, dict]:
        header, files = lines[0]["value"], dict(head.files)
        if branch not in repository.branches:
            raise Refused(404, "RevisionNotFound")
        if header.get("parentCommit", head.sha) != head.sha:
            return _json({"error": "A commit has happened since. Please refresh and try again."}, status=412)
        for line in lines[1:]:
            path = line["value"]["path"]
            match line["key"]:
                case "file":
                    files[path] = base64.b64decode(line["value"]["content"])
                case "lfsFile":
                    if line["value"]["oid"] not in self.stored:
                        return _json({"error": f"LFS pointer to a file that was never sent: {path}"}, status=400)
                    files[path] = self.stored[line["value"]["oid"]]
                case "deletedFile":
                    del files[path]
        commit = Commit(files, LARGE, header["summary"], head)
        repository.move(branch, commit)
        return _json({"success": True, "commitOid": commit.sha, "commitUrl": f"{self.url}/{name}/commit/{commit.sha}"})

    def _new_ref(self, repository: Repository, refs: dict[str, Commit], name: str, revision: str, kind: str
                 ) -> tuple[int, bytes, dict]:
        if name in refs:
            return _json({"error": f"The {kind} already exists: {name}"}, status=409)
        refs[name] = repository.at(revision)
        return _json({})


def _json(value: object, headers: dict[str, str] | None = None, status: int = 200) -> tuple[int, bytes, dict]:
    return status, json.dumps(value).encode(), headers or {}


def _validated(card: str) -> tuple[int, bytes, dict]:
    """A card's metadata must be a mapping, its licence a word: two of the hub's many rules."""
    try:
        metadata = yaml.safe_load(card.split("---\n")[1])
        wrong = not isinstance(metadata, dict) or " " in str(metadata.get("license", ""))
    except (IndexError, yaml.YAMLError):
        wrong = True
    errors = [{"message": '"license" must be one of the known ones'}] if wrong else []
    return _json({"errors": errors, "warnings": []}, status=400 if wrong else 200)


class _Handler(BaseHTTPRequestHandler):
    """HTTP around `Hub.answer`: connections that stay open, ranges, HEAD without a body, planted faults."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body, sent after its header, may wait 40 ms

    def __init__(self, hub: Hub, *arguments) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a reader that has seen enough hangs up
            super().handle()

    def do_GET(self) -> None:
        request = f"{self.command} {self.path}"
        self.hub.requests.append(request)
        fault = next((fault for fault in self.hub.faults if fault.times and re.search(fault.request, request)), None)
        if fault is not None:
            fault.times -= 1
            time.sleep(fault.delay)
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size if fault is None or fault.drop is None else min(size, fault.drop))
        self.hub.received += len(body)
        if fault is not None and fault.drop is not None:
            return self.hang_up()
        try:
            if fault is not None and fault.status is not None:
                raise Refused(fault.status, message="planted", headers=fault.headers)
            status, content, headers = self.hub.answer(self.command.replace("HEAD", "GET"), self.path, body,
                                                       self.headers.get("Authorization", ""))
            if status == 200 and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
                size = len(content)
                start, end = int(asked[1]), min(int(asked[2] or size), size - 1)
                status, content = (206, content[start : end + 1]) if start < size else (416, b"")
                headers["Content-Range"] = f"bytes {start}-{end}/{size}" if start < size else f"bytes */{size}"
        except Refused as refused:
            status, content, headers = refused.status, b"{}", refused.headers
        if fault is not None and fault.lost:
            return self.hang_up()
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_POST = do_PUT = do_GET

    def hang_up(self) -> None:
        """Reset the connection: nothing more is read, nothing answered."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *arguments) -> None:
        """Nothing on standard error: `Hub.requests` is the log."""
