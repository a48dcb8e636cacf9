"""Part of a corpus file → token ids in files of their own: the work of one process of a store's build.

`python -m toolkit.data.stores.shards DIRECTORY` reads numbers of shards from its standard input and tells of its
progress on its standard output. It imports little, so that a process costs 80 MB, and holds no more than one document.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from toolkit.data.prepared import StorePlan
from toolkit.data.text.corpus import iterate_sentences, prepared_document
from toolkit.errors import UserError
from toolkit.run.files import read_json, write_json

GROUP_CHARACTERS = 250_000  # tokenised at once
FILES = ("ids", "sentences", "documents")  # the last two hold lengths, as uint32


def shard_path(directory: Path, kind: str, number: int) -> Path:
    return directory / (f"shard-{number:05}.json" if kind == "shard" else f"{kind}-{number:05}.bin")


def write_shard(directory: Path, plan: dict, tokenizer: Tokenizer, number: int,
                report: Callable[[int], None] = lambda size: None) -> None:
    """Tokenise the documents in one range of the corpus file; its .json, written last, says that it is finished."""
    tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text, not the end of one
    source, start, stop = plan["shards"][number]
    dtype = np.dtype(plan["dtype"])
    end = [] if plan["append_id"] is None else [plan["append_id"]]
    counts = {"source": source, "tokens": 0, "sentences": 0, "documents": 0, "bytes": 0, "unknown": 0}
    paths = {kind: shard_path(directory, kind, number) for kind in FILES}
    partial = {kind: path.with_suffix(f".{os.getpid()}") for kind, path in paths.items()}
    files = {kind: open(path, "wb") for kind, path in partial.items()}
    try:
        held, count = 0, 0  # a sentence waits for the next one: the end token goes to the last that has any token
        begun = 0  # tokens of a sentence too long to be tokenised at once
        for group, size in _groups(Path(plan["text"]), start, stop, plan["language"]):
            lists, tokens, lengths = [], [], []
            encodings = tokenizer.encode_batch_fast([unit for unit, *_ in group], add_special_tokens=False)
            for encoding, (_, ends, last) in zip(encodings, group, strict=True):
                lists.append(encoding.ids)
                begun += len(encoding.ids)
                if begun and ends:
                    if held:
                        tokens.append(held)
                        count += 1
                    held, begun = begun, 0
                if last and held:
                    lists.append(end)
                    tokens.append(held + len(end))
                    lengths.append(count + 1)
                    held, count = 0, 0
            written = {"ids": np.fromiter(itertools.chain.from_iterable(lists), dtype),
                       "sentences": np.asarray(tokens, np.uint32),
                       "documents": np.asarray(lengths, np.uint32)}
            for kind, values in written.items():
                files[kind].write(values.tobytes())
                counts["tokens" if kind == "ids" else kind] += len(values)
            counts["bytes"] += sum(len(unit.encode()) for unit, *_ in group)
            if plan["unknown_id"] is not None:
                counts["unknown"] += int((written["ids"] == plan["unknown_id"]).sum())
            report(size)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        for kind, path in partial.items():
            files[kind].close()
            path.unlink(missing_ok=True)
        raise
    for kind, path in partial.items():
        files[kind].close()
        os.replace(path, paths[kind])
    write_json(shard_path(directory, "shard", number), counts)


def _groups(path: Path, start: int, stop: int, language: str) -> Iterator[tuple[list[tuple[str, bool, bool]], int]]:
    """Sentences, some at a time, each with whether it ends here, long ones being cut, and whether it ends its document;
    and the bytes of the file they took.
    """
    group, characters, size = [], 0, 0
    with open(path, "rb") as file:
        file.seek(start)
        while start < stop:
            line = file.readline()
            start += len(line)
            size += len(line)
            document = prepared_document(line, f"{path}, before byte {start}")
            for unit, is_last in _with_last(iterate_sentences(document.text, language)):
                for piece, ends in _pieces(unit):
                    group.append((piece, ends, ends and is_last))
                    characters += len(piece)
                    if characters >= GROUP_CHARACTERS:
                        yield group, size
                        group, characters, size = [], 0, 0
    yield group, size


def _with_last(units: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Each with whether it is the last."""
    for held, following in itertools.pairwise(itertools.chain(units, [None])):
        yield held, following is None


def _pieces(unit: str) -> Iterator[tuple[str, bool]]:
    """A sentence whole, or, where it is longer than a group, in pieces cut before blanks; each with whether it ends."""
    start = 0
    while len(unit) - start > GROUP_CHARACTERS:
        cut = unit.rfind(" ", start + GROUP_CHARACTERS // 2, start + GROUP_CHARACTERS)
        stop = cut if cut > 0 else start + GROUP_CHARACTERS
        yield unit[start:stop], False
        start = stop
    yield unit[start:], True


def main() -> None:
    directory = Path(sys.argv[1])
    plan = read_json(directory / "plan.json", StorePlan)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for line in sys.stdin:
        number = int(line)
        try:
            write_shard(directory, plan, tokenizer, number, lambda size: print("bytes", size, flush=True))
        except OSError as error:
            print("error", error.errno, error.strerror, flush=True)
            return
        except UserError as error:
            print("refused", " ".join(str(error).split()), flush=True)
            return
        print("done", number, flush=True)


if __name__ == "__main__":
    main()
