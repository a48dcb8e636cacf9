"""scikit-learn's estimators over the toolkit's own fits: for `cross_val_score`, `Pipeline` and `GridSearchCV`.

    TextClassifier("runs/demo/bert/model").fit(texts, labels).predict(["Returns the mean."])
    cross_val_score(SeriesClassifier(), values, labels)
    SeriesForecaster(horizon=24).fit(table).predict()

A fit is the one that `finetune-text` and `compare-series` make, and an answer is computed as they score it. What a
training says meanwhile is kept in `log_`. The global random state is left as it was.
"""

import contextlib
import io
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from transformers import PreTrainedModel

from toolkit.analysis.probes import new_text_classifier
from toolkit.bars import hidden
from toolkit.data.batches import LabelledBatches
from toolkit.data.series.augmentation import AugmentedBatches
from toolkit.data.series.dataset import SeriesBatches, SeriesDataset, learned_from
from toolkit.data.series.learned import Learned
from toolkit.data.series.windows import ForecastData, WindowBatches, scaled_values, standardised
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText, split_off
from toolkit.data.text.labelled import LongTexts
from toolkit.data.text.text_input import TextInput, save_with_input
from toolkit.experiments.forecasts import LINEAR, Arm, ForecastRecipeConfig
from toolkit.experiments.forecasts import new_model as new_forecaster
from toolkit.experiments.series import CompareSeriesConfig, LabelledSet, new_model, patch_length_of
from toolkit.inference.answers import asking
from toolkit.models.load import load_checkpoint_tokenizer, pretrained_config
from toolkit.models.losses import probabilities
from toolkit.models.text.classifier import Pooling
from toolkit.pretrained import save_model, saved_model
from toolkit.run.directory import Run
from toolkit.tasks.base import fit
from toolkit.tasks.classification import FineTuning, FineTuningConfig
from toolkit.tasks.forecasting import ForecastConfig, ForecastingTask, as_forecaster, errors, predicted
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, exact
from toolkit.training.task import Task, TrainingConfig


