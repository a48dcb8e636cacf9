"""The token store: a corpus split as memory-mapped ids with sentence and document offsets.

    ids.bin                  every token id, uint16 or uint32, documents one after the other
    sentence_offsets.bin     int64, where each sentence starts in ids; one more entry closes the last
    document_offsets.bin     int64, where each document starts in sentence_offsets; likewise closed
    manifest.json            counts, dtype, tokens of each source, and the fingerprints of text and tokenizer

Opening costs the same at any size: three memory maps. A build cuts the text into shards, which several processes
tokenise; one that was killed goes on after the last finished shard, to the same bytes.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from toolkit.bars import bar
from toolkit.data.prepared import ShardCounts, StoreManifest, StorePlan
from toolkit.data.stores import shards as shard_process
from toolkit.data.stores.shards import GROUP_CHARACTERS, shard_path, write_shard
from toolkit.data.text.corpus import prepared_document, sentences
from toolkit.errors import UserError
from toolkit.run.files import LOCK_FILE, building, read_json, write_atomic, write_json
from toolkit.tokenization.load import one_thread, plain_backend
from toolkit.views import View, Viewed

STORE_FILES = ("ids.bin", "sentence_offsets.bin", "document_offsets.bin", "manifest.json")
SHARD_BYTES = 4 * 2**20
MOST_SHARDS = 1024
PROCESS_BYTES = 80_000_000
"""Memory of one process beside the document it works on: measured, in `make bench-data`."""


@dataclass(frozen=True, repr=False)
class TokenStore(Viewed):
    """`ids` (tokens,), `sentence_offsets` (sentences + 1,) into ids, `document_offsets` (documents + 1,) into those."""

    directory: Path
    ids: np.ndarray
    sentence_offsets: np.ndarray
    document_offsets: np.ndarray
    manifest: dict

    def _shown(self) -> View:
        return View(f"token store {self.directory.name}", {"tokens": self.num_tokens, "documents": self.num_documents,
                                                           "sentences": len(self.sentence_offsets) - 1})

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    @property
    def num_documents(self) -> int:
        return len(self.document_offsets) - 1

    def document_tokens(self) -> np.ndarray:
        """(documents + 1,) where each document starts in ids."""
        return self.sentence_offsets[self.document_offsets]

    def source_tokens(self) -> list[int]:
        """Tokens of each source of the corpus, in their order, which is that of ids."""
        return self.manifest.get("sources", [self.num_tokens])

    @classmethod
    def open(cls, directory: Path) -> "TokenStore":
        """Map a store that `build_store` made; a file of the wrong size is refused by name."""
        directory = Path(directory)
        manifest = read_json(directory / "manifest.json", StoreManifest)
        arrays = []
        for name, dtype, count in (("ids", manifest["dtype"], manifest["tokens"]),
                                   ("sentence_offsets", "int64", manifest["sentences"] + 1),
                                   ("document_offsets", "int64", manifest["documents"] + 1)):
            path = directory / f"{name}.bin"
            expected = count * np.dtype(dtype).itemsize
            found = path.stat().st_size if path.exists() else None
            if found != expected:
                raise UserError(f"{path}: {found if found is not None else 'no such file'}; its manifest expects "
                                f"{expected} bytes. Delete {directory} to have it built again.")
            arrays.append(np.memmap(path, dtype=dtype, mode="r"))
        return cls(directory, *arrays, manifest)


def build_store(text: Path, tokenizer, directory: Path, language: str = "en", append_id: int | None = None,
                source_bytes: list[int] | None = None, fingerprints: dict | None = None,
                num_proc: int | None = None, progress: bool = True) -> TokenStore:
    """Tokenise the documents of `text` (a prepared .jsonl) sentence by sentence, without special tokens.

    `append_id` closes every document (GPT's end-of-text). `source_bytes` are the sizes of the parts of the file that
    come from each source. `num_proc` processes work (default: one a core); the bytes do not depend on it. A store
    already there with the same `fingerprints` is opened as it is; one built from something else is refused.
    """
    directory, text = Path(directory), Path(text)
    fingerprints = {**(fingerprints or {}), "append_id": append_id, "language": language}
    if (directory / "manifest.json").exists():
        store = TokenStore.open(directory)
        for name, value in fingerprints.items():
            if store.manifest.get("fingerprints", {}).get(name) != value:
                raise UserError(f"{directory}: was built from another {name}. Choose another data_dir, or delete it.")
        return store
    backend = plain_backend(tokenizer)
    plan = {"text": str(text.resolve()), "language": language, "append_id": append_id, "fingerprints": fingerprints,
            "unknown_id": tokenizer.unk_token_id, "vocab_size": len(tokenizer),
            "dtype": "uint16" if len(tokenizer) <= 2**16 else "uint32",
            "shards": _cut(text, source_bytes or [text.stat().st_size])}
    with building(directory) as partial:
        _take_up(partial, plan, backend)
        if not (partial / "manifest.json").exists():
            todo = [number for number in range(len(plan["shards"]))
                    if not shard_path(partial, "shard", number).exists()]
            workers = min(num_proc or _cores(), len(todo))
            _announce(plan, backend, directory, todo, workers, progress)
            with bar(total=sum(stop - start for _, start, stop in plan["shards"]), unit="B", unit_scale=True,
                     desc=f"tokenising {directory.name}", progress=progress) as read:
                read.update(read.total - sum(plan["shards"][n][2] - plan["shards"][n][1] for n in todo))
                if workers <= 1:
                    for number in todo:
                        write_shard(partial, plan, backend, number, read.update)
                else:
                    _run_workers(partial, todo, workers, read)
            _join(partial, plan, directory)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == "plan.json"):  # without it, all is redone
            if path.name not in (*STORE_FILES, LOCK_FILE):
                path.unlink()
    return TokenStore.open(directory)


def _cores() -> int:
    """Those this process may use: a job on a cluster is often given a few of many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cut(text: Path, source_bytes: list[int]) -> list[list[int]]:
    """[source, first byte, last byte + 1] of each shard: whole lines, of one source, the same for any machine."""
    size = max(SHARD_BYTES, text.stat().st_size // MOST_SHARDS)
    shards, start = [], 0
    with open(text, "rb") as file:
        for source, total in enumerate(source_bytes):
            end = start + total
            while start < end:
                file.seek(min(start + size, end) - 1)
                file.readline()
                shards.append([source, start, min(file.tell(), end)])
                start = shards[-1][2]
    return shards


def _take_up(partial: Path, plan: dict, backend: Tokenizer) -> None:
    """Keep the finished shards of a build of the same plan, drop anything else."""
    path = partial / "plan.json"
    if not (path.exists() and read_json(path, StorePlan) == plan):
        for old in partial.iterdir():
            if old.name != LOCK_FILE:
                old.unlink()
        write_atomic(partial / "tokenizer.json", backend.to_str())
        write_json(path, plan)


def _announce(plan: dict, backend: Tokenizer, directory: Path, todo: list[int], workers: int, progress: bool) -> None:
    """What the build will take, estimated from the first shard's beginning; refused when the disk is too small."""
    size = sum(plan["shards"][number][2] - plan["shards"][number][1] for number in todo)
    if size < 2 * SHARD_BYTES:
        return
    with open(plan["text"], "rb") as file:
        sample = prepared_document(file.readline(), f"{plan['text']}, line 1").text[:GROUP_CHARACTERS]
    if not sample:
        return  # a document without text tells nothing of the others
    began = time.perf_counter()
    units = sentences(sample, plan["language"])
    with one_thread():
        tokens = sum(len(encoding.ids) for encoding in backend.encode_batch_fast(units, add_special_tokens=False))
    share = size / len(sample.encode())
    seconds = (time.perf_counter() - began) * share / workers
    disk = int(share * (tokens * np.dtype(plan["dtype"]).itemsize + 12 * len(units)))
    free = shutil.disk_usage(directory.parent).free
    if disk > free:
        raise UserError(f"{directory}: needs about {disk / 1e6:,.0f} MB, but the disk has {free / 1e6:,.0f} MB left. "
                        f"Free some space or choose another data_dir; what is finished is kept.")
    if progress:
        tqdm.write(f"token store {directory.name}: {size / 1e6:,.0f} MB of text, about {share * tokens / 1e6:,.1f} "
                   f"million tokens, {disk / 1e6:,.0f} MB of disk, {workers} processes of "
                   f"{PROCESS_BYTES / 1e6:,.0f} MB, {max(1, seconds):,.0f} s")


def _run_workers(partial: Path, todo: list[int], count: int, read: tqdm) -> None:
    """Hand out shards to `count` processes and follow what they report."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    events: Queue[tuple[subprocess.Popen, str]] = Queue()

    def listen(process: subprocess.Popen) -> None:
        for line in process.stdout:
            events.put((process, line))
        events.put((process, "gone"))

    def hand_out(process: subprocess.Popen) -> None:
        if waiting:
            process.stdin.write(f"{waiting.pop(0)}\n")
            process.stdin.flush()
        else:
            process.stdin.close()

    waiting, finished, processes = list(todo), 0, []
    try:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-m", shard_process.__name__, str(partial.resolve())],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                                       process_group=0)  # Ctrl-C is for the parent, which ends them
            processes.append(process)
            threading.Thread(target=listen, args=(process,), daemon=True).start()
            hand_out(process)
        while finished < len(todo):
            process, line = events.get()
            event, _, facts = line.strip().partition(" ")
            if event == "bytes":
                read.update(int(facts))
            elif event == "done":
                finished += 1
                hand_out(process)
            elif event == "error":
                number, _, message = facts.partition(" ")
                raise OSError(int(number), message)
            elif event == "refused":
                raise UserError(facts)
            elif process.wait() or not process.stdin.closed:
                raise UserError(f"{partial}: a tokenising process ended with status {process.returncode}. If memory "
                                f"ran out, use fewer (impl.preprocessing_num_workers); the same command continues.")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _finished(partial: Path, plan: dict, number: int) -> ShardCounts:
    """What a finished shard says of itself; UserError where its files do not hold that, or it is of another source."""
    path = shard_path(partial, "shard", number)
    counts = read_json(path, ShardCounts)
    expected = {"ids": counts["tokens"] * np.dtype(plan["dtype"]).itemsize, "sentences": 4 * counts["sentences"],
                "documents": 4 * counts["documents"]}
    for kind, size in expected.items():
        file = shard_path(partial, kind, number)
        joined = kind == "ids" and not file.exists()  # by a build that was broken off
        found = size if joined else file.stat().st_size if file.exists() else None
        if counts["source"] != plan["shards"][number][0] or found != size:
            raise UserError(f"{path}: does not fit the files beside it. Delete it to have them made again.")
    return counts


def _join(partial: Path, plan: dict, directory: Path) -> None:
    """Shards, in their order → the files of the store. Can be broken off anywhere and done again."""
    shards = [_finished(partial, plan, number) for number in range(len(plan["shards"]))]
    totals = {key: sum(shard[key] for shard in shards)
              for key in ("tokens", "sentences", "documents", "bytes", "unknown")}
    if not totals["documents"]:
        raise UserError(f"{directory}: no document has any text, so nothing to store. Check the corpus.")
    with open(partial / "ids.bin", "ab") as ids:  # each shard goes as it is appended, so that the disk holds them once
        start = 0
        for number, shard in enumerate(shards):
            path = shard_path(partial, "ids", number)
            if path.exists():
                ids.truncate(start)
                with open(path, "rb") as file:
                    shutil.copyfileobj(file, ids, 2**20)
                ids.flush()
                os.fsync(ids.fileno())
                path.unlink()
            start += shard["tokens"] * np.dtype(plan["dtype"]).itemsize
    for kind, name in (("sentences", "sentence_offsets"), ("documents", "document_offsets")):
        with open(partial / f"{name}.bin", "wb") as file:
            start = 0
            for number in range(len(shards)):
                lengths = np.fromfile(shard_path(partial, kind, number), np.uint32).astype(np.int64)
                ends = start + np.cumsum(lengths)
                file.write((ends - lengths).tobytes())
                start = int(ends[-1]) if len(ends) else start
            file.write(np.asarray([start], np.int64).tobytes())
    sources = [0] * (1 + max(shard["source"] for shard in shards))
    for shard in shards:
        sources[shard["source"]] += shard["tokens"]
    write_json(partial / "manifest.json", {"dtype": plan["dtype"], **totals, "vocab_size": plan["vocab_size"],
                                           "sources": sources, "fingerprints": plan["fingerprints"]})
