"""Arms of sequence to sequence: tokenizers and models from their settings, scores by length, verdicts."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit.analysis.alignment import NoAttention, text_alignment
from toolkit.config import from_dict
from toolkit.data.pairs.batches import PairBatches, TokenIds
from toolkit.data.pairs.pair_files import PairParts
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.errors import UserError
from toolkit.experiments.results import summary, values
from toolkit.experiments.settings import FinetuneSeq2SeqConfig, Seq2SeqModelSection
from toolkit.inference.written_answers import open_writer
from toolkit.metrics.intervals import paired_difference, verdict
from toolkit.models.load import load_checkpoint_tokenizer, pretrained_config
from toolkit.models.seq2seq.joined import new_joined
from toolkit.models.seq2seq.recurrent import RecurrentForSeq2Seq, RecurrentSeq2SeqConfig
from toolkit.models.seq2seq.transformer import new_transformer, transformer_config
from toolkit.run.directory import Run
from toolkit.run.files import read_json, write_json
from toolkit.run.results import Row
from toolkit.run.schema import LengthGroup, WrittenAnswer
from toolkit.tasks.seq2seq import Seq2Seq, Seq2SeqTrainingConfig, source_length, telling_metric, train_seq2seq
from toolkit.tokenization.load import load_tokenizer, save_tokenizer
from toolkit.tokenization.train import VocabularyTooLarge, is_spec, read_spec, train_tokenizer
from toolkit.training.dry_run import dry_run
from toolkit.training.impl.distributed import main_process_first
from toolkit.training.impl.settings import ImplConfig

METRICS = ("bleu", "chrf", "exact_match", "character_error_rate", "loss")
"""Of an arm, over seeds."""
TOKENIZERS = {"": "bpe-8k", "dates": "words-and-digits", "reversal": "characters"}
"""Specs by built-in set; "": of files."""
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

    def batches(self, pairs: TextPairs, settings: FinetuneSeq2SeqConfig, is_training: bool = False) -> PairBatches:
        """In the order of seed 0."""
        limits = settings.data.max_source_length, settings.data.max_target_length
        return PairBatches(pairs, self.source, self.target, self.ids, limits, settings.training.batch_size, 0,
                           is_training)


class Tokenised:
    """Train, validation and test of a set as batches, tokenised once however many arms and seeds read them."""

    def __init__(self, settings: FinetuneSeq2SeqConfig, parts: PairParts, run: Run, accelerator: Accelerator):
        self.settings, self.parts, self.run, self.accelerator = settings, parts, run, accelerator
        self._found: dict[tuple[str, str], tuple[Sides, list[PairBatches]]] = {}

    def of(self, model: Seq2SeqModelSection) -> tuple[Sides, list[PairBatches]]:
        """For joined models by their own tokenizers, else by the run's; what was cut or is unknown is told once."""
        key = (model.encoder, model.decoder) if model.architecture == "bert-gpt" else ("", "")
        if key not in self._found:
            with main_process_first(self.accelerator):
                sides = tokenizers_of(self.settings, self.parts[0], model, self.run, self.accelerator.print)
            batches = [sides.batches(part, self.settings, number == 0) for number, part in enumerate(self.parts)]
            for role, part in zip(("train", "validation", "test"), batches, strict=True):
                for line in part.notes(role):
                    self.accelerator.print(line)
            self._found[key] = sides, batches
        return self._found[key]


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
    name = settings.tokenizer or f"tokenizers/{TOKENIZERS['' if settings.data.train else settings.data.built_in]}.yaml"
    own = [train.sources] if settings.target_tokenizer else [train.sources + train.targets]
    if settings.target_tokenizer:
        own.append(train.targets)
    made = [_tokenizer(of, texts, run, f"tokenizer-{place}", note, chosen=bool(place or settings.tokenizer))
            for place, (of, texts) in enumerate(zip([name, settings.target_tokenizer][:len(own)], own, strict=True))]
    source, target = made[0], made[-1]
    _tell_of_lost_capitals(target, train.targets, note)
    return Sides(source, target, (TokenIds.of(source, name), TokenIds.of(target, settings.target_tokenizer or name)))


