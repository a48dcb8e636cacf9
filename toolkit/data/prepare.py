"""Corpus → tokenizer → token stores, each made once in `data_dir` and shared by every run that names it.

    corpus/{train,validation}.jsonl    <tokenizer>/tokenizer/    <tokenizer>/store/{train,validation}/

`<tokenizer>` is the name of its spec or directory, so that a BERT and a GPT can share one corpus.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from toolkit.data.corpus import SPLITS, CorpusConfig, prepare_corpus
from toolkit.data.series_bins import SeriesBins
from toolkit.data.store import STORE_FILES, TokenStore, build_store
from toolkit.errors import UserError
from toolkit.tokenization import fingerprint
from toolkit.tokenizer_training import is_spec, prepare_tokenizer, read_spec


@dataclass(frozen=True)
class PreparedData:
    tokenizer: PreTrainedTokenizerBase | SeriesBins
    train: TokenStore
    validation: TokenStore
    corpus: dict
    weights: tuple[float, ...] = ()
    """How often an epoch passes over each source; empty: once over each."""

    def facts(self) -> dict:
        """What a manifest should say of the data."""
        series = isinstance(self.tokenizer, SeriesBins)
        return {"corpus": self.corpus, "weights": list(self.weights),
                "tokenizer": self.tokenizer.fingerprint() if series else fingerprint(self.tokenizer),
                "tokens": {"train": self.train.num_tokens, "validation": self.validation.num_tokens}}

    def files(self) -> list[Path]:
        """What a run reads while it trains."""
        return [store.directory / name for store in (self.train, self.validation) for name in STORE_FILES]


def prepare(corpus: CorpusConfig, tokenizer: str, data_dir: str | Path, end_documents: bool,
            num_proc: int | None = None, progress: bool = True) -> PreparedData:
    """Make, or find already made, everything a pretraining run reads. The tokenizer sees the train split alone.

    `end_documents` closes each document with the tokenizer's end token, as GPT needs.
    """
    if is_spec(tokenizer):
        read_spec(tokenizer)  # a mistake in it shows before the corpus is read
    directory = Path(data_dir)
    facts = prepare_corpus(corpus, directory / "corpus", progress)
    own = directory / Path(tokenizer).stem
    fitted = prepare_tokenizer(tokenizer, directory / "corpus", own / "tokenizer", progress=progress)
    append_id = None
    if end_documents:
        append_id = fitted.eos_token_id
        if append_id is None:
            raise UserError(f"{tokenizer}: has no end-of-text token, which GPT needs between documents. Use a spec "
                            f"such as tokenizers/byte-level-bpe-4k.yaml.")
    stores = {split: build_store(
        directory / f"corpus/{split}.jsonl", fitted, own / "store" / split, corpus.language, append_id,
        [source[split]["size"] for source in facts["sources"]], num_proc=num_proc, progress=progress,
        fingerprints={"corpus": facts["splits"][split]["sha256"], "tokenizer": fingerprint(fitted)})
        for split in SPLITS}
    # Validation sources come first, and none of them is in the training store.
    weights = [0.0] * len(corpus.validation_sources) + corpus.weights if corpus.weights else []
    return PreparedData(fitted, stores["train"], stores["validation"], facts, tuple(weights))
