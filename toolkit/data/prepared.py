"""What the files of a data directory look like, finished or being made: shapes as in `toolkit.run.schema`."""

from typing import Any, Literal, Required, TypedDict

from toolkit.run.schema import Count


class StoreManifest(TypedDict, total=False):
    """manifest.json of a token store."""

    dtype: Required[Literal["uint16", "uint32"]]
    tokens: Required[Count]
    sentences: Required[Count]
    documents: Required[Count]
    fingerprints: dict[str, Any]
    sources: list[Count]


class StorePlan(TypedDict):
    """plan.json of a token store that is being built."""

    text: str
    language: str
    append_id: Count | None
    unknown_id: Count | None
    vocab_size: Count
    dtype: Literal["uint16", "uint32"]
    shards: list[list[Count]]
    """Source, first byte, last byte + 1 of each."""
    fingerprints: dict[str, Any]


class ShardCounts(TypedDict):
    """shard-….json of a token store that is being built: what is in one that is finished."""

    source: Count
    tokens: Count
    sentences: Count
    documents: Count
    bytes: Count
    unknown: Count


class SeriesManifest(TypedDict, total=False):
    """manifest.json of prepared series."""

    series: Required[dict[str, Any]]
    tokenizer: Required[dict[str, Any]]


class TokenizerManifest(TypedDict, total=False):
    """manifest.json beside a tokenizer that was trained on a corpus."""

    spec: dict[str, Any]
    corpus: str


class SavedDocument(TypedDict):
    """A line of train.jsonl and validation.jsonl of a prepared corpus."""

    name: str
    source: str
    text: str


class SplitFacts(TypedDict):
    """What a split of a corpus holds."""

    documents: Count
    characters: Count
    bytes: Count
    sha256: str


class SplitOfSource(TypedDict):
    """What a split has of one source; `size`: as lines."""

    documents: Count
    characters: Count
    bytes: Count
    size: Count


class SourceFacts(TypedDict):
    source: str
    train: SplitOfSource
    validation: SplitOfSource


class Splits(TypedDict):
    train: SplitFacts
    validation: SplitFacts


class CorpusManifest(TypedDict, total=False):
    """manifest.json of a prepared corpus."""

    config: Required[dict[str, Any]]
    splits: Required[Splits]
    sources: Required[list[SourceFacts]]
    counts: dict[str, Count]
    inputs: dict[str, Any]


class JournalState(TypedDict):
    """How far a preparation was."""

    read: str
    parts: Count
    documents: Count
    counts: dict[str, Count]
    sources: list[SourceFacts]


class CorpusJournal(TypedDict):
    """journal.json of a corpus that is being prepared."""

    config: dict[str, Any]
    states: list[JournalState]
