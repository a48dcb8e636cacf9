"""Arms of sequence to sequence: tokenizers and models from their settings, scores by length, verdicts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit.analysis.alignment import NoAttention, text_alignment
from toolkit.config import from_dict
from toolkit.data.pairs.batches import PairBatches, TokenIds
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.errors import UserError
from toolkit.experiments.results import values
from toolkit.experiments.settings import FinetuneSeq2SeqConfig, Seq2SeqModelSection
from toolkit.inference.written_answers import open_writer
from toolkit.metrics.intervals import paired_difference, verdict
from toolkit.models.load import load_checkpoint_tokenizer
from toolkit.models.seq2seq.joined import new_joined
from toolkit.models.seq2seq.recurrent import RecurrentForSeq2Seq, RecurrentSeq2SeqConfig
from toolkit.models.seq2seq.transformer import new_transformer, transformer_config
from toolkit.run.directory import Run
from toolkit.run.files import read_json, write_json
from toolkit.run.results import Row
from toolkit.run.schema import WrittenAnswer
from toolkit.tasks.seq2seq import Seq2Seq, Seq2SeqTrainingConfig, source_length, telling_metric, train_seq2seq
from toolkit.tokenization.load import load_tokenizer, save_tokenizer
from toolkit.tokenization.train import is_spec, read_spec, train_tokenizer
from toolkit.training.dry_run import dry_run
from toolkit.training.impl.settings import ImplConfig

METRICS = ("bleu", "chrf", "exact_match", "character_error_rate", "loss")
"""Of an arm, over seeds."""
KERAS = {"cell": "lstm", "embedding_size": None, "hidden_size": 256, "attention": None, "bidirectional": False}
"""The shape of Keras's character example, lstm_seq2seq: one-hot letters, LSTMs of 256."""


@dataclass(frozen=True)
class Sides:
    """The tokenizers of sources and targets, and their tokens."""

    source: PreTrainedTokenizerBase
    target: PreTrainedTokenizerBase
    ids: tuple[TokenIds, TokenIds]

    @property
    def is_shared(self) -> bool:
        return self.source is self.target

    def batches(self, pairs: TextPairs, settings: FinetuneSeq2SeqConfig, seed: int, is_training: bool = False
                ) -> PairBatches:
        limits = settings.data.max_source_length, settings.data.max_target_length
        return PairBatches(pairs, self.source, self.target, self.ids, limits, settings.training.batch_size, seed,
                           is_training)


def tokenizers_of(settings: FinetuneSeq2SeqConfig, train: TextPairs, model: Seq2SeqModelSection, run: Run,
                  note: Callable[[str], None]) -> Sides:
    """Trained on the training pairs once a run, or those that are named, or those of the models that are joined."""
    if model.architecture == "bert-gpt":
        for role in ("encoder", "decoder"):
            if not getattr(model, role):
                raise UserError(f"model.{role} is empty; with model.architecture bert-gpt name a checkpoint, such as "
                                f"runs/demo/{'bert' if role == 'encoder' else 'gpt'}/model.")
        both = load_checkpoint_tokenizer(model.encoder), load_checkpoint_tokenizer(model.decoder)
        return Sides(*both, (TokenIds.of(both[0], model.encoder), TokenIds.of(both[1], model.decoder)))
    name = settings.tokenizer or f"tokenizers/{'bpe-8k' if settings.data.train else 'characters'}.yaml"
    own = [train.sources] if settings.target_tokenizer else [train.sources + train.targets]
    if settings.target_tokenizer:
        own.append(train.targets)
    made = [_tokenizer(of, texts, run, f"tokenizer-{place}", note) for place, (of, texts) in enumerate(zip(
        [name, settings.target_tokenizer][:len(own)], own, strict=True))]
    source, target = made[0], made[-1]
    return Sides(source, target, (TokenIds.of(source, name), TokenIds.of(target, settings.target_tokenizer or name)))