class _Classifier(ClassifierMixin, BaseEstimator):
    """Labels ↔ class numbers, and answers; a subclass makes batches and models of what it is given."""

    def _numbered(self, y: Any) -> np.ndarray:
        """(n,) labels as class numbers, int64; sets `classes_`."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} needs examples of 2 classes or more; all {len(labels):,} are of "
                             f"one class, {self.classes_[0]!r}")
        return labels.astype(np.int64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, classes) probabilities, in the order of `classes_`."""
        check_is_fitted(self)
        return probabilities("classification", asking(self.model_)(self._batches(X)))

    def predict(self, X: Any) -> np.ndarray:
        """(n,) the likeliest of `classes_` for each."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def _batches(self, X: Any) -> LabelledBatches:
        raise NotImplementedError


class TextClassifier(_Classifier):
    """A pretrained BERT or GPT fine-tuned on labelled texts, as `finetune-text` does.

    X: texts, or pairs of texts: two columns, or a sequence of tuples. A share of each class, `validation_share`,
    decides which step's model is kept.
    """

    def __init__(self, model: str, *, pooling: Pooling = "layers", max_length: int = 256,
                 long_texts: LongTexts = "windows", dropout: float = 0.3, max_steps: int = 300, batch_size: int = 32,
                 learning_rate: float = FineTuningConfig.learning_rate,
                 weight_decay: float = FineTuningConfig.weight_decay,
                 tuning: Literal["full", "head", "lora"] = "full", validation_share: float = 0.1, random_state: int = 0,
                 verbose: bool = False):
        """model: directory of a checkpoint, or its hub id; the rest as the fields of finetune-text's configuration."""
        self.model, self.pooling, self.max_length, self.long_texts = model, pooling, max_length, long_texts
        self.dropout, self.max_steps, self.batch_size = dropout, max_steps, batch_size
        self.learning_rate, self.weight_decay, self.tuning = learning_rate, weight_decay, tuning
        self.validation_share, self.random_state, self.verbose = validation_share, random_state, verbose

    def fit(self, X: Any, y: Any) -> "TextClassifier":
        labels = self._numbered(y)
        texts, pairs = texts_of(X)
        check_consistent_length(texts, labels)
        names = tuple(str(name) for name in self.classes_)
        train, validation = split_off(LabelledText(texts, labels, names, pairs), self.validation_share)
        if not len(validation):
            raise ValueError("no class has two examples, so none can be held out to choose the model by")
        self.takes_pairs_ = pairs is not None
        self.tokenizer_ = load_checkpoint_tokenizer(self.model)
        positions = pretrained_config(self.model).max_position_embeddings
        batches = [TextBatches(part, self.tokenizer_, self.max_length, self.batch_size, self.random_state,
                               self.long_texts, positions) for part in (train, validation)]
        config = FineTuningConfig(max_steps=self.max_steps, batch_size=self.batch_size, tuning=self.tuning,
                                  learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        accelerator = make_accelerator()

        def make() -> FineTuning:
            model = new_text_classifier(self.model, names, self.tokenizer_, batches[0], accelerator, ImplConfig(), True,
                                        self.pooling, self.dropout)
            return FineTuning(model, *batches, config, self.tokenizer_)

        self.model_, self.log_ = trained(make, config, self.random_state, "TextClassifier", self.verbose)
        return self

    def save_pretrained(self, directory: str | Path) -> None:
        """Model and tokenizer in Hugging Face's format, as `make predict` takes them."""
        check_is_fitted(self)
        save_model(self.model_, directory)
        save_with_input(self.tokenizer_, self._input(), Path(directory))

    def _batches(self, X: Any) -> TextBatches:
        texts, pairs = texts_of(X)
        if (pairs is not None) != self.takes_pairs_:
            raise ValueError(f"X holds {'pairs of texts' if pairs else 'single texts'}, but the classifier was fitted "
                             f"on {'pairs' if self.takes_pairs_ else 'single texts'}")
        return TextBatches(LabelledText(texts, np.zeros(len(texts), np.int64), (), pairs), self.tokenizer_, 0,
                           self.batch_size, 0, text_input=self._input())

    def _input(self) -> TextInput:
        return TextInput.of(self.model_.config, self.tokenizer_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags


class SeriesClassifier(_Classifier):
    """A transformer over patches of a series, from a random start or a pretrained model, as `compare-series` does.

    X: (n, length), or (n, channels, length). Nothing is held out: the last step's model is kept.
    """

    def __init__(self, model: str = "", *, patches: int = 48,
                 normalisation: Literal["series", "train", "none"] = "series", head_dropout: float = 0.2,
                 max_steps: int = 500, batch_size: int = 32, learning_rate: float = 2e-3, weight_decay: float = 0.05,
                 random_state: int = 0, verbose: bool = False):
        """model: directory or hub id of a BERT or GPT pretrained on text; empty: random values in the shape of
        bert-tiny. The rest as the fields of compare-series' configuration; normalisation as in finetune-series.
        """
        self.model, self.patches, self.normalisation, self.head_dropout = model, patches, normalisation, head_dropout
        self.max_steps, self.batch_size = max_steps, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: Any) -> "SeriesClassifier":
        if self.normalisation not in ("series", "train", "none"):
            raise ValueError(f"normalisation is {self.normalisation!r}; give 'series', 'train' or 'none'")
        X = self._checked(X, reset=True)
        labels = self._numbered(y)
        check_consistent_length(X, labels)
        data = SeriesDataset(X, labels, tuple(str(name) for name in self.classes_))
        data = replace(data, learned=learned_from(data, self.normalisation)).normalised()
        settings = CompareSeriesConfig(text_model=self.model, patches=self.patches, head_dropout=self.head_dropout)
        settings.training.max_steps, settings.training.batch_size = self.max_steps, self.batch_size
        settings.training.learning_rate = self.learning_rate
        settings.training.weight_decay = self.weight_decay
        own = LabelledSet("X", data, data, patch_length_of(X.shape[2], self.patches))
        arm = "text" if self.model else "random"
        batches = (AugmentedBatches(data, self.batch_size, self.random_state, settings.augmentation),
                   SeriesBatches(data, self.batch_size, self.random_state))
        self.model_, self.log_ = trained(
            lambda: FineTuning(new_model(arm, own, settings, None), *batches, settings.training),
            settings.training, self.random_state, "SeriesClassifier", self.verbose)
        return self

    def save_pretrained(self, directory: str | Path) -> None:
        """The model in Hugging Face's format, as `make predict` takes it."""
        check_is_fitted(self)
        save_model(self.model_, directory)

    def _batches(self, X: Any) -> SeriesBatches:
        X = self._checked(X, reset=False)
        learned = Learned.of(self.model_.config, "the classifier")
        data = SeriesDataset(X, np.zeros(len(X), np.int64), ("",), learned=learned)
        return SeriesBatches(data.normalised(), self.batch_size, 0)

    def _checked(self, X: Any, reset: bool) -> np.ndarray:
        """float32 (n, channels, length)."""
        X = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=True)
        if X.ndim > 3:
            raise ValueError(f"X has shape {X.shape}; expected (n, length) or (n, channels, length)")
        return X[:, None] if X.ndim == 2 else X


