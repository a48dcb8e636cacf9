"""A staged folder onto the hub: whole commits, sent over connections that may fail, and nothing twice.

What a branch holds already is left out, by content (git's blob id, LFS' SHA-256). So the same command continues an
interrupted push, and one that changes nothing makes no commit. Weights are stored by content before a commit names
them: readers see the commit before, or this one.
"""

import hashlib
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import huggingface_hub as hub
from huggingface_hub import errors
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from toolkit.errors import UserError
from toolkit.hub import first_cause, with_time_limits
from toolkit.publishing.staging import Staged

Answer = TypeVar("Answer")
WAITS = (1, 2, 4)
"""Seconds before another attempt, unless the hub names a time itself."""
LONGEST_WAIT = 60
PASSING = (408, 425, 429, 500, 502, 503, 504)
_SDK = {"model": None, "space": "gradio"}
AGAIN = "Nothing is lost; the same command continues."


@dataclass(frozen=True)
class Pushed:
    """What became of a staged folder."""

    branch: str
    commit: str
    sent: int
    """Files; 0: everything was there, and no commit was made."""
    kept: int
    others: tuple[str, ...]
    """Files on the branch that the run does not have; they stay."""


def check_name(repository: str) -> None:
    """UserError unless it is `owner/name` as the hub takes it."""
    if repository.count("/") != 1:
        raise UserError(f"repo is '{repository}'; give owner/name, the owner being you or an organisation of yours.")
    try:
        validate_repo_id(repository)
    except errors.HFValidationError as error:
        raise UserError(f"repo is '{repository}', no name that the hub takes: {str(error).rstrip('.')}.") from None