def _tokenizer(name: str, texts: list[str], run: Run, folder: str, note: Callable[[str], None]
               ) -> PreTrainedTokenizerBase:
    if not is_spec(name):
        return load_tokenizer(name)
    directory = run.directory / folder
    if not (directory / "tokenizer.json").exists() and run.is_main:
        save_tokenizer(train_tokenizer(read_spec(name), texts, name, False, texts[:1000], note), directory)
    return load_tokenizer(str(directory))


def new_model(model: Seq2SeqModelSection, sides: Sides, data_limits: tuple[int, int]) -> PreTrainedModel:
    """data_limits: tokens of the longest source and target."""
    ids = sides.ids[1]
    tokens = {"pad_token_id": ids.pad, "eos_token_id": ids.end, "decoder_start_token_id": ids.start}
    sizes = {"vocab_size": len(sides.source), "decoder_vocab_size": None if sides.is_shared else len(sides.target)}
    if model.architecture == "bert-gpt":
        return new_joined(model.encoder, model.decoder, ids, model.dropout, model.pretrained)
    if model.architecture.startswith("transformer"):
        return new_transformer(transformer_config(model.architecture, dropout=model.dropout, **sizes, **tokens,
                                                  max_position_embeddings=max(data_limits)))
    shape = {"cell": model.architecture, "embedding_size": model.embedding_size, "hidden_size": model.hidden_size,
             "num_hidden_layers": model.num_hidden_layers, "bidirectional": model.bidirectional,
             "attention": None if model.attention == "none" else model.attention}
    if model.architecture == "lstm-keras-702030":
        shape = KERAS
    return RecurrentForSeq2Seq(RecurrentSeq2SeqConfig(**sizes, **tokens, **shape, dropout=model.dropout,
                                                      max_position_embeddings=max(data_limits)))


def arms_of(settings: FinetuneSeq2SeqConfig, arms: dict[str, dict]) -> dict[str, Seq2SeqModelSection]:
    """Each arm's `model`, from the settings' own and the keys in which it differs."""
    return {name: from_dict(Seq2SeqModelSection, {**vars(settings.model), **changes}, f"arms.{name}")
            for name, changes in arms.items()}


def reference_of(name: str, arms: dict[str, Seq2SeqModelSection]) -> str:
    """The arm that differs in its attention, or in its start, alone: what this arm is compared with; else nothing."""
    own = arms[name]
    for other, model in arms.items():
        without = model.attention == "none" and own.attention != "none" and replace(own, attention="none") == model
        random = own.pretrained and not model.pretrained and replace(own, pretrained=False) == model
        if without or random:
            return other
    return ""


@dataclass(frozen=True)
class Translating:
    """A fit of the grid."""

    make_model: Callable[[], PreTrainedModel]
    batches: tuple[PairBatches, PairBatches, PairBatches]
    config: Seq2SeqTrainingConfig
    impl: ImplConfig
    sides: Sides
    keep_model: bool

    def __call__(self, run: Run, accelerator: Accelerator, seed: int, title: str) -> dict:
        return train_seq2seq(self.make_model, *self.batches, self.config, self.impl, run, accelerator, seed, title,
                             (self.sides.source, self.sides.target), self.keep_model)

    def tell(self, run: Run, accelerator: Accelerator) -> None:
        learning = Seq2Seq(self.make_model(), *self.batches[:2], self.config, (self.sides.source, self.sides.target))
        dry_run(learning, self.config, self.impl, run, accelerator)


def training_of(model: Seq2SeqModelSection, sides: Sides, parts: Sequence[TextPairs], settings: FinetuneSeq2SeqConfig,
                seed: int) -> Translating:
    limits = settings.data.max_source_length, settings.data.max_target_length
    batches = tuple(sides.batches(part, settings, seed, number == 0) for number, part in enumerate(parts))
    return Translating(partial(new_model, model, sides, limits), batches, settings.training, settings.impl, sides,
                       seed == 0)


SCORES = ["arm", "BLEU", "chrF", "exact match", "character error rate", "nats per token"]
"""Columns of `score_rows`."""


