"""How fast, and in how much memory, a corpus becomes batches: ratios of things run in turn, in one process tree.

    make bench-data                                        # ../shared/data/books, 77 MB; about ten minutes
    make bench-data ARGS="--corpus.sources '[my/texts]'"

Writes runs/bench-data/bench.json. Peak memory is the largest of any process of a preparation (the corpus, and the
store with its helpers), once for the corpus and once for the same ten times over; tokens a second are held against a
bare loop over `Tokenizer.encode_batch`; pairs against google-research/bert's algorithm in plain Python
(reference_pairs.py); batches against training BERT-Mini on one core.
"""

from dataclasses import dataclass, field

from toolkit import cli, config
from toolkit.data.text.corpus import CorpusConfig


@dataclass
class BenchDataConfig:
    output_dir: str = "runs/bench-data"
    corpus: CorpusConfig = field(default_factory=lambda: CorpusConfig(sources=["../shared/data/books"]))
    tokenizer: str = "tokenizers/wordpiece-8k.yaml"
    copies: int = 10
    """How many times over the corpus is given to see that memory stays flat."""
    rounds: int = 5
    """Times that the things compared are run in turn; the median ratio is reported."""
    characters: int = 80_000_000
    """Of the corpus, how much is tokenised in each round."""
    reference_tokens: int = 1_500_000
    """Of the store, how much the plain algorithm makes pairs of in each round."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(BenchDataConfig, __doc__)

import contextlib
import itertools
import multiprocessing
import os
import random
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from reference_pairs import create_instances
from scipy import stats

from toolkit.data.batches import IGNORED
from toolkit.data.stores.bert_batches import BertBatches
from toolkit.data.stores.prepare import prepare
from toolkit.data.stores.settings import MaskingConfig
from toolkit.data.stores.store import TokenStore, build_store
from toolkit.data.tables.sources import list_parts
from toolkit.data.text.corpus import read_documents, sentences
from toolkit.models.presets import model_config
from toolkit.models.text.bert import BertForPreTraining
from toolkit.report.ending import command, ending
from toolkit.run.files import write_json
from toolkit.run.provenance import environment
from toolkit.tokenization.load import load_tokenizer, plain_backend
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.precision import choose
from toolkit.training.impl.settings import ImplConfig


def bench_data(settings: BenchDataConfig) -> dict:
    """All measures; nothing is kept but bench.json and the data of the first preparation."""
    for source in settings.corpus.sources:
        list_parts(source)  # what cannot be read is said before anything is removed
    output = Path(settings.output_dir)
    for name in ("data", "copies", "store"):  # everything is made anew, or there would be nothing to measure
        shutil.rmtree(output / name, ignore_errors=True)
    result = {"environment": environment(), "sources": settings.corpus.sources}

    def report(**measures) -> None:
        result.update(measures)
        write_json(output / "bench.json", result)
        print(*(f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in measures.items()), sep="\n", flush=True)

    # Memory: a preparation in a process of its own, and everything that it starts.
    once = in_own_process(prepare_once, settings, output / "data", 1)
    report(corpus_mb=once["megabytes"], store_peak_rss_mb=once["peak_mb"], helper_peak_rss_mb=once["helper_peak_mb"])
    many = in_own_process(prepare_once, settings, output / "copies", settings.copies)
    shutil.rmtree(output / "copies")
    report(corpus_mb_10x=many["megabytes"], store_peak_rss_mb_10x=many["peak_mb"],
           helper_peak_rss_mb_10x=many["helper_peak_mb"])

    # Tokens: our store, sentences and files included, against a loop that does nothing but tokenise.
    stem = Path(settings.tokenizer).stem
    tokenizer = load_tokenizer(str(output / "data" / stem / "tokenizer"))
    part = part_of(output / "data/corpus/train.jsonl", output / "part.jsonl", settings.characters)
    units = [unit for document in read_documents(part) for unit in sentences(document.text)]
    report(**compare(settings.rounds, "tokens_per_s_over_bare",
                     lambda: store_tokens(part, tokenizer, output / "store"), lambda: bare_tokens(units, tokenizer)))
    shutil.rmtree(output / "store")
    part.unlink()

    # Seek: from nothing open to batch 1,000,000.
    directory = output / "data" / stem / "store/train"
    began = time.perf_counter()
    batches = BertBatches(TokenStore.open(directory), tokenizer, MaskingConfig(), 32, seed=0)
    batches.batch(1_000_000, range(32))
    report(seek_seconds=time.perf_counter() - began)

    # Pairs: the same documents, the same lengths, one process, one thread each.
    store = TokenStore.open(directory)
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    documents = list(itertools.islice(word_pieces(store, vocabulary, settings.reference_tokens), 10_000))
    masking = MaskingConfig(short_seq_prob=0.1)
    plain: list[dict] = []

    def plain_pairs() -> float:
        plain[:] = create_instances(documents, vocabulary, 128, masking.short_seq_prob, masking.mlm_probability,
                                    masking.predictions_per_row(), False, random.Random(len(plain)))
        return len(plain)

    ours = BertBatches(store, tokenizer, masking, 4096, seed=0)
    pairs(ours, 5)
    report(**compare(settings.rounds, "pairs_over_reference", lambda: pairs(ours, 100), plain_pairs))
    report(**distributions(ours.batch(0, range(4096)), {name: np.stack([row[name] for row in plain])
                                                        for name in plain[0]}, tokenizer.mask_token_id))

    # Batches: as a training run draws them, against that training, on one core.
    torch.set_num_threads(1)
    step = training_step(tokenizer, BertBatches(store, tokenizer, MaskingConfig(), 32, seed=0))
    small = BertBatches(store, tokenizer, MaskingConfig(), 32, seed=0)
    report(**compare(settings.rounds, "batches_over_training", lambda: pairs(small, 200), lambda: step(4)))
    return result


def compare(rounds: int, name: str, ours: Callable[[], float], other: Callable[[], float]) -> dict[str, float]:
    """The median over rounds of the ratio of units a second; both are run in turn, so that a slow minute hits both."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, found in zip((ours, other), speeds, strict=True):
            began = time.perf_counter()
            units = work()
            found.append(units / (time.perf_counter() - began))
    ratios = [one / other for one, other in zip(*speeds, strict=True)]
    return {name: statistics.median(ratios), f"{name}_rounds": ratios,
            f"{name}_per_second": [statistics.median(found) for found in speeds]}


