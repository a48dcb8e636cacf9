"""A classifier's answers to the test set, as sections of a page: scores, classes, errors, whatever the kind of label.

All of it is of one model, the one that is kept; which seed that is stands beside every figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from toolkit import metrics
from toolkit.metrics.intervals import proportion_interval
from toolkit.report.figures.classification import (
    calibration_figure,
    confusion_counts,
    confusion_figure,
    numbers_figure,
    ranking_figure,
)
from toolkit.report.page import Between, Section, join, number, paragraph, picture, table

MOST_ERRORS = 300
"""In the table of a page."""
DRAWS = 1000
LARGEST_CONFUSION = 20_000
"""Cells that are not empty, for which bootstraps are still quick."""


@dataclass(frozen=True)
class Classified:
    """A model's answers on the test set."""

    texts: Sequence[str]
    """What a row of the page shows of each example."""
    labels: np.ndarray
    """(n,) class ids or numbers; (n, classes) of 0 and 1, or of the shares of soft labels."""
    outputs: np.ndarray
    """(n, classes) probabilities, or (n,) numbers."""
    label_names: tuple[str, ...]
    threshold: dict | None = None
    """As `fine_tune` reports it."""
    task: str = "classification"
    pairs: Sequence[str] | None = None
    """The second texts."""
    item: str = "text"
    """What an example is, above the column that shows it."""
    who: str = "the kept model"
    """Whose answers these are, with its seed: "bert, pretrained, as kept (seed 0)"."""

    @property
    def shown(self) -> list[str]:
        """What a row of the page shows of its input."""
        if self.pairs is None:
            return list(self.texts)
        return [f"{text} | {pair}" for text, pair in zip(self.texts, self.pairs, strict=True)]


def answers_sections(found: Classified) -> list[Section]:
    """Scores, then what is behind them, then the errors."""
    return {"multi-label": _several, "regression": _numbers, "distribution": _soft}.get(found.task, _classes)(found)


def _of(found: Classified, what: str = "") -> Markup:
    """Whose figures these are, over how many examples, and what stands in brackets."""
    return paragraph(f"Of {found.who}, on {len(found.labels):,} test examples.{what and f' {what}'}", soft=True)


INTERVALS = "Intervals are over test examples: how far another test set of this size would move the figure."
IN_BRACKETS = f"In brackets 95 %. {INTERVALS}"


# --- classes -------------------------------------------------------------------------------------------------------


def _classes(found: Classified) -> list[Section]:
    names, predictions = found.label_names, found.outputs.argmax(1)
    return [
        Section("Scores on the test set", join([_of(found, INTERVALS), _score_table(found),
                                                _threshold(found.threshold)])),
        Section("By class", join([_of(found, IN_BRACKETS), _class_table(found)])),
        Section("Which classes are taken for which", join([_of(found), picture(
            confusion_figure(confusion_counts(found.labels, predictions, len(names)), names, ""),
            f"Confusion matrix of {found.who}: counts of true by predicted class")])),
        Section("Ranking", join([_of(found), picture(
            ranking_figure(found.outputs, found.labels, names, found.threshold),
            "ROC and precision-recall curves by class, with their areas")])),
        Section("Does a probability of 80 % mean right in 80 % of cases?", join([_of(found), picture(
            calibration_figure(found.outputs, found.labels),
            "Share of right answers by the probability they were given with")])),
        Section("Worst errors", _worst(found))]


def scores(found: Classified) -> dict[str, float | None]:
    """The test set's figures by the names of `toolkit.metrics`; averages over classes are plain means."""
    predictions, labels, probabilities = found.outputs.argmax(1), found.labels, found.outputs
    given = {"predictions": predictions, "references": labels}
    result = {name: metrics.load(name).compute(**given)[name]
              for name in ("accuracy", "balanced_accuracy", "matthews_correlation")}
    result |= {f"macro {name}": metrics.load(name).compute(**given, average="macro")[name]
               for name in ("precision", "recall", "f1")}
    binary = len(found.label_names) == 2
    for name, options in (("roc_auc", {} if binary else {"multi_class": "ovr"}), ("pr_auc", {})):
        if binary or name == "roc_auc":
            ranked = probabilities[:, 1] if binary else probabilities
            result[name] = metrics.load(name).compute(prediction_scores=ranked, references=labels, **options)[name]
    for name in ("log_loss", "expected_calibration_error"):
        result[name] = metrics.load(name).compute(predictions=probabilities, references=labels)[name]
    return result


