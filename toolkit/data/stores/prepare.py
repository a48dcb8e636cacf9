"""Corpus → tokenizer → token stores, each made once in `data_dir` and shared by every run that names it.

    corpus/{train,validation}.jsonl    <tokenizer>/tokenizer/    <tokenizer>/store/{train,validation}/

`<tokenizer>` is the name of its spec or directory, so that a BERT and a GPT can share one corpus.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from toolkit.data.prepared import CorpusManifest, StoreManifest, TokenizerManifest
from toolkit.data.stores.store import STORE_FILES, TokenStore, build_store
from toolkit.data.text.corpus import SPLITS, CorpusConfig, prepare_corpus, read_documents
from toolkit.errors import UserError
from toolkit.run.files import read_json, write_directory, write_json
from toolkit.tokenization.bins import SeriesBins
from toolkit.tokenization.load import fingerprint, load_tokenizer, save_tokenizer
from toolkit.tokenization.measure import check_unknown
from toolkit.tokenization.normalizer import MEASURED
from toolkit.tokenization.train import TokenizerSpec, TrainingSample, is_spec, read_spec, train_tokenizer
from toolkit.views import View, Viewed


@dataclass(frozen=True, repr=False)
class PreparedData(Viewed):
    tokenizer: PreTrainedTokenizerBase | SeriesBins
    train: TokenStore
    validation: TokenStore
    corpus: dict
    weights: tuple[float, ...] = ()
    """How often an epoch passes over each source; empty: once over each."""

    def _shown(self) -> View:
        rows = [(split, store.num_documents, store.num_tokens)
                for split, store in (("train", self.train), ("validation", self.validation))]
        return View("prepared data", {"vocabulary": len(self.tokenizer), "kept in": self.train.directory.parents[1]},
                    ("part", "documents", "tokens"), rows)

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
    stem = Path(tokenizer).stem
    own = directory / (stem if stem not in ("", "..") else Path(tokenizer).resolve().stem)
    fitted = prepare_tokenizer(tokenizer, directory / "corpus", own / "tokenizer", progress=progress,
                               max_unknown=corpus.max_unknown)
    if not is_spec(tokenizer):
        own = _own_place(own, fingerprint(fitted))
        if not (own / "store/train/manifest.json").exists():
            check_unknown(fitted, _sample(directory / "corpus", MEASURED), tokenizer, corpus.max_unknown,
                          "corpus.max_unknown")
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


def _own_place(directory: Path, tokenizer: str) -> Path:
    """Of a trained tokenizer, by its fingerprint: many lie in folders of one name, such as the `model` of runs."""
    manifest = directory / "store" / SPLITS[0] / "manifest.json"
    known = read_json(manifest, StoreManifest).get("fingerprints", {}) if manifest.exists() else {}
    is_anothers = manifest.exists() and known.get("tokenizer") != tokenizer
    return directory.with_name(f"{directory.name}-{tokenizer[:8]}") if is_anothers else directory


def prepare_tokenizer(source: str, corpus: Path, directory: Path, vocab_size: int | None = None,
                      progress: bool = True, max_unknown: float = 1.0) -> PreTrainedTokenizerBase:
    """`source` is a spec (.yaml), trained once into `directory` on a prepared corpus' train split, or an existing
    tokenizer's directory or hub id. `vocab_size` overrides the spec's.

    One that is trained is refused when it does not know more than `max_unknown` of the corpus' characters.
    """
    if not is_spec(source):
        return load_tokenizer(source)
    spec = read_spec(source)
    spec.vocab_size = vocab_size or spec.vocab_size
    train = read_json(corpus / "manifest.json", CorpusManifest)["splits"]["train"]
    manifest = {"spec": asdict(spec), "corpus": train["sha256"],
                "versions": {name: metadata.version(name) for name in ("tokenizers", "transformers", "sentencepiece")}}
    if (directory / "manifest.json").exists():
        made_from = read_json(directory / "manifest.json", TokenizerManifest)
        for key, name in (("spec", f"another spec than {source} is now"), ("corpus", "another corpus")):
            earlier = made_from.get(key)
            if key == "spec" and earlier:  # a key that a later version brought is at its default in earlier ones
                earlier = {**asdict(TokenizerSpec(spec.algorithm)), **earlier}
            if earlier != manifest[key]:
                raise UserError(f"{directory}: was trained from {name}. Choose another data_dir, or delete it.")
        return load_tokenizer(str(directory))

    def fill(temporary: Path) -> None:
        texts = TrainingSample(_TrainText(corpus / "train.jsonl"), spec, train["characters"])
        sample = list(_sample(corpus, MEASURED))
        tokenizer = train_tokenizer(spec, texts, source, progress, sample)
        check_unknown(tokenizer, sample, source, max_unknown, "corpus.max_unknown")
        save_tokenizer(tokenizer, temporary)
        write_json(temporary / "manifest.json",
                   {**manifest, "vocab_size": len(tokenizer), "fingerprint": fingerprint(tokenizer)})

    write_directory(directory, fill)
    return load_tokenizer(str(directory))


def _sample(corpus: Path, characters: int) -> TrainingSample:
    """Paragraphs of the train split, from everywhere in it, about `characters` of them."""
    total = read_json(corpus / "manifest.json", CorpusManifest)["splits"]["train"]["characters"]
    bounds = TokenizerSpec("byte", max_characters=characters)
    return TrainingSample(_TrainText(corpus / "train.jsonl"), bounds, total)


@dataclass(frozen=True)
class _TrainText:
    path: Path

    def __iter__(self) -> Iterator[str]:
        return (document.text for document in read_documents(self.path))
