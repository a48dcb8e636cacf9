"""Settings of the tasks; importing them takes no torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from toolkit.config import free
from toolkit.data.stores.settings import MaskingConfig, SeriesCorpusConfig
from toolkit.data.text.corpus import CorpusConfig
from toolkit.errors import UserError
from toolkit.models.settings import InitialValues, ObjectiveConfig
from toolkit.run.model_card import CardConfig
from toolkit.training.impl.settings import ImplConfig
from toolkit.training.settings import TrainingConfig


@dataclass
class PretrainingConfig(TrainingConfig):
    optimizer: Literal["adamw", "muon"] | None = None
    """`muon`: Muon (Jordan et al. 2024) for the matrices of the hidden layers, AdamW for everything else. Default: muon
    for small presets, adamw for those whose authors published a rate."""
    learning_rate: float | None = None
    """AdamW's, at its peak. Default: the preset's."""
    muon_learning_rate: float | None = None
    """Muon's, at its peak, on AdamW's scale (update root-mean-square 0.2, Liu et al. 2025). Default: the preset's."""
    weight_decay: float | None = None
    """Decoupled (Loshchilov & Hutter 2019); on matrices only. Default: 0.3 for small presets, which keeps weights small
    enough to be fine-tuned (docs/results/transfer.md), 0.1 for those with a published rate, as Brown et al. 2020."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "wsd", "one_cycle"] = "wsd"


@dataclass
class ProbeConfig:
    sets: dict = field(default_factory=dict)
    """Name → what the `data` section of finetune-text takes; empty: no probes."""
    labels: int = 400
    """Labelled examples of a probe."""
    draws: int = 3
    """Draws of them that are averaged."""


@dataclass
class BertModelSection(InitialValues):
    COMMON = ("preset",)

    preset: str = "bert-tiny"
    """A published size: bert-tiny, -mini, -small, -medium, -base, -large."""
    max_position_embeddings: int | None = None
    """Default: as many as a row has tokens; more would stay untrained."""
    segment_deviation: float = 0.2
    """Standard deviation of the two segment embeddings at the start, as large as a position; at transformers' 0.02
    attention cannot tell A from B, and next-sentence prediction starts late."""
    dropout: float = 0.0
    """Minutes of training never see a text often enough to overfit; raise it for many epochs."""


@dataclass
class PretrainBertConfig:
    output_dir: str
    """The run directory."""
    data_dir: str
    """Where corpus, tokenizer and token store are made once; runs may share it."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    init_from: str = ""
    """A model to go on from: a run, a model's directory or a hub id. Its size, tokenizer and weights are taken; `model`
    then says no more than the dropout. Empty: from scratch."""
    tokenizer: str = "tokenizers/wordpiece-8k.yaml"
    """A spec to train on the train split, or a trained tokenizer's directory or hub id."""
    model: BertModelSection = field(default_factory=BertModelSection)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    training: PretrainingConfig = field(default_factory=PretrainingConfig)
    eval_rows: int = 1024
    """Validation rows drawn, once and for all, for every evaluation."""
    probes: ProbeConfig = field(default_factory=ProbeConfig)
    """Labelled sets on which every evaluation measures what the frozen states are worth."""
    card: CardConfig = field(default_factory=CardConfig)
    seed: int = 0
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, prepare the data, tell what would be trained, how long and in how much memory, and end."""


@dataclass
class GptModelSection(InitialValues):
    COMMON = ("preset",)

    preset: str = "gpt-tiny"
    """A published size (gpt2, gpt2-medium, …) or one of ours of BERT's shapes: gpt-tiny, -mini, -small."""
    max_position_embeddings: int | None = None
    """Default: as many as a row has tokens; more would stay untrained."""
    dropout: float = 0.0
    """Minutes of training never see a text often enough to overfit; raise it for many epochs."""
    initializer_range: float = 0.02
    """Standard deviation of the other initial weights; 0.02 is GPT-2's, 0.05 suits a width of 128 in short runs."""