def _tell_of_lost_capitals(tokenizer: PreTrainedTokenizerBase, targets: list[str], note: Callable[[str], None]
                           ) -> None:
    """Where answers can have no capitals, and what they are held against has: scores then count case."""
    shown = next((text for text in targets if text != text.lower()), None)
    if shown is None:
        return
    written = tokenizer.decode(tokenizer(shown, add_special_tokens=False)["input_ids"])
    if written == written.lower():
        note("the tokenizer of targets lower-cases, and the targets have capitals: each counts as wrong in the scores. "
             "With data.lowercase true both are lower-cased")


def _tokenizer(name: str, texts: list[str], run: Run, folder: str, note: Callable[[str], None], chosen: bool
               ) -> PreTrainedTokenizerBase:
    """chosen: by the user; a spec that was not is made as large as the texts allow."""
    if not is_spec(name):
        return load_tokenizer(name)
    directory = run.directory / folder
    if not (directory / "tokenizer.json").exists():
        spec = read_spec(name)
        train = partial(train_tokenizer, texts=texts, where=name, progress=False, sample=texts[:1000], note=note)
        try:
            made = train(spec)
        except VocabularyTooLarge as error:
            if chosen:
                raise
            note(f"the pairs give {error.found:,} tokens, fewer than {name} has: that many are taken")
            made = train(replace(spec, vocab_size=error.found))
        if not run.is_main:  # a dry run keeps nothing; in others the main process was here first
            return made
        save_tokenizer(made, directory)
    return load_tokenizer(str(directory))


def new_model(model: Seq2SeqModelSection, sides: Sides, longest_source: int, longest_target: int) -> PreTrainedModel:
    """Of random weights, or joined from pretrained parts; the longest, in tokens, that it must read and write."""
    ids = sides.ids[1]
    tokens = {"pad_token_id": ids.pad, "eos_token_id": ids.end, "decoder_start_token_id": ids.start}
    sizes = {"vocab_size": len(sides.source), "decoder_vocab_size": None if sides.is_shared else len(sides.target)}
    if model.architecture == "bert-gpt":
        return new_joined(model.encoder, model.decoder, ids, model.dropout, model.pretrained)
    if model.architecture.startswith("transformer"):
        return new_transformer(transformer_config(model.architecture, dropout=model.dropout, **sizes, **tokens,
                                                  max_position_embeddings=max(longest_source, longest_target)))
    shape = {"cell": model.architecture, "embedding_size": model.embedding_size, "hidden_size": model.hidden_size,
             "num_hidden_layers": model.num_hidden_layers, "bidirectional": model.bidirectional,
             "attention": None if model.attention == "none" else model.attention}
    if model.architecture == "lstm-keras-702030":
        shape = KERAS
    return RecurrentForSeq2Seq(RecurrentSeq2SeqConfig(**sizes, **tokens, **shape, dropout=model.dropout,
                                                      max_position_embeddings=longest_source))


@dataclass(frozen=True)
class Arm:
    """What is trained, and how."""

    model: Seq2SeqModelSection
    training: Seq2SeqTrainingConfig


def arms_of(settings: FinetuneSeq2SeqConfig, arms: dict[str, dict]) -> dict[str, Arm]:
    """Each arm from the settings' own `model` and `training`, and the keys in which it differs."""
    made = {}
    for name, changes in arms.items():
        if not isinstance(changes, dict):
            raise UserError(f"arms.{name} is {changes!r}; give the keys of model in which it differs, or {{}}.")
        training = changes.get("training") or {}
        model = {key: value for key, value in changes.items() if key != "training"}
        made[name] = Arm(from_dict(Seq2SeqModelSection, {**vars(settings.model), **model}, f"arms.{name}"),
                         from_dict(Seq2SeqTrainingConfig, {**asdict(settings.training), **training},
                                   f"arms.{name}.training"))
        made[name].training.check_values(f"arms.{name}.training.")
    return made


