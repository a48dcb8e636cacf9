"""One classifier on one HTML page that can be sent to a colleague: pictures and texts inside, nothing to fetch."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit import metrics
from toolkit.report.html_page import write_sections
from toolkit.report.plots import plot_calibration, plot_confusion, plot_loss, plot_numbers, plot_ranking
from toolkit.run.directory import read_metrics
from toolkit.run.files import write_atomic
from toolkit.shown import in_html, lines_in_html

_WORST = 12
Sections = list[tuple[str, str]]
"""Headings, each with its HTML."""


@dataclass(frozen=True)
class Classified:
    """A model's answers on the test set: what the page is about."""

    texts: Sequence[str]
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

    @property
    def shown(self) -> list[str]:
        """What a row of the page shows of its input."""
        if self.pairs is None:
            return list(self.texts)
        return [f"{text} | {pair}" for text, pair in zip(self.texts, self.pairs, strict=True)]


def write_predictions(found: Classified, path: str | Path) -> None:
    """A parquet file, a row a test example: the texts, label and prediction (lists of names where there may be several;
    of soft labels the likeliest class, and the share that each was given), and the probability of every class.
    """
    columns = {"text": list(found.texts), **({} if found.pairs is None else {"text_pair": list(found.pairs)})}
    if found.task == "regression":
        columns |= {"label": found.labels, "prediction": found.outputs}
    elif found.task == "multi-label":
        columns |= {"label": _sets(found, found.labels), "prediction": _sets(found, found.outputs)}
    else:
        given = found.labels.argmax(1) if found.task == "distribution" else found.labels
        columns |= {"label": [found.label_names[i] for i in given],
                    "prediction": [found.label_names[i] for i in found.outputs.argmax(1)]}
    if found.task == "distribution":
        columns |= {f"share({name})": found.labels[:, i] for i, name in enumerate(found.label_names)}
    if found.task != "regression":
        columns |= {f"p({name})": found.outputs[:, i] for i, name in enumerate(found.label_names)}
    write_atomic(path, pd.DataFrame(columns).to_parquet(index=False))


def _sets(found: Classified, table: np.ndarray) -> list[list[str]]:
    return [[found.label_names[i] for i in np.flatnonzero(row >= 0.5)] for row in table]


def write_comparison(title: str, summary: str, picture: Path, path: Path) -> None:
    """A page of a table, as text, and a picture."""
    write_sections(title, [("What came out", f"<pre>{lines_in_html(summary)}</pre>"),
                           ("By number of labels", _picture(picture))],
                   path)


def write_page(title: str, found: Classified, run_directory: Path, path: Path, summary: str) -> None:
    """Plots beside `path` and the page itself. summary: a table as text."""
    plots, stem, curve = path.parent / "plots", path.stem, _CURVE[found.task]
    records = read_metrics(run_directory / "metrics.jsonl")
    plot_loss(records, plots / f"{stem}-loss.png", "Loss while training",
              ylabel="loss (in standard deviations)" if found.task == "regression" else "loss (nats)")
    plot_loss(records, plots / f"{stem}-{curve}.png", f"Validation {curve} while training", "", f"eval_{curve}",
              ylabel=curve)
    make = {"multi-label": _several, "regression": _numbers, "distribution": _soft}.get(found.task, _classes)
    sections = [("What came out", f"<pre>{lines_in_html(summary)}</pre>"), *make(found, plots, stem),
                ("Training", _picture(plots / f"{stem}-loss.png") + _picture(plots / f"{stem}-{curve}.png"))]
    write_sections(title, sections, path)


_CURVE = {"classification": "accuracy", "distribution": "accuracy", "multi-label": "f1", "regression": "r2"}
"""Task → what is drawn of validation while it trained."""


def _classes(found: Classified, plots: Path, stem: str) -> Sections:
    predictions = found.outputs.argmax(1)
    plot_confusion(found.labels, predictions, found.label_names, plots / f"{stem}-confusion.png", "Test: counts")
    plot_ranking(found.outputs, found.labels, found.label_names, plots / f"{stem}-ranking.png", found.threshold)
    plot_calibration(found.outputs, found.labels, plots / f"{stem}-calibration.png")
    return [
        ("Scores on the test set", _score_table(found)),
        ("By class", _class_table(found)),
        ("Which classes are taken for which", _picture(plots / f"{stem}-confusion.png")),
        ("Ranking", _picture(plots / f"{stem}-ranking.png") + _threshold(found.threshold)),
        ("Does a probability of 80 % mean right in 80 % of cases?", _picture(plots / f"{stem}-calibration.png")),
        ("Worst errors", _worst(found))]


def _soft(found: Classified, plots: Path, stem: str) -> Sections:
    """How far the shares are off; then the page of the likeliest classes."""
    off = np.abs(found.outputs - found.labels)
    rows = [[name, float(found.labels[:, i].mean()), float(found.outputs[:, i].mean()), float(off[:, i].mean())]
            for i, name in enumerate(found.label_names)]
    told = "<p class=\"soft\">What is below counts the likeliest class of each row.</p>"
    return [("Shares", _table(["class", "mean share given", "mean probability", "mean difference"], rows) + told),
            *_classes(replace(found, labels=found.labels.argmax(1)), plots, stem)]