@dataclass
class PretrainGptConfig:
    output_dir: str
    """The run directory."""
    data_dir: str
    """Where corpus, tokenizer and token store are made once; runs may share it."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    series: SeriesCorpusConfig = field(default_factory=SeriesCorpusConfig)
    """Given series.sources, series are what is learned, and corpus is not read."""
    init_from: str = ""
    """A model to go on from: a run, a model's directory or a hub id. Its size, tokenizer and weights are taken; `model`
    then says no more than the dropout. Empty: from scratch."""
    tokenizer: str = "tokenizers/byte-level-bpe-4k.yaml"
    """A spec to train on the train split, or a trained tokenizer's directory or hub id; for series
    tokenizers/series-bins.yaml, or one like it."""
    model: GptModelSection = field(default_factory=GptModelSection)
    block_size: int = 128
    """Tokens a row sees at once."""
    attention_within_documents: bool = False
    """Keep attention, and the count of positions, inside each of the documents that share a row. Without it a row's
    later documents see the earlier ones, as in GPT-2."""
    training: PretrainingConfig = field(default_factory=PretrainingConfig)
    probes: ProbeConfig = field(default_factory=ProbeConfig)
    """Labelled sets on which every evaluation measures what the frozen states are worth."""
    card: CardConfig = field(default_factory=CardConfig)
    seed: int = 0
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, prepare the data, tell what would be trained, how long and in how much memory, and end."""


@dataclass
class MaskedPatchesConfig(TrainingConfig):
    COMMON = ("max_steps", "mask_ratio")

    max_steps: int | None = 300
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_ratio: float = 0.1
    lr_scheduler_type: Literal["linear", "cosine", "constant", "wsd", "one_cycle"] = "cosine"
    save_steps: int = 0
    """Checkpoint every so many steps; 0: only when interrupted."""
    mask_ratio: float = 0.4
    """Share of patches hidden (Nie et al. 2023, section 4.2)."""


@dataclass
class FineTuningConfig(TrainingConfig):
    COMMON = (*TrainingConfig.COMMON, "tuning")

    max_steps: int | None = 300
    """The budget in optimiser steps, however many labels there are. For another kind of budget in a file set this to
    null; on the command line the other one takes its place."""
    weight_decay: float = 0.05
    warmup_ratio: float = 0.1
    eval_steps: int = 30
    """Evaluate every so many steps, and keep the model that is best on validation; 0: only at the end."""
    save_steps: int = 0
    """Checkpoint every so many steps; 0: only when interrupted."""
    metric_for_best_model: Literal["auto", "accuracy", "f1", "loss"] = "auto"
    """What is best on validation. auto: accuracy for classes, f1 (micro) for several labels, else the loss. A few
    examples answered wrongly with confidence move the loss, and say little."""
    tuning: Literal["full", "head", "lora"] = "full"
    """What is trained: everything; the head alone, on a frozen encoder (Devlin et al. 2018, section 5.3); or the head
    and low-rank changes of the attention's maps (Hu et al. 2021), merged into the model that is saved."""
    lora_rank: int = 8
    """With tuning lora: the rank of each change (Hu et al. 2021, section 7.2: 8 is as good as 64)."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


@dataclass
class TaggingConfig(TrainingConfig):
    COMMON = (*TrainingConfig.COMMON, "tuning")

    max_steps: int | None = 1000
    """The budget in optimiser steps. For another kind of budget in a file set this to null; on the command line the
    other one takes its place."""
    batch_size: int = 32
    """Sentences of the global batch, of like length."""
    weight_decay: float = 0.05
    warmup_ratio: float = 0.1
    eval_steps: int = 100
    """Evaluate every so many steps, and keep the model that is best on validation: by F1 of spans, or where tags mark
    none by accuracy; 0: only at the end."""
    save_steps: int = 0
    """Checkpoint every so many steps; 0: only when interrupted."""
    tuning: Literal["full", "head", "lora"] = "full"
    """What is trained: everything; the head alone, on a frozen encoder; or the head and low-rank changes of the
    attention's maps (Hu et al. 2021), merged into the model that is saved."""
    lora_rank: int = 8
    constrained: bool = True
    """Answer with the likeliest tags of the whole sentence in which each span begins with B- (Viterbi 1967); false: the
    likeliest tag of each word by itself."""


