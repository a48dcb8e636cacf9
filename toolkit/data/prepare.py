"""Corpus → tokenizer → token stores, each made once in `data_dir` and shared by every run that names it.

    corpus/{train,validation}.jsonl    <tokenizer>/tokenizer/    <tokenizer>/store/{train,validation}/

`<tokenizer>` is the name of its spec or directory, so that a BERT and a GPT can share one corpus.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from toolkit.data.corpus import CorpusConfig, prepare_corpus, read_documents
from toolkit.data.store import TokenStore, build_store
from toolkit.errors import UserError
from toolkit.tokenization import fingerprint, prepare_tokenizer, texts_in_paragraphs


@dataclass(frozen=True)
class PreparedData:
    tokenizer: PreTrainedTokenizerBase
    train: TokenStore
    validation: TokenStore
    corpus: dict

    def facts(self) -> dict:
        """What a manifest should say of the data."""
        return {"corpus": self.corpus, "tokenizer": fingerprint(self.tokenizer),
                "tokens": {"train": self.train.num_tokens, "validation": self.validation.num_tokens}}


def prepare(corpus: CorpusConfig, tokenizer: str, data_dir: str | Path, end_documents: bool,
            progress: bool = True) -> PreparedData:
    """Make, or find already made, everything a pretraining run reads. The tokenizer sees the train split alone.

    `end_documents` closes each document with the tokenizer's end token, as GPT needs.
    """
    directory = Path(data_dir)
    facts = prepare_corpus(corpus, directory / "corpus", progress)
    train_text = (document.text for document in read_documents(directory / "corpus/train.jsonl"))
    own = directory / Path(tokenizer).stem
    fitted = prepare_tokenizer(tokenizer, texts_in_paragraphs(train_text), own / "tokenizer", progress=progress)
    append_id = None
    if end_documents:
        append_id = fitted.eos_token_id
        if append_id is None:
            raise UserError(f"{tokenizer}: has no end-of-text token, which GPT needs between documents. Use a spec "
                            f"such as tokenizers/byte-level-bpe-4k.yaml.")
    stores = {}
    for split in ("train", "validation"):
        summary = facts["splits"][split]
        stores[split] = build_store(
            read_documents(directory / f"corpus/{split}.jsonl"), fitted, own / "store" / split, corpus.language,
            append_id=append_id, total_characters=summary["characters"], progress=progress,
            fingerprints={"corpus": summary["sha256"], "tokenizer": fingerprint(fitted)})
    return PreparedData(fitted, stores["train"], stores["validation"], facts)
