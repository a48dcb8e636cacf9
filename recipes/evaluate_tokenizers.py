"""Measure tokenizers beside each other, on held-out text and on a text of another kind.

    make evaluate-tokenizers
    make evaluate-tokenizers CONFIG=recipes/configs/evaluate-tokenizers-books.yaml
    python recipes/evaluate_tokenizers.py --tokenizers "[tokenizers/unigram-8k.yaml, path/to/a/tokenizer, gpt2]"

Each spec is trained on the train split, once for every size in `vocab_sizes`; a directory or a hub id is measured as
it is. Leaves a table (tokenizers.md), tokenizers.json, and bytes per token against vocabulary size
(bytes-per-token.png) in the run directory.
"""

from dataclasses import dataclass, field

from toolkit import cli, config
from toolkit.data.text.corpus import CorpusConfig

SHIPPED = ("wordpiece-8k", "bpe-8k", "byte-level-bpe-4k", "unigram-8k", "bytes", "characters")


@dataclass
class EvaluateTokenizersConfig:
    output_dir: str = "runs/evaluate-tokenizers"
    """The run directory."""
    data_dir: str = config.free("runs/evaluate-tokenizers/data")
    """Where corpus and tokenizers are made once; runs may share it."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    second_sources: list[str] = field(default_factory=lambda: ["python-source"])
    """A text of another kind, to see what a vocabulary is worth outside its own; the same forms as corpus.sources.
    Default: the source code of Python's standard library."""
    tokenizers: list[str] = field(default_factory=lambda: [f"tokenizers/{name}.yaml" for name in SHIPPED])
    """Specs to train, and tokenizers (directories or hub ids) to measure as they are."""
    vocab_sizes: list[int] = field(default_factory=lambda: [1024, 2048, 4096, 8192, 16384])
    """Each spec whose vocabulary has a size is trained at all of these; empty: at its own."""
    characters: int = 1_000_000
    """Of each of the two texts, how much is measured."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(EvaluateTokenizersConfig, __doc__)

import re
from pathlib import Path

from toolkit.data.stores.prepare import prepare_tokenizer
from toolkit.data.text.corpus import iterate_documents, prepare_corpus, read_documents
from toolkit.metrics.tabulate import on_screen, table
from toolkit.publishing.card import LiveCard
from toolkit.report.ending import command, ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.figures.vocabularies import vocabularies_figure
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.run.files import write_atomic, write_json
from toolkit.tokenization.measure import evaluate_tokenizer, sample_paragraphs
from toolkit.tokenization.train import VocabularyTooLarge, is_spec, read_spec


def evaluate_tokenizers(settings: EvaluateTokenizersConfig) -> list[dict]:
    """One row a tokenizer, size and text."""
    run = Run(settings.output_dir, observers=[LiveCard()]).open(settings)
    corpus = Path(settings.data_dir) / "corpus"
    facts = prepare_corpus(settings.corpus, corpus)
    run.write_manifest(data=facts)
    held_out = sample_paragraphs((document.text for document in read_documents(corpus / "validation.jsonl")),
                                 settings.characters)
    second = sample_paragraphs(
        (document.text for document in iterate_documents(settings.second_sources, settings.corpus.reading())),
        settings.characters)

    rows = []
    for source in settings.tokenizers:
        for size in sizes(source, settings.vocab_sizes):
            stem = re.sub(r"-\d+k$", "", Path(source).stem) if is_spec(source) else source
            name = f"{stem}-{size}" if size else stem
            print(f"{name} …", flush=True)
            try:
                tokenizer = prepare_tokenizer(source, corpus, Path(settings.data_dir) / name / "tokenizer", size,
                                              progress=False)
            except VocabularyTooLarge as error:
                print(f"left out: {error}")  # the other sizes can still be compared
                continue
            for text, paragraphs in (("held-out", held_out), ("second", second)):
                rows.append({"tokenizer": stem, "vocab_size": len(tokenizer), "text": text,
                             **evaluate_tokenizer(tokenizer, paragraphs)})
            write_json(run.directory / "tokenizers.json",
                       {"corpus": facts, "second_sources": settings.second_sources, "rows": rows})
    write_atomic(run.directory / "tokenizers.md", table(rows, markdown=True) + "\n")
    save_figure(vocabularies_figure(rows, "Bytes per token by vocabulary size"), run.directory / "bytes-per-token.png")
    return rows


def sizes(source: str, vocab_sizes: list[int]) -> list[int | None]:
    """The sizes at which a source is trained; None: as it is."""
    if not is_spec(source) or read_spec(source).algorithm in ("byte", "character"):
        return [None]
    return list(vocab_sizes) or [None]


def main(argv: list[str]) -> None:
    settings = config.parse(EvaluateTokenizersConfig, argv, __doc__)
    rows = evaluate_tokenizers(settings)
    for text, title in (("held-out", "held-out text"), ("second", ", ".join(settings.second_sources))):
        print(f"\n{title}")
        print(on_screen([{key: value for key, value in row.items() if key != "text"} for row in rows
                         if row["text"] == text]))
    write_report(settings.output_dir)
    best = max((row for row in rows if row["text"] == "held-out"), key=lambda row: row["bytes_per_token"])
    place = Path(settings.output_dir)
    print(ending(place, command("make pretrain-bert", tokenizer="tokenizers/wordpiece-8k.yaml", output_dir="runs/bert"),
                 f"most bytes a token: {best['tokenizer']}, vocabulary {best['vocab_size']:,}: "
                 f"{best['bytes_per_token']:.2f}; bytes themselves: 1", table=place / "tokenizers.md",
                 results=place / "tokenizers.json", picture=place / "bytes-per-token.png"))


if __name__ == "__main__":
    cli.run(main)