class Remote:
    """A repository on the hub, of a model or a Space, seen with the user's token: HF_TOKEN, or that of `hf auth login`.

    Every method raises UserError with what to do, after trying again what may pass by itself.
    """

    def __init__(self, repository: str, kind: Literal["model", "space"] = "model") -> None:
        check_name(repository)
        self.repository, self.kind, self.endpoint = repository, kind, hub.constants.ENDPOINT
        if hub.constants.is_offline_mode():
            raise UserError(f"{repository}: HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it; the same "
                            f"command continues.")
        if hub.get_token() is None:
            raise UserError(f"{repository}: no token to push with. Log in with `hf auth login`, or set HF_TOKEN, to a "
                            f"token with write access (huggingface.co/settings/tokens); the same command continues.")
        with_time_limits()
        logging.getLogger("huggingface_hub.utils._http").addFilter(_without_addresses)
        if not sys.stderr.isatty():
            disable_progress_bars()
        self.api, self.user = hub.HfApi(), ""

    def open(self, private: bool) -> str:
        """Make the repository unless there is one; returns `private` or `public`, as it is now."""
        with self._told():
            self.user = _patiently(self.api.whoami)["name"]
            _patiently(lambda: self.api.create_repo(self.repository, private=private, exist_ok=True,
                                                    repo_type=self.kind, space_sdk=_SDK[self.kind]))
            is_private = _patiently(lambda: self.api.repo_info(self.repository, repo_type=self.kind)).private
        if private and not is_private:
            raise UserError(f"{self.repository}: is public on the hub, and you did not ask to publish. Push with "
                            f"--private false, or to another name.")
        return "private" if is_private else "public"

    def push(self, staged: Staged, message: str, start: str = "main") -> Pushed:
        """Make the branch (from `start`) hold the folder's files, in one commit; other files on it stay."""
        ours = {name: _identities(staged.folder / name) for name in staged.files()}

        def compare() -> tuple[str, list[str], tuple[str, ...]]:
            head = self.api.repo_info(self.repository, revision=staged.branch, repo_type=self.kind).sha
            tree = self.api.list_repo_tree(self.repository, recursive=True, revision=head, repo_type=self.kind)
            theirs = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in tree
                      if isinstance(file, hub.hf_api.RepoFile)}
            others = tuple(sorted(theirs.keys() - ours.keys() - {".gitattributes"}))
            return head, [name for name, identities in ours.items() if theirs.get(name) not in identities], others

        def commit() -> str:
            now, missing, _ = compare()  # the answer to an earlier attempt may have been lost, not the commit
            return now if not missing else self.api.create_commit(
                self.repository, operations, commit_message=message, revision=staged.branch, parent_commit=head,
                repo_type=self.kind).oid

        with self._told():
            if staged.branch != "main":
                _patiently(lambda: self.api.create_branch(self.repository, branch=staged.branch, revision=start,
                                                          exist_ok=True))
            head, differing, others = _patiently(compare)
            if differing:
                size = megabytes(sum(staged.files()[name] for name in differing))
                print(f"{self.repository}, branch {staged.branch}: {len(differing)} files to send ({size}), "
                      f"{len(ours) - len(differing)} there already", flush=True)
                if "README.md" in differing:  # before the weights are sent in vain
                    card = (hub.ModelCard if self.kind == "model" else hub.SpaceCard)(
                        (staged.folder / "README.md").read_text(encoding="utf-8"))
                    _patiently(card.validate)
                operations = [hub.CommitOperationAdd(name, staged.folder / name) for name in differing]
                self.api.preupload_lfs_files(self.repository, operations, revision=staged.branch,
                                             free_memory=False, repo_type=self.kind)  # tries again by itself
                head = _patiently(commit)
            return Pushed(staged.branch, head, len(differing), len(ours) - len(differing), others)

    def tag(self, tag: str, commit: str) -> bool:
        """Name a commit, for good; False where it has that name. UserError where another commit has it."""
        with self._told():
            tags = {ref.name: ref.target_commit for ref in _patiently(
                lambda: self.api.list_repo_refs(self.repository)).tags}
            if tag not in tags:
                _patiently(lambda: self.api.create_tag(self.repository, tag=tag, revision=commit, exist_ok=True))
        if tags.get(tag, commit) != commit:
            raise UserError(f"{self.repository}: tag {tag} is on another commit ({tags[tag][:8]}), and tags stay where "
                            f"they are. The files are pushed; choose another --tag for them.")
        return tag not in tags

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Failures of the hub as what to do about them."""
        try:
            yield
        except (errors.HTTPError, RuntimeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.repository}: {self._what_to_do(error)}") from None

    def _what_to_do(self, error: Exception) -> str:
        owner, why, status = self.repository.split("/")[0], first_cause(error), _status(error)
        who = f"your token (of '{self.user}')" if self.user else "your token"
        if status == 401:
            return (f"the hub does not accept {who}. Log in anew with `hf auth login`, or correct HF_TOKEN; the same "
                    f"command continues.")
        if status in (403, 404):
            return (f"{who} may not write to what belongs to '{owner}' ({why}). Push to a name of your own, such as "
                    f"{self.user or 'you'}/{self.repository.split('/')[1]}, or use a token with write access there.")
        if status == 412:
            return f"somebody else pushed to it at this moment. {AGAIN}"
        if status == 429:
            return f"the hub asks to wait {_asked_to_wait(error) or 'some minutes'} ({why}). {AGAIN}"
        if status is not None and status < 500 or isinstance(error, ValueError):
            said = why if status is not None else " ".join(str(error).split())
            return f"the hub refuses what was sent: {said}. Nothing was committed."
        return (f"the hub ({self.endpoint}) {'is in trouble' if status else 'cannot be reached'}: {why}. {AGAIN} Check "
                f"the connection, and status.huggingface.co.")


def _patiently(call: Callable[[], Answer]) -> Answer:
    """What `call` gives, tried again while the hub has a passing trouble; each wait is told."""
    for wait in (*WAITS, None):
        try:
            return call()
        except errors.HTTPError as error:
            if wait is None or _status(error) not in (None, *PASSING):
                raise
            wait = max(wait, int(_asked_to_wait(error).rstrip(" s") or 0))
            if wait > LONGEST_WAIT:
                raise
            print(f"the hub: {first_cause(error)}; trying again in {wait} s", flush=True)
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _root(error: BaseException) -> BaseException:
    """An error of the transfer of one file comes wrapped."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(_root(error), "response", None), "status_code", None)


def _asked_to_wait(error: BaseException) -> str:
    """What an answer says in Retry-After, as `20 s`; empty where it says nothing."""
    response = getattr(_root(error), "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return f"{asked} s" if asked.isdigit() else ""


def _identities(path: Path) -> tuple[str, str]:
    """What the hub knows a file's content by: git's id of a blob, LFS' SHA-256."""
    blob, plain = hashlib.sha1(b"blob %d\0" % path.stat().st_size), hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            blob.update(part)
            plain.update(part)
    return blob.hexdigest(), plain.hexdigest()


def _without_addresses(record: logging.LogRecord) -> bool:
    """Signed addresses are as good as passwords while they last."""
    record.msg, record.args = re.sub(r"https?://\S+", "the hub", record.getMessage()), ()
    return True


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