def score_rows(arms: dict[str, dict], copied: dict[str, float]) -> list[dict[str, str]]:
    """A row an arm, for tables; arms: name → metric → `results.summary`; copied: scores of the sources themselves."""
    def of(entry: dict | float, share: bool = False) -> str:
        entry = entry if isinstance(entry, dict) else {"mean": entry, "ci95": None}
        factor, digits = (100, 1) if share else (1, 2)
        half = "" if entry["ci95"] is None else f" ± {factor * entry['ci95']:.{digits}f}"
        return f"{factor * entry['mean']:.{digits}f}{half}" + " %" * share

    rows = []
    for name, entry in {**arms, "copy of the source": copied}.items():
        rows.append({"arm": name, "BLEU": of(entry["bleu"]), "chrF": of(entry["chrf"]),
                     "exact match": of(entry["exact_match"], True),
                     "character error rate": of(entry["character_error_rate"], True),
                     "nats per token": of(entry["loss"]) if "loss" in entry else ""})
    return rows


def verdict_between(rows: Sequence[Row], reference: Sequence[Row], metric: str) -> str:
    """The difference over seeds in words; in points of BLEU, or of percent."""
    factor = _POINTS[metric]
    gain = paired_difference(*([factor * value for value in values(those, metric)] for those in (rows, reference)))
    return verdict(gain, _WHAT[metric], "points")


def length_verdict(rows: Sequence[Row], reference: Sequence[Row], metric: str) -> str:
    """From which length of the source on the arm is ahead by more than its interval over seeds, in words."""
    factor, groups = _POINTS[metric], rows[0].by_length
    gains = [paired_difference(*([factor * row.by_length[number]["value"] for row in those]
                                 for those in (rows, reference))) for number in range(len(groups))]
    told = [f"{group['shortest']}–{group['longest']}: {gain.mean:+.1f}"
            for group, gain in zip(groups, gains, strict=True)]
    by = "; by length of the source, " + ", ".join(told)
    if gains[0].n < 2:
        return f"Of one seed, no interval is known{by}."
    sure = [gain.mean - gain.ci95 > 0 for gain in gains]
    first = next((number for number in range(len(sure)) if all(sure[number:])), None)
    if first is None:
        return f"At the longest sources it is not ahead by more than its interval{by}."
    where = "at every length" if first == 0 else f"from length {groups[first]['shortest']} on"
    return f"It is ahead by more than its interval {where}{by}."


ALIGNED = 3
"""Test pairs of which is kept where a model looked."""
_SEEN_WHOLE = {"bleu": 12, "exact_match": 20}
"""Words, or characters, of a source whose map is a picture that can be read."""


def write_alignments(run: Run, rows: Sequence[Row]) -> None:
    """Of each kept model with attention where it looked to write its answers to some test pairs: alignments.json."""
    for row in rows:
        part = run.part(row.run) if row.run else run
        path = part.directory / "alignments.json"
        if not run.is_main or not row.run or not part.model_dir.is_dir() or path.exists():
            continue
        writer = open_writer(part.model_dir)
        answers = read_json(part.directory / "predictions.json", list[WrittenAnswer])
        metric = telling_metric([answer["target"] for answer in answers])
        answers = [answer for answer in answers if not writer.batches([answer["source"]], [""]).cut]
        answers.sort(key=lambda answer: abs(source_length(answer["source"], metric) - _SEEN_WHOLE[metric]))
        try:
            maps = [text_alignment(writer, answer["source"]) for answer in answers[:ALIGNED]]
        except NoAttention:
            continue
        write_json(path, [{"source": answer["source"], "target": answer["target"], "read": list(of.labels),
                           "written": list(of.readers), "weights": of.weights.mean((0, 1)).round(4).tolist()}
                          for answer, of in zip(answers, maps, strict=False)])


_POINTS = {"bleu": 1.0, "exact_match": 100.0}
_WHAT = {"bleu": "BLEU", "exact_match": "exact match"}
