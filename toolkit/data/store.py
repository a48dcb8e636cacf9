"""The token store: a corpus split as memory-mapped ids with sentence and document offsets.

    ids.bin                  every token id, uint16 or uint32, documents one after the other
    sentence_offsets.bin     int64, where each sentence starts in ids; one more entry closes the last
    document_offsets.bin     int64, where each document starts in sentence_offsets; likewise closed
    manifest.json            counts, dtype, and the fingerprints of the text and the tokenizer it was built from

Opening costs the same at any size: three memory maps.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from toolkit.data.corpus import Document, unit_batches
from toolkit.errors import UserError
from toolkit.run import read_json, write_directory, write_json
from toolkit.tokenization import plain_backend


@dataclass(frozen=True)
class TokenStore:
    """`ids` (tokens,), `sentence_offsets` (sentences + 1,) into ids, `document_offsets` (documents + 1,) into those."""

    directory: Path
    ids: np.ndarray
    sentence_offsets: np.ndarray
    document_offsets: np.ndarray
    manifest: dict

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    @property
    def num_documents(self) -> int:
        return len(self.document_offsets) - 1

    def document_tokens(self) -> np.ndarray:
        """(documents + 1,) where each document starts in ids."""
        return self.sentence_offsets[self.document_offsets]

    @classmethod
    def open(cls, directory: Path) -> "TokenStore":
        """Map a store that `build_store` made; a file of the wrong size is refused by name."""
        directory = Path(directory)
        manifest = read_json(directory / "manifest.json")
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


def build_store(documents: Iterable[Document], tokenizer, directory: Path, language: str = "en",
                append_id: int | None = None, total_characters: int | None = None,
                fingerprints: dict | None = None, progress: bool = True) -> TokenStore:
    """Tokenise `documents` sentence by sentence into `directory`, without special tokens.

    `append_id` closes every document (GPT's end-of-text). A store already there with the same `fingerprints` is
    opened as it is; one built from something else is refused.
    """
    directory, fingerprints = Path(directory), {**(fingerprints or {}), "append_id": append_id}
    if (directory / "manifest.json").exists():
        store = TokenStore.open(directory)
        for name, value in fingerprints.items():
            if store.manifest["fingerprints"].get(name) != value:
                raise UserError(f"{directory}: was built from another {name}. Choose another data_dir, or delete it.")
        return store
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    counts = {"tokens": 0, "sentences": 0, "documents": 0, "bytes": 0, "unknown": 0}
    backend, unknown = plain_backend(tokenizer), tokenizer.unk_token_id
    backend.encode_special_tokens = True  # "[SEP]" in a text is text, not the end of one
    end = np.asarray([] if append_id is None else [append_id], dtype)

    def fill(temporary: Path) -> None:
        with (open(temporary / "ids.bin", "wb") as ids, open(temporary / "sentence_offsets.bin", "wb") as starts,
              open(temporary / "document_offsets.bin", "wb") as firsts,
              tqdm(total=total_characters, desc=f"tokenising {directory.name}", unit="char", unit_scale=True,
                   disable=not progress, leave=False) as bar):
            for group in unit_batches(documents, language):
                units = [unit for document in group for unit in document]
                encodings = iter(backend.encode_batch_fast(units, add_special_tokens=False))
                for document in group:
                    if not document:
                        continue
                    sentences = [np.asarray(next(encodings).ids, dtype) for _ in document]
                    sentences[-1] = np.concatenate([sentences[-1], end])
                    sentences = [sentence for sentence in sentences if len(sentence)]
                    if not sentences:
                        continue
                    lengths = np.asarray([len(sentence) for sentence in sentences], np.int64)
                    tokens = np.concatenate(sentences)
                    starts.write((counts["tokens"] + np.cumsum(lengths) - lengths).tobytes())
                    firsts.write(np.asarray([counts["sentences"]], np.int64).tobytes())
                    ids.write(tokens.tobytes())
                    counts["tokens"] += len(tokens)
                    counts["sentences"] += len(sentences)
                    counts["documents"] += 1
                    counts["bytes"] += sum(len(unit.encode()) for unit in document)
                    counts["unknown"] += 0 if unknown is None else int((tokens == unknown).sum())
                bar.update(sum(map(len, units)))
            if not counts["documents"]:
                raise UserError(f"{directory}: no document has any text, so nothing to store. Check the corpus.")
            starts.write(np.asarray([counts["tokens"]], np.int64).tobytes())
            firsts.write(np.asarray([counts["sentences"]], np.int64).tobytes())
        write_json(temporary / "manifest.json",
                   {"dtype": np.dtype(dtype).name, **counts, "vocab_size": len(tokenizer),
                    "fingerprints": fingerprints})

    write_directory(directory, fill)
    return TokenStore.open(directory)
