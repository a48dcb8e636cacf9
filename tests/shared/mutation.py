"""Files spoiled at random, from a seed: bits, bytes, types, keys; and readers tried on them."""

import copy
import json
import os
import random
import resource
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolkit.errors import UserError

AT_LEAST = int(os.environ.get("TRIES") or 0)
"""Of `make test-hostile TRIES=10000`: so many tries of every reader, however long one takes."""

JUNK = (b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"', b"'", b",", b";", b"\t", b"\n", b"\r",
        b"\r\n", b":", b"?", b"@", b"|", b"{", b"}", b"[", b"]", b"[" * 300, b"-", b".", b"e", b"nan", b"inf",
        b"1e999", b"-1", b"9" * 25, b"9" * 5000, b"null", b"true",
        b"\\ud800", b"&a ", b"*a", b"<<: ", b"!!int x", b"2024-13-45",
        "\u202e\u200d\u0000é漢".encode(), b" " * 100, b"%", b"#")
VALUES = (None, True, -1, 0, 1.5, 10**30, 10**400, float("nan"), float("inf"), "", "x", "30", "\ud800", "a\n\0b", [],
          {}, [[]], [None], {"": {}}, ["x", 1], {"a": [1, {"b": None}]})


def bytes_spoiled(data: bytes, draw: random.Random) -> bytes:
    """One to three changes: bits flipped, cut off, taken out, repeated, zeroed, junk put in."""
    spoiled = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3))):
        start = draw.randrange(len(spoiled) + 1)
        stop = min(len(spoiled), start + draw.choice((1, 2, 8, 64, 512)))
        kind = draw.randrange(7)
        if kind == 0 and spoiled:
            for _ in range(draw.choice((1, 3, 16))):
                spoiled[draw.randrange(len(spoiled))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del spoiled[start:]
        elif kind == 2:
            del spoiled[start:stop]
        elif kind == 3:
            spoiled[start:start] = spoiled[start:stop] * draw.choice((1, 2, 30))
        elif kind == 4:
            spoiled[start:stop] = bytes(stop - start)
        elif kind == 5:
            spoiled[start:stop] = draw.randbytes(stop - start)
        else:
            spoiled[start:start] = draw.choice(JUNK)
    return bytes(spoiled)


def value_spoiled(value, draw: random.Random):
    """A copy in which one to three values are of another type, absent, there twice, or beyond all bounds."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(draw.choice(VALUES))
        owner, key = draw.choice(places)
        kind = draw.randrange(5)
        if kind == 0 and isinstance(owner, (dict, list)):
            del owner[key]
        elif kind == 1 and isinstance(owner, dict):
            owner[draw.choice(("", "x", "step", "\ud800", "__class__", "self"))] = copy.deepcopy(draw.choice(VALUES))
        elif kind == 2 and isinstance(owner, list):
            owner.insert(key, copy.deepcopy(owner[key]))
        elif kind == 3:
            owner[key] = copy.deepcopy(draw.choice(places)[0])
        else:
            owner[key] = copy.deepcopy(draw.choice(VALUES))
    return copy.deepcopy(draw.choice(VALUES)) if draw.random() < 0.02 else value


def _places(value):
    """(mapping or list, key) of everything within."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def json_spoiled(data: bytes, draw: random.Random) -> bytes:
    """Half the time the values, else the bytes."""
    if draw.random() < 0.4:
        return bytes_spoiled(data, draw)
    return json.dumps(value_spoiled(json.loads(data), draw)).encode()


def at_length(tries: int, *before):
    """The parameters `before` and so many tries, under the marker `hostile`."""
    return pytest.param(*before, max(tries, AT_LEAST), marks=pytest.mark.hostile)


@contextmanager
def within(seconds: int):
    """AssertionError for what takes longer."""
    def late(*_):
        raise AssertionError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_reader(sample: bytes, spoil: Callable, write: Callable[[bytes], Path], read: Callable[[Path], object],
               tries: int, seed: int = 22) -> int:
    """The times that it was refused. Every spoiled file is read, or refused with a UserError, in seconds, and memory
    does not grow with their number.
    """
    refused, peak = 0, None
    for number in range(tries):
        data = spoil(sample, random.Random(f"{seed} {number}"))
        path = write(data)
        try:
            with within(20):
                read(path)
        except UserError as error:
            refused += 1
            assert len(str(error)) < 3000, f"try {number}: a message of {len(str(error)):,} characters"
        except Exception as error:
            kept = path.parent / f"found-{number}{path.suffix}"
            kept.write_bytes(data)
            raise AssertionError(f"try {number}: {type(error).__name__}: {str(error)[:300]}; {data[:200]!r}") from error
        if number == tries // 2:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak is not None and tries >= 1000:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        assert grown < 300_000, f"memory grew by {grown // 1000} MB in the second half"
    return refused