def _several(found: Classified, plots: Path, stem: str) -> Sections:
    called, actual = (found.outputs >= 0.5).astype(int), found.labels.astype(int)
    figures = {"all labels of a row right": float((called == actual).all(1).mean())} | {
        f"{average} f1": metrics.load("f1").compute(predictions=called, references=actual, average=average)["f1"]
        for average in ("micro", "macro")}
    names = ("precision", "recall", "specificity", "f1")
    by_label = [[name, int(actual[:, i].sum()), *(metrics.load(of).compute(
        predictions=called[:, i], references=actual[:, i])[of] for of in names)]
        for i, name in enumerate(found.label_names)]
    wrong = (called != actual).sum(1)
    order = np.argsort(-wrong, kind="stable")[:_WORST]
    is_of, taken_for = _sets(found, actual), _sets(found, called)
    rows = [[", ".join(is_of[i]), ", ".join(taken_for[i]), int(wrong[i]), _shortened(found.shown[i])]
            for i in order if wrong[i]]
    return [("Scores on the test set", _table(["", "value"], list(map(list, figures.items())))),
            ("By label", _table(["label", "examples", *names], by_label)),
            ("Worst errors", f'<p class="soft">{(wrong > 0).sum():,} of {len(wrong):,} rows have a wrong label; those '
             "with the most:</p>" + _table(["is", "taken for", "wrong labels", "text"], rows))]


def _numbers(found: Classified, plots: Path, stem: str) -> Sections:
    labels, errors = found.labels.astype(float), found.outputs - found.labels
    plot_numbers(labels, found.outputs, plots / f"{stem}-numbers.png")
    variance = float(labels.var())
    figures = {"mean squared error": float((errors**2).mean()), "mean absolute error": float(np.abs(errors).mean()),
               "mean error": float(errors.mean()), "r2": 1 - float((errors**2).mean()) / variance if variance else None}
    rows = [[f"{labels[i]:.6g}", f"{found.outputs[i]:.6g}", _shortened(found.shown[i])]
            for i in np.argsort(-np.abs(errors), kind="stable")[:_WORST]]
    shown = [[name, "undefined" if value is None else f"{value:.4g}"] for name, value in figures.items()]
    return [("Scores on the test set", _table(["", "value"], shown)),
            ("Predicted and true", _picture(plots / f"{stem}-numbers.png")),
            ("Worst errors", _table(["is", "taken for", "text"], rows))]


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


def _score_table(found: Classified) -> str:
    return _table(["", "value"], [[name.replace("_", " "), value] for name, value in scores(found).items()])


def _class_table(found: Classified) -> str:
    given = {"predictions": found.outputs.argmax(1), "references": found.labels}
    classes = list(range(len(found.label_names)))
    columns = {name: metrics.load(name).compute(**given, average=None, labels=classes)[name]
               for name in ("precision", "recall", "specificity", "f1")}
    support = np.bincount(found.labels, minlength=len(classes))
    return _table(["class", "examples", *columns],
                  [[name, int(support[i]), *(values[i] for values in columns.values())]
                   for i, name in enumerate(found.label_names)])


def _worst(found: Classified) -> str:
    predictions = found.outputs.argmax(1)
    wrong = np.flatnonzero(predictions != found.labels)
    confidence = found.outputs[np.arange(len(predictions)), predictions]
    rows = [[found.label_names[found.labels[i]], found.label_names[predictions[i]], float(confidence[i]),
             _shortened(found.shown[i])] for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:_WORST]]
    told = f'<p class="soft">{len(wrong):,} of {len(predictions):,} are wrong; the most confident of them:</p>'
    return told + _table(["is", "taken for", "probability", "text"], rows)


def _threshold(threshold: dict | None) -> str:
    if threshold is None:
        return ""
    rows = [[name, threshold["validation"][name], threshold["test"][name]] for name in threshold["test"]]
    told = (f"<p>“{in_html(threshold['label'])}” is answered from a probability of {threshold['probability']:.3f} "
            f"on, chosen on validation for {in_html(threshold['aim'])}.</p>")
    return told + _table(["at this threshold", "validation", "test"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence]) -> str:
    def cell(value, tag: str) -> str:
        if isinstance(value, str):
            return f"<{tag}>{in_html(value)}</{tag}>"
        text = "undefined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
        return f'<{tag} class="number">{text}</{tag}>'

    numbers = [bool(rows) and not isinstance(rows[0][column], str) for column in range(len(heads))]
    head = "".join(f'<th class="number">{in_html(name)}</th>' if number else f"<th>{in_html(name)}</th>"
                   for name, number in zip(heads, numbers, strict=True))
    body = "".join(f"<tr>{''.join(cell(value, 'td') for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img src="data:image/png;base64,{data}" alt="{in_html(path.stem)}"></p>'


def _shortened(text: str, characters: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= characters else text[:characters].rsplit(" ", 1)[0] + " …"