# --- memory -------------------------------------------------------------------------------------------------------


def in_own_process(work: Callable, *arguments) -> dict:
    """`work(*arguments)` in a fresh process; adds `peak_mb`, of that process or any that it starts, and
    `helper_peak_mb`, of the latter alone.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        raise SystemExit(f"the preparation failed with status {process.exitcode}") from None
    process.join()
    return result


def _measured(sender, work: Callable, arguments: tuple) -> None:
    peaks, finished = {"own": 0, "helper": 0}, threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not finished.wait(0.02):
            for kind, processes in (("own", [me]), ("helper", me.children(recursive=True))):
                for process in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        peaks[kind] = max(peaks[kind], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = work(*arguments)
    finally:
        finished.set()
        watcher.join()
    sender.send({**result, "peak_mb": max(peaks.values()) / 1e6, "helper_peak_mb": peaks["helper"] / 1e6})


def prepare_once(settings: BenchDataConfig, directory: Path, copies: int) -> dict:
    corpus = replace(settings.corpus, sources=settings.corpus.sources * copies, deduplicate=copies == 1)
    data = prepare(corpus, settings.tokenizer, directory, end_documents=False)
    return {"megabytes": sum(split["bytes"] for split in data.corpus["splits"].values()) / 1e6}


# --- tokens -------------------------------------------------------------------------------------------------------


def part_of(text: Path, target: Path, characters: int) -> Path:
    with open(text, encoding="utf-8") as source, open(target, "w", encoding="utf-8") as file:
        for line in source:
            file.write(line)
            characters -= len(line)
            if characters < 0:
                break
    return target


def store_tokens(text: Path, tokenizer, directory: Path) -> float:
    shutil.rmtree(directory, ignore_errors=True)
    return build_store(text, tokenizer, directory, progress=False).num_tokens


def bare_tokens(units: list[str], tokenizer) -> float:
    """`encode_batch` with the library's own threads, over sentences that were read and cut beforehand."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    backend = plain_backend(tokenizer)
    return sum(len(encoding) for start in range(0, len(units), 10_000)
               for encoding in backend.encode_batch(units[start:start + 10_000], add_special_tokens=False))