def _score_table(found: Classified) -> Markup:
    drawn = bootstrapped(found.labels, found.outputs.argmax(1), len(found.label_names))
    rows = [[name.replace("_", " ").replace("roc auc", "ROC-AUC").replace("pr auc", "PR-AUC"),
             value, ends(drawn.get(name))] for name, value in scores(found).items()]
    return table(["", "value", "95 % interval"], rows)


def ends(interval: tuple[float, float] | None) -> str:
    """Of an interval, as a cell; "" where it is not known."""
    return f"{number(interval[0])} – {number(interval[1])}" if interval else ""


def bootstrapped(labels: np.ndarray, predictions: np.ndarray, classes: int, seed: int = 0
                 ) -> dict[str, tuple[float, float]]:
    """Score → its 95 % interval when test examples are drawn again, with replacement (Efron & Tibshirani 1993); {} for
    so many classes that it would take long. Only how often each cell of the confusion matrix is drawn matters.
    """
    cells, counts = np.unique(np.asarray(labels) * classes + np.asarray(predictions), return_counts=True)
    if len(cells) * max(1, classes) > LARGEST_CONFUSION:
        return {}
    true, called = cells // classes, cells % classes
    drawn = np.random.default_rng(seed).multinomial(len(labels), counts / counts.sum(), size=DRAWS).astype(float)
    right = np.where(true == called, drawn, 0.0)
    of_class = {name: drawn @ (of[:, None] == np.arange(classes)) for name, of in (("true", true), ("called", called))}
    hits = right @ (true[:, None] == np.arange(classes))
    occurs = (of_class["true"] > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(occurs, hits / of_class["true"], np.nan)
        precision = np.where(of_class["called"] > 0, hits / of_class["called"], 0.0)
        both = of_class["true"] + of_class["called"]
        f1 = np.where(both > 0, 2 * hits / both, 0.0)
    values = {"accuracy": right.sum(1) / len(labels), "balanced_accuracy": np.nanmean(recall, 1),
              "macro precision": precision.mean(1), "macro recall": np.nan_to_num(recall).mean(1),
              "macro f1": f1.mean(1)}
    return {name: tuple(np.percentile(of, [2.5, 97.5]).tolist()) for name, of in values.items()}


def _class_table(found: Classified) -> Markup:
    predictions = found.outputs.argmax(1)
    rows = []
    for label, name in enumerate(found.label_names):
        true, called = found.labels == label, predictions == label
        hits = int((true & called).sum())
        both = int(true.sum() + called.sum())
        rows.append([name, int(true.sum()), share(hits, int(called.sum())), share(hits, int(true.sum())),
                     2 * hits / both if both else None,
                     share(int((~true & ~called).sum()), int((~true).sum()))])
    return table(["class", "examples", "precision", "recall", "F1", "specificity"], rows, sortable=len(rows) > 6)


def share(successes: int, n: int) -> Between | None:
    """A share with Wilson's interval; None of nothing."""
    if not n:
        return None
    low, high, _ = proportion_interval(successes, n)
    return Between(successes / n, low, high)


def _worst(found: Classified) -> Markup:
    predictions = found.outputs.argmax(1)
    wrong = np.flatnonzero(predictions != found.labels)
    confidence = found.outputs[np.arange(len(predictions)), predictions]
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_ERRORS]
    rows = [[found.label_names[found.labels[i]], found.label_names[predictions[i]], float(confidence[i]),
             float(found.outputs[i, found.labels[i]]), shortened(found.shown[i])] for i in order]
    told = f"{len(wrong):,} of {len(predictions):,} are wrong" + (
        f"; the {len(rows):,} most confident of them:" if len(rows) < len(wrong) else ", the most confident first:")
    return join([_of(found, told), table(["is", "taken for", "probability of that", "of the right one", found.item],
                                         rows, filters=["is", "taken for"]) if rows else Markup("")])


