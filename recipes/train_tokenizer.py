"""Train a tokenizer from a spec on the train split of a corpus.

    make train-tokenizer CONFIG=recipes/configs/tokenizer-books.yaml
    python recipes/train_tokenizer.py --tokenizer tokenizers/characters.yaml --data_dir runs/docs

The directory it prints works with `AutoTokenizer.from_pretrained`, and as `tokenizer:` of the pretraining recipes.
"""

from dataclasses import dataclass, field

from toolkit import cli, config
from toolkit.data.text.corpus import CorpusConfig


@dataclass
class TrainTokenizerConfig:
    data_dir: str
    """The corpus is prepared here, and the tokenizer written to <data_dir>/<spec>/tokenizer."""
    tokenizer: str = "tokenizers/wordpiece-8k.yaml"
    corpus: CorpusConfig = field(default_factory=CorpusConfig)


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(TrainTokenizerConfig, __doc__)

from pathlib import Path

from toolkit.data.stores.prepare import prepare_tokenizer
from toolkit.data.text.corpus import prepare_corpus, read_documents
from toolkit.report.ending import command
from toolkit.shown import quoted


def main(argv: list[str]) -> None:
    settings = config.parse(TrainTokenizerConfig, argv, __doc__)
    directory = Path(settings.data_dir)
    prepare_corpus(settings.corpus, directory / "corpus")
    target = directory / Path(settings.tokenizer).stem / "tokenizer"
    tokenizer = prepare_tokenizer(settings.tokenizer, directory / "corpus", target)
    sample = next(read_documents(directory / "corpus/validation.jsonl")).text[:200]
    print(f"\n{len(tokenizer):,} tokens in {target}")
    print(f"{sample!r}\n→ {' '.join(quoted(token) for token in tokenizer.tokenize(sample))}")
    print(f"next: {command('make pretrain-bert', tokenizer=target, output_dir='runs/bert', data_dir=directory)}")


if __name__ == "__main__":
    cli.run(main)
