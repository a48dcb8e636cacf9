"""Checkpoints and tokenizers from the hub, wherever a directory may be given: `owner/name`, or `owner/name@revision`.

What is fetched lies in Hugging Face's own cache, and everything after that reads a directory: all files of one commit,
one place for what can go wrong. Weights are taken as safetensors alone; no pickle is ever fetched.
"""

import re
import sys
from contextlib import nullcontext, suppress
from functools import lru_cache, partial
from pathlib import Path

from toolkit.bars import libraries_silent
from toolkit.errors import UserError
from toolkit.regular import regular_folder

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WANTED = ["*.json", "*.txt", "*.model", "*.jinja", "model*.safetensors"]
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0


def is_hub_name(name: str | Path) -> bool:
    """Whether `owner/name[@revision]` is meant: where there is such a path, or at least its first folder, it is not."""
    text = str(name)
    return bool(NAME.fullmatch(text.partition("@")[0])) and not Path(text).exists() and not Path(text).parent.exists()


def checkpoint_directory(name: str | Path) -> Path:
    """The directory itself, or that to which a model of the hub was fetched (once a process: all of it at one commit).

    UserError when it is neither, or cannot be fetched. Local paths are looked at first, and cost no network.
    """
    if not is_hub_name(name):
        return regular_folder(Path(name).expanduser())
    repository, _, revision = str(name).partition("@")
    return regular_folder(_fetched(repository, revision or None))


@lru_cache(maxsize=64)
def _fetched(repository: str, revision: str | None) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import errors

    named = f"{repository}@{revision}" if revision else repository
    take = partial(hub.snapshot_download, repository, revision=revision, allow_patterns=WANTED,
                   ignore_patterns=["*/*"])

    def fetch(local_files_only: bool) -> str:
        with nullcontext() if sys.stderr.isatty() else libraries_silent():
            return take(local_files_only=local_files_only)

    offline = hub.constants.is_offline_mode()
    if not offline:
        with_time_limits()
    try:
        return Path(fetch(local_files_only=offline))
    except errors.GatedRepoError:
        raise UserError(f"{named}: is gated. Ask for access at {hub.constants.ENDPOINT}/{repository}, log in with "
                        f"`hf auth login`, then give the same command.") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{named}: no such directory, and no such model on the hub, or it is private and you are not "
                        f"logged in as one who may read it. Check the name, or `hf auth login`.") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{named}: no such directory, and the model {repository} of the hub has no revision "
                        f"'{revision}'. Name a branch, a tag or a commit of it.") from None
    except errors.HFValidationError as error:
        raise UserError(f"{named}: no such directory, and no model of the hub can be called so ({error}).") from None
    except (errors.HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            raise UserError(f"{named}: the hub does not accept your token. Log in anew (`hf auth login`), or correct "
                            f"HF_TOKEN.") from None
        with suppress(OSError):
            return Path(fetch(local_files_only=True))  # what was fetched before
        reason = "HF_HUB_OFFLINE is set" if offline else f"the hub cannot be reached: {first_cause(error)}"
        raise UserError(f"{named}: no such directory, and not at hand from the hub ({reason}). Check the name; to work "
                        f"offline, fetch it once with `hf download {repository}`.") from None


def with_time_limits() -> None:
    """From now on no request of this process waits for a silent hub for ever, as many do by default."""
    import huggingface_hub as hub

    client = hub.get_session()
    hooks = [*(hook for hook in client.event_hooks["request"] if hook is not _limit_time), _limit_time]
    hub.set_client_factory(lambda: type(client)(follow_redirects=True, timeout=None, event_hooks={"request": hooks}))


def _limit_time(request) -> None:
    """A hook of the HTTP client; a timeout of the client's own would be overruled by the None that requests pass."""
    asked = request.extensions.get("timeout", {})
    least = {"connect": CONNECT_SECONDS, **dict.fromkeys(("read", "write", "pool"), ANSWER_SECONDS)}
    request.extensions["timeout"] = {kind: asked.get(kind) or seconds for kind, seconds in least.items()}


def first_cause(error: BaseException) -> str:
    """In one line what failed at first: an error of the network, or what the hub answered; no address, no token."""
    while getattr(error, "response", None) is None and error.__cause__ is not None:
        error = error.__cause__
    if (response := getattr(error, "response", None)) is not None:
        said = getattr(error, "server_message", None)
        return f"it answered {response.status_code}" + (f", {' '.join(said.split())}" if said else "")
    return re.sub(r"\S+://\S+", "…", (str(error).splitlines() or [""])[0]) or type(error).__name__
