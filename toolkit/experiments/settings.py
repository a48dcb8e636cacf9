"""Settings of the comparisons; importing them takes no torch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from toolkit.config import free
from toolkit.data.pairs.pair_files import ComparedPairsSection, PairsSection
from toolkit.data.series.augmentation import AugmentationConfig
from toolkit.data.series.generators import LABELLED
from toolkit.data.series.splits import SeriesDataSection
from toolkit.data.series.windows import ForecastDataSection
from toolkit.data.text.labelled import TextDataSection
from toolkit.models.settings import ObjectiveConfig, Pooling
from toolkit.run.model_card import CardConfig
from toolkit.tasks.settings import (
    FineTuningConfig,
    ForecastConfig,
    MaskedPatchesConfig,
    Seq2SeqTrainingConfig,
    ThresholdConfig,
)
from toolkit.training.impl.settings import ImplConfig

TRANSFORMERS = {"random": "random start", "random-frozen": "random start, all but norms and positions frozen",
                "text": "pretrained on text", "text-frozen": "pretrained on text, all but norms and positions frozen",
                "masked-patches": "pretrained on the training series by hidden patches",
                "no-attention": "random start, attention → identity, as many parameters"}
"""Arms of compare-series that are transformers → what they are."""
Start = Literal["random", "masked-patches", "pretrained", "pretrained-frozen", "random-frozen"]
STARTS: tuple[Start, ...] = get_args(Start)
WITHOUT_ATTENTION = ("identity", "uniform", "mixer", "flatten-mlp")
"""Arms of the FordA lab."""


@dataclass
class FinetuneTextConfig:
    output_dir: str
    models: dict
    """Name → checkpoint directory or hub id, for instance {bert: runs/bert-5min/model}."""
    data: TextDataSection = field(default_factory=TextDataSection)
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    pooling: Pooling = "layers"
    """What the head reads: the means over tokens of every layer's states side by side, the mean or maximum of the last
    layer's, or BERT's [CLS] (GPT's last token) in transformers' own class. For classes the head starts as logistic
    regression on what it reads (Kumar et al. 2022), but for [CLS], where it starts at random."""
    dropout: float = 0.3
    """Before the head; with pooling cls, inside the layers too."""
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    """Of two classes, from which probability on one is answered; chosen on validation, saved in the model's config."""
    seeds: int = 3
    """Repetitions with other labelled examples (where shots is set), head and order."""
    card: CardConfig = field(default_factory=CardConfig)
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, tell what would be trained, how long and in how much memory, and end."""


@dataclass
class CompareTextConfig:
    name: str
    """Of the data set, and of the files that are written."""
    models: dict
    """Name → checkpoint directory or hub id."""
    output_dir: str = "runs/compare-text"
    data: TextDataSection = field(default_factory=TextDataSection)
    arms: list[Literal["random", "frozen", "tuned", "lora"]] = field(
        default_factory=lambda: ["random", "frozen", "tuned"])
    """For each model. The first that a model has is what its other arms are held against."""
    labels: list[int | Literal["all"]] = field(default_factory=lambda: [50, 200, 1000, "all"])
    """How many labelled examples; a larger count of the same seed holds the smaller one's."""
    seeds: int = 5
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    pooling: Pooling = "layers"
    dropout: float = 0.3
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, tell what each arm would train, how long and in how much memory, and end."""


@dataclass
class TransferConfig:
    output_dir: str
    models: dict
    """Name → checkpoint directory or hub id."""
    sets: dict
    """Name → what the `data` section of finetune-text takes."""
    labels: list[int | Literal["all"]] = field(default_factory=lambda: [100, 400, 1600, "all"])
    """How many labelled examples; those of a seed are drawn from the training file, whatever their class."""
    seeds: int = 5
    quick: bool = False
    """Frozen probes and baselines only."""
    word_vectors: str = ""
    """A file of `make word-vectors`, whose averages are a baseline; its tokenizer lies beside it."""
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    pooling: Literal["layers", "mean", "max"] = "layers"
    dropout: float = 0.3
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, tell what each arm would train, how long and in how much memory, and end."""


@dataclass
class FinetuneSeriesConfig:
    output_dir: str
    models: dict
    """Name → checkpoint directory of a pretrained text model, for instance {bert: runs/demo/bert/model}, or of a model
    pretrained on series."""
    data: SeriesDataSection = field(default_factory=SeriesDataSection)
    patch_length: int = 16
    """Samples a patch; patches start every half of it. A model pretrained on series has its own."""
    baselines: list[Literal["logistic", "minirocket", "dtw"]] = field(default_factory=lambda: ["logistic"])
    """Beside the majority class: logistic regression on the values; MiniRocket and the nearest neighbour by dynamic
    time warping, through aeon."""
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    seeds: int = 3
    check_dead_branches: bool = True
    """Examine the first seed's pretrained models on validation series: which of their parts do something."""
    card: CardConfig = field(default_factory=CardConfig)
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, tell what would be trained, how long and in how much memory, and end."""


@dataclass
class CompareSeriesConfig:
    name: str = free("generated")
    """Of the files that are written."""
    output_dir: str = "runs/compare-series"
    archive: str = ""
    """Folder with a folder a set, <set>/<set>_TRAIN.tsv (.ts, .arff) and _TEST likewise, as the UCR archive's; empty:
    generated sets."""
    sets: list[str] = free(default_factory=lambda: list(LABELLED))
    """Folders of the archive, or generators."""
    published: str = free("")
    """A csv of published accuracies in percent to show beside: dataset, then a column a method."""
    preset: str = "bert-tiny"
    """Shape of the transformer where no text_model gives it."""
    text_model: str = ""
    """Directory or hub id of a BERT or GPT pretrained on text, for the arms text and text-frozen; and the shape of the
    others."""
    arms: list[str] = free(default_factory=lambda: [
        *TRANSFORMERS, "lstm", "bigru-additive", "mlp", "logistic", "minirocket", "dtw", "majority"])
    """Also rnn, gru, bilstm, and lstm-<score> for the scores of attention: additive, dot, scaled-dot, general,
    location, content."""
    patches: int = 48
    """Into which a series is cut, or a few more; what the length of a patch follows from."""
    head_dropout: float = 0.2
    recurrent_size: int = 64
    """Units of each direction of the recurrent arms."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    pretraining: MaskedPatchesConfig = field(default_factory=MaskedPatchesConfig)
    """Of masked-patches: on the training series, without their labels."""
    training: FineTuningConfig = field(default_factory=lambda: FineTuningConfig(
        max_steps=500, learning_rate=2e-3, lr_scheduler_type="cosine", weight_decay=0.05, warmup_ratio=0.1,
        eval_steps=0, objective=ObjectiveConfig(label_smoothing_factor=0.1)))
    """One recipe for every set and arm."""
    seeds: int = free(3)
    check_dead_branches: bool = free(True)
    """Examine the first seed's transformers of each set on training series."""
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, tell what each arm would train, how long and in how much memory, and end."""


@dataclass
class SeriesModelSection:
    """Fields of SeriesConfig, for all models."""

    COMMON = ("patch_length",)

    patch_length: int = 16
    patch_stride: int = 8
    channels: Literal["independent", "mixed"] = "independent"
    instance_norm: bool = True
    dropout: float = 0.0
    """In the backbone."""
    head_dropout: float = 0.5
    """Before the map from all patches to all of the horizon, which holds most parameters."""


@dataclass
class ForecastRecipeConfig:
    name: str = "mackey-glass"
    """Of the data set, and of the files that are written."""
    output_dir: str = "runs/forecast"
    data: ForecastDataSection = field(default_factory=ForecastDataSection)
    context_length: int = 336
    """Rows a forecast is made from."""
    horizons: list[int] = free(default_factory=lambda: [96])
    """Rows that are forecast; each is a comparison of its own."""
    linear: list[Literal["nlinear", "dlinear"]] = free(default_factory=lambda: ["nlinear", "dlinear"])
    models: dict = field(default_factory=dict)
    """Name → checkpoint directory or hub id of a pretrained BERT or GPT, or the fields of a BertConfig."""
    text_model: str = free("")
    """A checkpoint: one more of models, by the name of `text`."""
    starts: list[Start] = free(default_factory=lambda: list(STARTS))
    """Of each model: random values; pretrained on the train rows by hidden patches (Nie et al. 2023); the checkpoint,
    where it is one. Frozen: all but norms and positions (Zhou et al. 2023)."""
    series: SeriesModelSection = field(default_factory=SeriesModelSection)
    seeds: int = free(3)
    training: ForecastConfig = field(default_factory=ForecastConfig)
    pretraining: MaskedPatchesConfig = field(default_factory=MaskedPatchesConfig)
    """Of masked-patches."""
    arm_training: dict = field(default_factory=dict)
    """Arm → the keys of `training` that differ for it: {nlinear: {learning_rate: 0.02}}."""
    published: str = free("")
    """A csv of published errors to show beside: horizon, then columns named <model>_mse and <model>_mae."""
    check_dead_branches: bool = free(True)
    """Examine the first seed's transformers of each horizon on validation windows."""
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, tell what would be trained, how long and in how much memory, and end."""


@dataclass
class SweepConfig:
    output_dir: str
    pretraining: str
    """The config that every setting starts from."""
    settings: list[dict] = field(default_factory=list)
    """Each a dictionary of keys, as on the command line, and their values: {training.optimizer: adamw}."""
    seeds: int = 1
    dry_run: bool = free(False)
    """Check every input, prepare the data, tell what each setting would train, how long and in how much memory, and
    end."""


@dataclass
class FibonacciConfig:
    output_dir: str = "runs/fibonacci"
    numbers: int = 1200
    """Length of the series, as in the lecture."""
    window: int = 20
    """Values the next one is told from."""
    training: FineTuningConfig = field(default_factory=lambda: FineTuningConfig(
        max_steps=1000, batch_size=64, learning_rate=3e-2, weight_decay=0.0, logging_steps=100, eval_steps=50))
    """Of the rates 0.01, 0.03 and 0.1, 0.03 was best on validation for each model."""
    seeds: int = 5
    impl: ImplConfig = field(default_factory=lambda: ImplConfig(dtype="fp32"))
    dry_run: bool = free(False)
    """Check every input, tell what each arm would train, how long and in how much memory, and end."""


@dataclass
class FordaLabConfig:
    output_dir: str = "runs/forda-lab"
    forda: str = ""
    """Folder with FordA_TRAIN and FordA_TEST as .ts, .tsv or .arff, in place of `data`."""
    data: SeriesDataSection = field(default_factory=SeriesDataSection)
    """Series of one channel; without files and generator noisy sines."""
    arms: list[Literal["full", "identity", "uniform", "mixer", "no-positions", "flatten-mlp", "minirocket"]] = field(
        default_factory=lambda: ["full", *WITHOUT_ATTENTION, "no-positions", "minirocket"])
    """`full` is what the others are held against."""
    seeds: int = 5
    keras_seeds: int = 1
    """Of the Keras example, which takes longest by far: its attention compares every value with every other. 0: it is
    left out, and only its number of parameters stays."""
    patch_length: int = 16
    width: int = 48
    """Of the transformer; its feed-forward layers take what the budget leaves."""
    num_layers: int = 2
    num_heads: int = 4
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    check_dead_branches: bool = True
    """Examine the first seed's models on validation series."""
    impl: ImplConfig = field(default_factory=lambda: ImplConfig(dtype="fp32"))
    dry_run: bool = free(False)
    """Check every input, tell what each arm would train, how long and in how much memory, and end."""


@dataclass
class Seq2SeqModelSection:
    architecture: Literal["transformer-micro", "transformer-tiny", "transformer-mini", "transformer-base",
                          "transformer-big", "rnn", "lstm", "gru", "lstm-keras-702030", "bert-gpt"] = "transformer-tiny"
    """A Transformer (Vaswani et al. 2017) of a size; recurrent cells; the shape of Keras's character example; or the
    models of `encoder` and `decoder`, joined (Rothe et al. 2020)."""
    dropout: float = 0.1
    attention: Literal["additive", "dot", "scaled-dot", "general", "location", "content", "positional", "uniform",
                       "none"] = "additive"
    """Recurrent: how states of the encoder are scored against the decoder's (toolkit/models/small/attention_scores.py);
    none: all that the decoder knows of the source is the state it starts in."""
    embedding_size: int = 256
    """Recurrent: width of the words' vectors, …"""
    hidden_size: int = 512
    """… of the states of the encoder, in each direction, and of the decoder, …"""
    num_hidden_layers: int = 1
    """… and layers of both."""
    bidirectional: bool = True
    """Recurrent: an encoder that reads from both ends."""
    encoder: str = ""
    """bert-gpt: a BERT that reads sources, a run, directory or hub id; its tokenizer reads them."""
    decoder: str = ""
    """bert-gpt: a GPT that writes targets, with its tokenizer."""
    pretrained: bool = True
    """bert-gpt: from their weights; false: the same shapes from random weights."""


@dataclass
class FinetuneSeq2SeqConfig:
    output_dir: str = "runs/seq2seq"
    data: PairsSection = field(default_factory=PairsSection)
    tokenizer: str = ""
    """A spec to train on both sides of the training pairs, or a trained tokenizer's directory or hub id. Empty:
    tokenizers/bpe-8k.yaml; for built-in dates tokenizers/words-and-digits.yaml, for letters characters.yaml there."""
    target_tokenizer: str = ""
    """One of the targets' own; empty: the same for both sides."""
    model: Seq2SeqModelSection = field(default_factory=Seq2SeqModelSection)
    training: Seq2SeqTrainingConfig = field(default_factory=Seq2SeqTrainingConfig)
    seeds: int = 1
    """Repetitions with other initial values and order; 3 or more give an interval."""
    card: CardConfig = field(default_factory=CardConfig)
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = free(False)
    """Check every input, tell what would be trained, how long and in how much memory, and end."""


@dataclass
class CompareSeq2SeqConfig(FinetuneSeq2SeqConfig):
    output_dir: str = "runs/compare-seq2seq"
    data: ComparedPairsSection = field(default_factory=ComparedPairsSection)
    arms: dict = field(default_factory=lambda: {
        "transformer": {"architecture": "transformer-tiny"},
        "gru, attention": {"architecture": "gru", "attention": "additive"},
        "gru, no attention": {"architecture": "gru", "attention": "none"}})
    """Name → keys of `model` in which an arm differs, and, under `training`, of training. An arm with attention is
    compared with its like that has none, a pretrained one with the same from random weights."""
    seeds: int = 3
