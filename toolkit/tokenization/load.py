"""Trained tokenizers: loaded from a directory or the hub, and what the rest of the toolkit asks of them."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory
from toolkit.pretrained import saved_tokenizer
from toolkit.run.files import read_json, write_json


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A fast tokenizer from a directory, or from the hub when the name (`owner/name[@revision]`) is no path."""
    directory = checkpoint_directory(name)
    if not directory.is_dir():
        raise UserError(f"{name}: no such tokenizer directory or spec. The specs that ship are in tokenizers/*.yaml.")
    if not (directory / "tokenizer.json").exists():
        raise UserError(f"{name}: holds no tokenizer.json. Give a directory written by save_pretrained, or a spec "
                        f"from tokenizers/*.yaml.")
    try:
        tokenizer = saved_tokenizer(directory)
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the library of tokenizers raises all kinds, also a panic of Rust
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name}: no tokenizer could be loaded ({reason}). Give a directory, a spec from "
                        f"tokenizers/*.yaml, or a hub id while online.") from None
    if not tokenizer.is_fast:
        raise UserError(f"{name}: only fast tokenizers (with a tokenizer.json) are supported.")
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: str | Path, positions: int | None = None) -> None:
    """Into a directory, beside a model of so many positions perhaps: whoever loads it cuts texts to no more than these.

    What transformers 5 calls its class, earlier versions do not know; under the older name both find it.
    """
    longest = tokenizer.model_max_length
    try:
        tokenizer.model_max_length = min(longest, positions or longest)
        tokenizer.save_pretrained(directory)
    finally:
        tokenizer.model_max_length = longest
    path = Path(directory) / "tokenizer_config.json"
    config = read_json(path, dict)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        for name in ("backend", "is_local", "local_files_only"):  # of the way it was loaded
            config.pop(name, None)
        if extra := config.pop("extra_special_tokens", None):
            config["additional_special_tokens"] = extra
        write_json(path, config)


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what the tokenizer does (its tokenizer.json), whatever directory it lies in."""
    return hashlib.sha256(plain_backend(tokenizer).to_str().encode()).hexdigest()


def plain_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy without the truncation and padding that transformers leaves switched on by the call before."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it the tokenizers library uses one thread, however many cores there are."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def ordinary_ids(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """The ids that stand for text: all but the special ones."""
    return np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)


def word_joints(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """(vocab,), (vocab,) int8: the kinds of a token's first and last character; a token goes on with the word of the
    one before it where its first kind is not 0 and is the last kind of that one.

    A piece that WordPiece marks as a continuation ("##ing") joins whatever comes before; where blanks are part of
    tokens (Ġ, ▁), letters join letters, digits digits and other marks marks, as in GPT-2's pattern; a byte beyond
    ASCII counts as part of a letter. Special tokens join nothing.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    model = type(tokenizer.backend_tokenizer.model).__name__
    byte_level = "ByteLevel" in repr(tokenizer.backend_tokenizer.pre_tokenizer)
    first, last = np.zeros(len(tokens), np.int8), np.zeros(len(tokens), np.int8)
    for number, token in enumerate(tokens):
        if model == "WordPiece":
            first[number], last[number] = int(token.startswith("##")), 1
        elif token:
            first[number], last[number] = _kind(token[0], byte_level), _kind(token[-1], byte_level)
    first[tokenizer.all_special_ids] = last[tokenizer.all_special_ids] = 0
    return first, last


def _kind(character: str, byte_level: bool) -> int:
    """0 blank, 1 letter, 2 digit, 3 other."""
    if byte_level and not character.isascii():  # GPT-2 writes bytes 0 to 32 as Ā to Ġ, those from 128 on as letters
        return 0 if "\u0100" <= character <= "\u0120" else 1
    if character == "▁" or character.isspace():
        return 0
    return 1 if character.isalpha() else 2 if character.isdigit() else 3