# --- pairs and batches --------------------------------------------------------------------------------------------


def word_pieces(store: TokenStore, vocabulary: list[str], tokens: int) -> Iterator[list[list[str]]]:
    """Documents of the store as sentences of word pieces, until they have so many tokens."""
    starts = store.sentence_offsets
    for first, last in itertools.pairwise(store.document_offsets):
        yield [[vocabulary[token] for token in store.ids[starts[sentence]:starts[sentence + 1]]]
               for sentence in range(first, last)]
        tokens -= int(starts[last] - starts[first])
        if tokens < 0:
            return


def pairs(batches: BertBatches, steps: int) -> float:
    for step in range(steps):
        batches.batch(step, range(batches.batch_size))
    return steps * batches.batch_size


def distributions(ours: dict[str, np.ndarray], plain: dict[str, np.ndarray], mask_id: int) -> dict[str, float]:
    """Kolmogorov-Smirnov distances of lengths, shares of negatives and of masks, of both."""
    facts = []
    for batch in (ours, plain):
        length, second = batch["attention_mask"].sum(1), batch["token_type_ids"].sum(1) - 1
        used = batch["masked_labels"] != IGNORED
        found = np.take_along_axis(batch["input_ids"], batch["masked_positions"], 1)
        facts.append({"length": length, "length_a": length - second - 3, "length_b": second,
                      "negatives": batch["next_sentence_label"].mean(),
                      "predicted": used.sum() / (length - 3).sum(), "masked": (found[used] == mask_id).mean(),
                      "kept": (found == batch["masked_labels"])[used].mean()})
    return {**{f"ks_{name}": float(stats.ks_2samp(facts[0][name], facts[1][name]).statistic)
               for name in ("length", "length_a", "length_b")},
            **{f"share_{name}": [float(fact[name]) for fact in facts]
               for name in ("negatives", "predicted", "masked", "kept")}}


def training_step(tokenizer, batches: BertBatches) -> Callable[[int], float]:
    """A plain loop over BERT-Mini with what a run would choose on this device; batches are drawn beforehand."""
    device = torch.device("cpu")
    precision = choose(ImplConfig(), device)
    model = BertForPreTraining(model_config("bert-mini", vocab_size=len(tokenizer)))
    model.set_attn_implementation(precision.attention)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    batch = to_device(as_tensors(batches.batch(0, range(batches.batch_size))), device)

    def steps(count: int) -> float:
        for _ in range(count):
            with precision.autocast():
                sums = model(**batch)
            (sums["mlm"] + sums["nsp"]).backward()
            optimizer.step()
            optimizer.zero_grad()
        return count * batches.batch_size

    steps(1)
    return steps


def main(argv: list[str]) -> None:
    settings = config.parse(BenchDataConfig, argv, __doc__)
    result = bench_data(settings)
    answer = (f"tokens {result['tokens_per_s_over_bare']:.2f} × a bare loop's; pairs "
              f"{result['pairs_over_reference']:.1f} × the plain algorithm's; batches "
              f"{result['batches_over_training']:.0f} × as fast as a training takes them")
    print(ending(settings.output_dir, command("make bench"), answer, results=f"{settings.output_dir}/bench.json"))


if __name__ == "__main__":
    cli.run(main)