def reference_of(name: str, arms: dict[str, Arm]) -> str:
    """The arm that differs in its attention, or in its start, alone: what this arm is compared with; else nothing."""
    own = arms[name]
    for other, arm in arms.items():
        without = arm.model.attention == "none" != own.model.attention and replace(
            own, model=replace(own.model, attention="none")) == arm
        random = own.model.pretrained and not arm.model.pretrained and replace(
            own, model=replace(own.model, pretrained=False)) == arm
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


def training_of(arm: Arm, tokenised: Tokenised, seed: int) -> Translating:
    settings, model = tokenised.settings, arm.model
    sides, (train, *asked) = tokenised.of(model)
    # Targets of validation and test are scored as they are, and answers may be longer than any.
    longest = max(arm.training.decoding.max_new_tokens, *(int(part.target_lengths.max()) for part in
                                                               (train, *asked)))
    if model.architecture == "bert-gpt":
        _check_positions(arm, train, longest)
    make_model = partial(new_model, model, sides, settings.data.max_source_length, longest)
    train = train.drawn_by(seed, arm.training.batch_size)
    return Translating(make_model, (train, *asked), arm.training, settings.impl, sides, seed == 0)


def _check_positions(arm: Arm, train: PairBatches, longest: int) -> None:
    """UserError where a joined model would be asked for more tokens than its parts have positions."""
    model = arm.model
    reads, writes = (pretrained_config(path).max_position_embeddings for path in (model.encoder, model.decoder))
    if train.max_source_length > reads:
        raise UserError(f"data.max_source_length is {train.max_source_length}, and {model.encoder} (model.encoder) "
                        f"reads {reads} tokens at most. Lower data.max_source_length to {reads}.")
    if longest > writes:
        asked = arm.training.decoding.max_new_tokens
        raise UserError(f"{model.decoder} (model.decoder) writes {writes} tokens at most, and {longest} are asked for: "
                        + (f"lower training.decoding.max_new_tokens to {writes}." if asked > writes else
                           "lower data.max_target_length, and leave longer targets out of validation and test."))


def summary_of(rows: Sequence[Row]) -> dict:
    """An arm of a set: each of `METRICS` over seeds, source tokens a second in training, and its parameters."""
    return {**{key: summary(values(rows, key)) for key in (*METRICS, "tokens_per_second")},
            "parameters": rows[0].parameters}


SCORES = ["arm", "BLEU", "chrF", "exact match", "character error rate", "nats per token", "parameters", "tokens/s"]
"""Columns of `score_rows`."""


def score_rows(arms: dict[str, dict], copied: dict[str, float]) -> list[dict[str, str]]:
    """A row an arm, for tables; arms: name → `summary_of`; copied: scores of the sources themselves."""
    def of(entry: dict | float, share: bool = False) -> str:
        entry = entry if isinstance(entry, dict) else {"mean": entry, "ci95": None}
        factor, digits = (100, 1) if share else (1, 2)
        half = "" if entry["ci95"] is None else f" ± {factor * entry['ci95']:.{digits}f}"
        return f"{factor * entry['mean']:.{digits}f}{half}" + " %" * share

    rows = []
    for name, entry in {**arms, "copy of the source": copied}.items():
        row = {"arm": name, "BLEU": of(entry["bleu"]), "chrF": of(entry["chrf"]),
               "exact match": of(entry["exact_match"], True),
               "character error rate": of(entry["character_error_rate"], True)}
        if entry is not copied:
            row |= {"nats per token": of(entry["loss"]), "parameters": f"{entry['parameters']:,}",
                    "tokens/s": f"{entry['tokens_per_second']['mean']:,.0f}"}
        rows.append({column: row.get(column, "") for column in SCORES})
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
    told = [f"{_span(group)}: {gain.mean:+.1f}" for group, gain in zip(groups, gains, strict=True)]
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


def _span(group: LengthGroup) -> str:
    shortest, longest = group["shortest"], group["longest"]
    return f"{shortest}" if shortest == longest else f"{shortest}–{longest}"


_POINTS = {"bleu": 1.0, "exact_match": 100.0}
_WHAT = {"bleu": "BLEU", "exact_match": "exact match"}
