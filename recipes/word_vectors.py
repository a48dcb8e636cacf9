"""Train word vectors on your text, see what they know, and save them for gensim, or for a BERT or GPT to start from.

    make word-vectors
    make word-vectors ARGS="--methods '[ppmi-svd, skip-gram, cbow]' --words '[sea, king]'"

Corpus → tokenizer → token store → one vector an entry of the tokenizer. Writes <method>.txt in word2vec's text format
(`gensim.models.KeyedVectors.load_word2vec_format`, or `model.embeddings` of the pretraining recipes), with the
tokenizer beside it, and prints nearest neighbours and analogies.
"""

from dataclasses import dataclass, field

from toolkit import cli, config
from toolkit.data.text.corpus import CorpusConfig


@dataclass
class WordVectorsConfig:
    output_dir: str
    data_dir: str
    """Where corpus, tokenizer and token store are made once; runs may share it."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: str = "tokenizers/wordpiece-8k.yaml"
    methods: list[str] = field(default_factory=lambda: ["ppmi-svd"])
    """`ppmi-svd` (Levy et al. 2015), `skip-gram`, `cbow` (Mikolov et al. 2013)."""
    width: int = 128
    """Numbers a vector; a model that starts from them must be as wide."""
    words: list[str] = field(default_factory=lambda: ["sea", "king", "happy", "walked", "london"])
    """Nearest neighbours of these are printed."""
    analogies: list[str] = field(default_factory=lambda: [
        "man woman king queen", "he she him her", "boy girl son daughter", "good better bad worse", "see saw know knew",
        "go went come came", "day days year years", "father mother brother sister", "hand hands eye eyes",
        "husband wife uncle aunt", "large larger small smaller", "run ran speak spoke"])
    """a b c d: a is to b as c is to d. Counted as right when d is the closest word to b − a + c."""
    seed: int = 0


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(WordVectorsConfig, __doc__)

import time
from pathlib import Path

import numpy as np

from toolkit.data.stores.prepare import prepare
from toolkit.errors import UserError, did_you_mean
from toolkit.metrics.tabulate import table
from toolkit.models.word_vectors import METHODS, WordVectors, save_word2vec, train_word_vectors
from toolkit.publishing.card import LiveCard
from toolkit.report.ending import command, ending
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.shown import quoted
from toolkit.tokenization.load import ordinary_ids, save_tokenizer


def word_vectors(settings: WordVectorsConfig) -> dict:
    """Train by every method; returns what result.json holds."""
    for method in settings.methods:
        if method not in METHODS:
            raise UserError(f"methods: unknown method '{method}'.{did_you_mean(method, METHODS)}")
    quadruples = [analogy.split() for analogy in settings.analogies]
    if wrong := [analogy for analogy, words in zip(settings.analogies, quadruples, strict=True) if len(words) != 4]:
        raise UserError(f"analogies: '{wrong[0]}' must be four words: a b c d for “a is to b as c is to d”.")
    run = Run(settings.output_dir, observers=[LiveCard()]).open(settings)
    if run.result():
        return run.result()
    data = prepare(settings.corpus, settings.tokenizer, settings.data_dir, end_documents=False)
    run.write_manifest(data=data.facts())
    tokens = data.tokenizer.convert_ids_to_tokens(list(range(len(data.tokenizer))))
    ordinary = set(ordinary_ids(data.tokenizer).tolist())
    result = {}
    for method in settings.methods:
        began = time.perf_counter()
        trained = train_word_vectors(data.train, len(tokens), settings.width, method, settings.seed)
        seconds = time.perf_counter() - began
        # Entries with a blank in them would break the format, and some character tokenizers have one.
        kept = [index for index in np.flatnonzero(trained.any(1)) if index in ordinary and not tokens[index].split()[1:]
                and tokens[index].strip() == tokens[index]]
        vectors = WordVectors([tokens[index] for index in kept], trained[kept])
        save_word2vec(run.directory / f"{method}.txt", vectors)
        known = set(vectors.words)
        asked = [words for words in quadruples if known.issuperset(words)]
        answers = {" ".join(words): vectors.analogy(*words[:3]) for words in asked}
        right = sum(answers[" ".join(words)][0][0] == words[3] for words in asked)
        result[method] = {
            "vectors": len(kept), "seconds": round(seconds, 1),
            "neighbours": {word: vectors.nearest(word) for word in settings.words if word in known},
            "analogies": answers, "analogies_right": right, "analogies_asked": len(asked)}
    save_tokenizer(data.tokenizer, run.directory)
    return run.finish(result)


def show(result: dict) -> str:
    lines = []
    for method, facts in result.items():
        lines.append(f"{method}: {facts['vectors']:,} vectors in {facts['seconds']:.0f} s; analogies "
                     f"{facts['analogies_right']} of {facts['analogies_asked']}")
        lines.append(table([{"word": quoted(word), "nearest": _few(neighbours)}
                            for word, neighbours in facts["neighbours"].items()] or [{"word": "–", "nearest": ""}]))
        for analogy, answer in facts["analogies"].items():
            a, b, c, d = analogy.split()
            lines.append(f"  {a} : {b} = {c} : {quoted(answer[0][0])}" + ("" if answer[0][0] == d else f"   (not {d})"))
    return "\n".join(lines)


def _few(neighbours: list, columns: int = 64) -> str:
    """As many of the nearest, the nearest first, as a line of a terminal holds."""
    told = ""
    for near, cosine in neighbours:
        more = f"{told}, {quoted(near)} {cosine:.2f}".removeprefix(", ")
        if told and len(more) > columns:
            break
        told = more
    return told


def main(argv: list[str]) -> None:
    settings = config.parse(WordVectorsConfig, argv, __doc__)
    result = word_vectors(settings)
    print(show(result))
    write_report(settings.output_dir)
    method, facts = next(iter(result.items()), ("", {}))
    files = {f"vectors, {name}": Path(settings.output_dir) / f"{name}.txt" for name in result}
    start = files.get(f"vectors, {method}", "")
    print(ending(settings.output_dir,
                 command("make pretrain-bert", **{"model.embeddings": start, "output_dir": "runs/bert"}),
                 f"{method}: {facts['analogies_right']} of {facts['analogies_asked']} analogies right", **files))


if __name__ == "__main__":
    cli.run(main)