class SeriesForecaster(BaseEstimator):
    """What follows a table over time, forecast as `forecast` does: a linear map, or a transformer over patches.

    X: (times, channels), rows in order of time, evenly spaced. The last `validation_share` of them decides which step's
    model is kept. Splits must keep the order, as scikit-learn's TimeSeriesSplit does.
    """

    def __init__(self, model: str = "nlinear", *, context_length: int = 96, horizon: int = 24,
                 max_steps: int = ForecastConfig.max_steps, batch_size: int = 32,
                 learning_rate: float = ForecastConfig.learning_rate, validation_share: float = 0.2,
                 random_state: int = 0, verbose: bool = False):
        """model: nlinear, dlinear (Zeng et al. 2023), or directory or hub id of a BERT, a GPT or a model pretrained on
        series. The rest as the fields of forecast's configuration.
        """
        self.model, self.context_length, self.horizon = model, context_length, horizon
        self.max_steps, self.batch_size, self.learning_rate = max_steps, batch_size, learning_rate
        self.validation_share, self.random_state, self.verbose = validation_share, random_state, verbose

    def fit(self, X: Any, y: Any = None) -> "SeriesForecaster":
        X = self._checked(X, reset=True)
        rows = len(X)
        end = rows - round(self.validation_share * rows)
        if end < self.context_length + self.horizon or rows - end < self.horizon:
            raise ValueError(f"X has {rows} rows; a context of {self.context_length} and a horizon of {self.horizon} "
                             f"take more, with {self.validation_share:g} of them held out to choose the model by")
        names = [str(name) for name in getattr(self, "feature_names_in_", range(X.shape[1]))]
        data = standardised([X.T], names, [end, rows - 1, rows], note=lambda line: None)
        data = replace(data, borders=((end, rows, rows),))  # a table's last rows are its test, and here is none
        train, validation = (WindowBatches(data, split, self.context_length, self.horizon, self.batch_size,
                                           self.random_state) for split in ("train", "validation"))
        is_linear = self.model in LINEAR
        settings = ForecastRecipeConfig(context_length=self.context_length)
        arm = Arm(self.model) if is_linear else Arm("own", self.model, "text", self.model)
        config = replace(ForecastConfig(), max_steps=self.max_steps, batch_size=self.batch_size,
                         learning_rate=self.learning_rate)
        self.model_, self.log_ = trained(
            lambda: ForecastingTask(new_forecaster(arm, self.model, settings, data, self.horizon), train, validation),
            config, self.random_state, "SeriesForecaster", self.verbose)
        self.history_ = X[-self.context_length:]
        return self

    def predict(self, X: Any = None) -> np.ndarray:
        """(horizon, channels) what follows the last row of X, or of what was fitted."""
        check_is_fitted(self)
        X = self.history_ if X is None else self._checked(X, reset=False)
        if len(X) < self.context_length:
            raise ValueError(f"X has {len(X)} rows; a forecast is made from {self.context_length}")
        mean, deviation = self._scale()
        context = scaled_values(X[-self.context_length:].T, None, mean, deviation)
        found = predicted(as_forecaster(self.model_), {"values": context[None]}, self.model_.device,
                          exact(self.model_.device))
        return (found[0] * deviation[:, None] + mean[:, None]).T

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean squared error over all windows of X, channels in standard deviations of what was fitted."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        mean, deviation = self._scale()
        rows = len(X)
        data = ForecastData((scaled_values(X.T, None, mean, deviation),), ((0, 0, rows),), tuple(map(str, range(
            X.shape[1]))), mean, deviation, 1)
        windows = WindowBatches(data, "test", self.context_length, self.horizon, self.batch_size, 0)
        accelerator = make_accelerator()
        scores = errors(as_forecaster(self.model_.to(accelerator.device)), windows, accelerator,
                        exact(accelerator.device))
        return -scores.result()["mse"]

    def save_pretrained(self, directory: str | Path) -> None:
        """The model in Hugging Face's format, as `make predict` takes it."""
        check_is_fitted(self)
        save_model(self.model_, directory)

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        config = self.model_.config
        return np.asarray(config.scale_means), np.asarray(config.scale_deviations)

    def _checked(self, X: Any, reset: bool) -> np.ndarray:
        """float64 (times, channels)."""
        if np.ndim(X) == 1:
            X = np.asarray(X).reshape(-1, 1)
        return validate_data(self, X, reset=reset, dtype=np.float64)


