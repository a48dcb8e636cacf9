"""The probability from which a label is given: chosen on validation for a stated aim, never on test."""


import numpy as np

from toolkit.errors import UserError, did_you_mean
from toolkit.models.losses import Task
from toolkit.tasks.settings import ThresholdConfig


def positive_class(config: ThresholdConfig, task: Task, label_names: tuple[str, ...]) -> int | None:
    """Index of the class the threshold is for, None where none is asked for; UserError where none can be."""
    if config.aim == "none":
        return None
    if task != "classification" or len(label_names) != 2:
        raise UserError(f"threshold.aim is {config.aim}, which takes two classes; there are {len(label_names)} "
                        f"({', '.join(label_names[:6])}). Use none.")
    if not config.positive_label:
        return 1
    if config.positive_label not in label_names:
        raise UserError(f"threshold.positive_label is '{config.positive_label}'."
                        f"{did_you_mean(config.positive_label, label_names)}")
    return label_names.index(config.positive_label)


def choose_threshold(probabilities: np.ndarray, positive: np.ndarray, config: ThresholdConfig) -> float:
    """(n,) probabilities of the positive class, (n,) bool → the threshold that serves the aim best on these examples.

    An example is called positive when its probability is at least the threshold. Candidates lie half way between
    neighbouring probabilities, so that the choice does not hang on the last digit of one. Of equally good ones the
    middle is taken. UserError when the aim cannot be told, as without a positive example, or not reached.
    """
    if not positive.any() or positive.all():
        raise UserError(f"threshold.aim is {config.aim}, but the validation set has only "
                        f"{'positive' if positive.all() else 'negative'} examples. Give one that has both.")
    levels = np.unique(probabilities.astype(np.float64))
    candidates = np.concatenate([[levels[0] / 2], (levels[:-1] + levels[1:]) / 2, [(levels[-1] + 1) / 2]])
    ranked = np.sort(probabilities[positive]), np.sort(probabilities[~positive])
    hits, false_alarms = (len(part) - np.searchsorted(part, candidates) for part in ranked)
    misses = len(ranked[0]) - hits
    recall = hits / len(ranked[0])
    precision = np.divide(hits, hits + false_alarms, out=np.full(len(hits), np.nan), where=hits + false_alarms > 0)
    if config.aim == "f-beta":
        square = config.beta**2
        value = (1 + square) * hits / ((1 + square) * hits + square * misses + false_alarms)
    elif config.aim == "recall":
        value = np.where(recall >= config.at_least, -false_alarms, -np.inf)
    elif config.aim == "precision":
        value = np.where(precision >= config.at_least, recall, -np.inf)
    else:
        value = -(config.false_positive_cost * false_alarms + config.false_negative_cost * misses)
    if not np.isfinite(value).any():
        raise UserError(f"threshold.aim is {config.aim}, but no threshold reaches {config.at_least:g} on validation; "
                        f"the best is {np.nanmax(precision if config.aim == 'precision' else recall):.3g}. Lower "
                        f"threshold.at_least.")
    best = np.flatnonzero(value >= value.max() - 1e-12)
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)  # of neighbours; the longest one is the safest
    longest = max(runs, key=len)
    return float(candidates[longest[len(longest) // 2]])