def _threshold(threshold: dict | None) -> Markup:
    if threshold is None:
        return Markup("")
    rows = [[name, threshold["validation"][name], threshold["test"][name]] for name in threshold["test"]]
    return join([paragraph(f"“{threshold['label']}” is answered from a probability of {threshold['probability']:.3f} "
                           f"on, chosen on validation for {threshold['aim']}."),
                 table(["at this threshold", "validation", "test"], rows)])


# --- soft labels, several labels, numbers --------------------------------------------------------------------------


def _soft(found: Classified) -> list[Section]:
    """How far the shares are off; then what is told of the likeliest classes."""
    off = np.abs(found.outputs - found.labels)
    rows = [[name, float(found.labels[:, i].mean()), float(found.outputs[:, i].mean()), float(off[:, i].mean())]
            for i, name in enumerate(found.label_names)]
    told = paragraph("What is below counts the likeliest class of each row.", soft=True)
    return [Section("Shares", join([_of(found), table(["class", "mean share given", "mean probability",
                                                       "mean difference"], rows), told])),
            *_classes(replace(found, labels=found.labels.argmax(1)))]


def _several(found: Classified) -> list[Section]:
    called, actual = (found.outputs >= 0.5).astype(int), found.labels.astype(int)
    figures: list[list] = [["all labels of a row right", share(int((called == actual).all(1).sum()), len(actual))]]
    figures += [[f"{average} F1", metrics.load("f1").compute(predictions=called, references=actual,
                                                             average=average)["f1"]] for average in ("micro", "macro")]
    by_label = []
    for place, name in enumerate(found.label_names):
        true, said = actual[:, place] == 1, called[:, place] == 1
        hits, both = int((true & said).sum()), int(true.sum() + said.sum())
        ranked = metrics.load("roc_auc").compute(prediction_scores=found.outputs[:, place],
                                                 references=actual[:, place])["roc_auc"]
        by_label.append([name, int(true.sum()), share(hits, int(said.sum())), share(hits, int(true.sum())),
                         2 * hits / both if both else None, ranked])
    wrong = (called != actual).sum(1)
    order = [i for i in np.argsort(-wrong, kind="stable")[:MOST_ERRORS] if wrong[i]]
    rows = [[", ".join(names_of(found, actual[i])), ", ".join(names_of(found, called[i])), int(wrong[i]),
             shortened(found.shown[i])] for i in order]
    told = f"{(wrong > 0).sum():,} of {len(wrong):,} rows have a wrong label; those with the most first:"
    return [Section("Scores on the test set", join([_of(found, IN_BRACKETS), table(["", "value"], figures)])),
            Section("By label", join([_of(found, IN_BRACKETS), table(
                ["label", "examples", "precision", "recall", "F1", "ROC-AUC"], by_label, sortable=len(by_label) > 6)])),
            Section("Worst errors", join([_of(found, told), table(
                ["is", "taken for", "wrong labels", found.item], rows, sortable=True) if rows else Markup("")]))]


def names_of(found: Classified, row: np.ndarray) -> list[str]:
    """The labels that a row of several has."""
    return [found.label_names[i] for i in np.flatnonzero(row >= 0.5)]


def _numbers(found: Classified) -> list[Section]:
    labels, errors = found.labels.astype(float), found.outputs - found.labels
    variance = float(labels.var())
    figures = {"mean squared error": float((errors**2).mean()), "mean absolute error": float(np.abs(errors).mean()),
               "mean error": float(errors.mean()), "R²": 1 - float((errors**2).mean()) / variance if variance else None}
    rows = [[significant(labels[i]), significant(found.outputs[i]), significant(errors[i]), shortened(found.shown[i])]
            for i in np.argsort(-np.abs(errors), kind="stable")[:MOST_ERRORS]]
    shown = [[name, None if value is None else significant(value, 4)] for name, value in figures.items()]
    return [Section("Scores on the test set", join([_of(found), table(["", "value"], shown)])),
            Section("Predicted and true", join([_of(found), picture(numbers_figure(labels, found.outputs),
                                                                    "Predicted beside true numbers")])),
            Section("Worst errors", join([_of(found), table(["is", "predicted", "off by", found.item], rows,
                                                            sortable=True)]))]


def significant(value: float, digits: int = 6) -> Between:
    """A number of any size with so many digits that count."""
    return Between(float(value), text=f"{float(value):.{digits}g}")


def shortened(text: str, characters: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= characters else text[:characters].rsplit(" ", 1)[0] + " …"