@dataclass
class ThresholdConfig:
    aim: Literal["none", "f-beta", "recall", "precision", "cost"] = "none"
    """For two classes: the best F-beta; as few false alarms as a recall of `at_least` allows; as much recall as a
    precision of `at_least` allows; the lowest cost. none: the likelier class."""
    positive_label: str = ""
    """Of two classes the one whose probability is looked at. Default: the last."""
    beta: float = 1.0
    """How many times recall counts as much as precision (van Rijsbergen 1979)."""
    at_least: float = 0.95
    false_positive_cost: float = 1.0
    false_negative_cost: float = 1.0


@dataclass
class ForecastConfig(TrainingConfig):
    max_steps: int | None = 2000
    """The budget in optimiser steps. For another kind of budget set this to null."""
    weight_decay: float = 0.01
    eval_steps: int = 100
    """Evaluate every so many steps, and keep the model that is best on validation; 0: only at the end."""
    early_stopping_patience: int | None = 6
    """End after so many evaluations in a row without a better model."""
    save_steps: int = 0
    """Checkpoint every so many steps; 0: only when interrupted."""
    quantiles: list[float] = field(default_factory=lambda: [0.1, 0.5, 0.9])
    """Of the intervals around every forecast, from residuals on validation."""


@dataclass
class DecodingConfig:
    num_beams: int = 1
    """1: greedy. The paper takes 4."""
    length_penalty: float = 0.6
    """α of ((5 + n) / 6)^α, by which log probabilities are divided (Vaswani et al. 2017, section 6.1); 0: none."""
    temperature: float = 0.0
    """0: the likeliest. Above, answers are drawn (of one beam): at 1 from the model's probabilities, below from sharper
    ones, above from flatter ones, …"""
    top_p: float = 1.0
    """… among the likeliest tokens that together have this share (Holtzman et al. 2020), …"""
    seed: int = 0
    """… by this seed: the same texts in batches of the same size are answered the same."""
    max_new_tokens: int = 128
    """Of the longest answer."""

    def check_values(self, section: str = "decoding.") -> None:
        """UserError for a value that makes no sense."""
        for name in ("num_beams", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{section}{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.length_penalty < math.inf or not 0 <= self.temperature < math.inf:
            raise UserError(f"{section}length_penalty is {self.length_penalty}, temperature {self.temperature}; give "
                            f"numbers from 0 on.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"{section}top_p is {self.top_p}; give a share above 0, up to 1.")
        if self.temperature and self.num_beams > 1:
            raise UserError(f"{section}num_beams is {self.num_beams}, temperature {self.temperature}: beams look for "
                            f"the likeliest answer, a temperature draws one. Set num_beams to 1, or temperature to 0.")


@dataclass
class Seq2SeqTrainingConfig(TrainingConfig):
    batch_size: int = 128
    """Pairs of the global batch, of like length."""
    label_smoothing: float = 0.1
    """Share of the target's probability that is spread over the vocabulary (Szegedy et al. 2016; section 5.4 of the
    Transformer's paper). Losses that are evaluated are without it."""
    max_minutes: float | None = 2
    """The budget; two minutes of two cores are enough for dates, thirty for captions."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """Of the Transformer's layers: there it is far ahead in a short training; recurrent models have AdamW for all."""
    muon_learning_rate: float = 5e-3
    eval_steps: int = 200
    metric_for_best_model: Literal["accuracy", "loss"] = "accuracy"
    """What is best on validation: how many tokens are right when those before are given, or the loss."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)

    def check_values(self, section: str = "training.") -> None:
        super().check_values(section)
        self.decoding.check_values(f"{section}decoding.")
