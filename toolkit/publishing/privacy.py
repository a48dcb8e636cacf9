"""What must not leave this machine: secrets, its paths, and pickles, which run code on whoever loads them."""

import functools
import os
import re
import tempfile
from pathlib import Path

from toolkit.errors import UserError

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
_OWN_PATTERNS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a wandb key": r"(?i)(?:api_?key|wandb)\W{0,20}(?:\w{0,20}\W{1,5})?[0-9a-f]{40}\b|\bwandb_v\d_\w{40,}",
    "a GitHub token": r"\bgithub_pat_\w{50,}",
    "a Google key": r"\bAIza[\w-]{35}(?![\w-])|\bGOCSPX-[\w-]{28}|\bya29\.[\w-]{30,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "an API key": r"\bsk-[\w-]{32,}",
}
"""Of services that detect-secrets does not know, or knows by fewer forms."""
_OWN_PATTERNS = {name: re.compile(pattern) for name, pattern in _OWN_PATTERNS.items()}
_DETECTORS = {
    "an AWS key": "aws.AWSKeyDetector", "a password in an address": "basic_auth.BasicAuthDetector",
    "a GitHub token": "github_token.GitHubTokenDetector", "a GitLab token": "gitlab_token.GitLabTokenDetector",
    "a web token (JWT)": "jwt.JwtTokenDetector", "a Slack token": "slack.SlackDetector",
    "an Azure key": "azure_storage_key.AzureStorageKeyDetector", "a Discord token": "discord.DiscordBotTokenDetector",
    "a Mailchimp key": "mailchimp.MailchimpDetector", "an npm token": "npm.NpmDetector",
    "an OpenAI key": "openai.OpenAIDetector", "a private key": "private_key.PrivateKeyDetector",
    "a PyPI token": "pypi_token.PypiTokenDetector", "a SendGrid key": "sendgrid.SendGridDetector",
    "a Stripe key": "stripe.StripeDetector", "a Square secret": "square_oauth.SquareOAuthDetector",
    "a Telegram token": "telegram_token.TelegramBotTokenDetector", "a Twilio key": "twilio.TwilioKeyDetector",
}
"""What a line holds → the detector of Yelp's detect-secrets. Those that guess by entropy or by a word nearby are not
among them: weights' checksums and tokens would be taken for secrets."""
_SECRET_VARIABLES = re.compile(r"TOKEN|API_?KEY|SECRET|PASSWORD")
_PATH = re.compile(r"(?:(?<![\w/:.~$<>-])|(?<=[\w\"']:)(?!//)|(?<=file://))(?:/[\w.@+-]+){2,}"
                   r"|\b[A-Z]:\\\\?Users\\\\?[\w.-]+")
_PRIVATE_ROOTS = ("/home/", "/Users/", "/root/", "/tmp/", "/private/", "/mnt/", "/media/")
_EVERYWHERE = ("bin", "boot", "dev", "etc", "lib", "lib64", "opt", "proc", "run", "sbin", "sys", "usr", "var")


def refuse_private_text(path: Path, shown: str, remedy: str) -> None:
    """UserError, by line, when a text file (UTF-8 or UTF-16) holds a secret or an absolute path of this machine."""
    own = {name: value for name, value in os.environ.items() if _SECRET_VARIABLES.search(name) and len(value) >= 16}
    for number, line in enumerate((_text_of(path.read_bytes()) or "").splitlines(), 1):
        kind = _secret_in(line) or next((f"the value of {name}" for name, value in own.items() if value in line), None)
        if kind:
            raise UserError(f"{shown}, line {number}: holds {kind}. Revoke it (who has seen the file has it); then "
                            f"{remedy}.")
        for match in _PATH.finditer(line):
            if _is_of_this_machine(match[0]):
                raise UserError(f"{shown}, line {number}: holds {match[0]}, a path of this machine. Start runs with "
                                f"relative paths; here, {remedy}.")


def is_pickle(path: Path) -> bool:
    if path.suffix in _PICKLES:
        return True
    with open(path, "rb") as file:
        head = file.read(4096)
    # A protocol mark of pickle, or the archive that torch.save writes.
    return head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" or head[:4] == b"PK\3\4" and b"data.pkl" in head


def _text_of(data: bytes) -> str | None:
    """None for what is no text."""
    head = data[:8192]
    if b"\0" not in head:
        return data.decode("utf-8", errors="replace")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):  # of Latin letters every other byte is 0
        if zeros.count(0) > len(zeros) / 2:
            return data.decode(name, errors="replace")
    return None


def _secret_in(line: str) -> str | None:
    kind = next((kind for kind, pattern in _OWN_PATTERNS.items() if pattern.search(line)), None)
    return kind or next((kind for kind, detector in _detectors() if any(detector.analyze_string(line))), None)


@functools.cache
def _detectors() -> list[tuple]:
    import importlib

    found = []
    for kind, name in _DETECTORS.items():
        module, detector = name.split(".")
        found.append((kind, getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), detector)()))
    return found


def _is_of_this_machine(path: str) -> bool:
    """Home and temporary directories; otherwise what exists here, but for directories that every system has."""
    here = (*_PRIVATE_ROOTS, f"{Path.home()}/", f"{tempfile.gettempdir()}/", f"{Path.cwd()}/")
    if path.startswith(here) or ":" in path[:2]:
        return True
    first, second = Path(path).parts[1:3]
    return first not in _EVERYWHERE and os.path.exists(f"/{first}/{second}")