def texts_of(X: Any) -> tuple[list[str], list[str] | None]:
    """Texts, and the second ones of pairs; ValueError for what is neither."""
    if isinstance(X, str):
        raise ValueError("X is one text; give a sequence of texts")
    rows = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    rows = list(rows)
    pairs = [not isinstance(row, str) and hasattr(row, "__len__") and len(row) == 2 for row in rows]
    if rows and all(pairs):
        columns = [[row[place] for row in rows] for place in (0, 1)]
    else:
        columns = [rows]
    for column in columns:
        for place, text in enumerate(column):
            if not isinstance(text, str):
                raise ValueError(f"X[{place}] is {type(text).__name__}, not a text; give texts, or pairs of texts")
    if not rows:
        raise ValueError("X holds no text; 0 sample(s) while a minimum of 1 is required")
    return [str(text) for text in columns[0]], [str(text) for text in columns[1]] if len(columns) > 1 else None


def trained(make_task: Callable[[], Task], config: TrainingConfig, seed: int, title: str, verbose: bool
            ) -> tuple[PreTrainedModel, list[str]]:
    """The model that a fit keeps, and what was said meanwhile; its folder is gone, and random states are as before."""
    made: list[Task] = []

    def make() -> Task:
        made.append(make_task())
        return made[0]

    with tempfile.TemporaryDirectory() as folder, _random_states_kept(), _heard(verbose) as said:
        run = Run(folder)
        fit(make, config, ImplConfig(), run, make_accelerator(), int(seed), title)
        model = saved_model(type(made[0].model), run.model_dir).eval()
    return model, said.getvalue().splitlines()


@contextlib.contextmanager
def _random_states_kept() -> Iterator[None]:
    own, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(own)
        np.random.set_state(arrays)


@contextlib.contextmanager
def _heard(aloud: bool) -> Iterator[io.StringIO]:
    """What is printed within, which is shown only `aloud`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), hidden():
            yield said
    finally:
        if aloud:
            print(said.getvalue(), end="")
