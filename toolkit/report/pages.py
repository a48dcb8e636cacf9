"""One classifier on one HTML page that can be sent to a colleague: pictures and texts inside, nothing to fetch."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit import metrics
from toolkit.report.html_page import write_sections
from toolkit.report.plots import plot_calibration, plot_confusion, plot_loss, plot_ranking
from toolkit.run.directory import read_metrics

_WORST = 12


@dataclass(frozen=True)
class Classified:
    """A classifier's answers on the test set: what the page is about."""

    texts: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray
    label_names: tuple[str, ...]
    threshold: dict | None = None
    """As `fine_tune` reports it."""


def write_predictions(found: Classified, path: str | Path) -> None:
    """A parquet file: text, label, prediction, and the probability of every class, a row a test example."""
    columns = {"text": list(found.texts), "label": [found.label_names[i] for i in found.labels],
               "prediction": [found.label_names[i] for i in found.probabilities.argmax(1)]}
    columns |= {f"p({name})": found.probabilities[:, i] for i, name in enumerate(found.label_names)}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(path, index=False)


def write_comparison(title: str, summary: str, picture: Path, path: Path) -> None:
    """A page of a table, as text, and a picture."""
    write_sections(title, [("What came out", f"<pre>{html.escape(summary)}</pre>"),
                           ("By number of labels", _picture(picture))],
                   path)


def write_page(title: str, found: Classified, run_directory: Path, path: Path, summary: str) -> None:
    """Plots beside `path` and the page itself. summary: a table as text."""
    plots = path.parent / "plots"
    stem = path.stem
    records = read_metrics(run_directory / "metrics.jsonl")
    plot_loss(records, plots / f"{stem}-loss.png", "Loss while training")
    plot_loss(records, plots / f"{stem}-accuracy.png", "Validation accuracy while training", "", "eval_accuracy",
              ylabel="accuracy")
    predictions = found.probabilities.argmax(1)
    plot_confusion(found.labels, predictions, found.label_names, plots / f"{stem}-confusion.png", "Test: counts")
    plot_ranking(found.probabilities, found.labels, found.label_names, plots / f"{stem}-ranking.png", found.threshold)
    plot_calibration(found.probabilities, found.labels, plots / f"{stem}-calibration.png")
    sections = [
        ("What came out", f"<pre>{html.escape(summary)}</pre>"),
        ("Scores on the test set", _score_table(found)),
        ("By class", _class_table(found)),
        ("Which classes are taken for which", _picture(plots / f"{stem}-confusion.png")),
        ("Ranking", _picture(plots / f"{stem}-ranking.png") + _threshold(found.threshold)),
        ("Does a probability of 80 % mean right in 80 % of cases?", _picture(plots / f"{stem}-calibration.png")),
        ("Worst errors", _worst(found)),
        ("Training", _picture(plots / f"{stem}-loss.png") + _picture(plots / f"{stem}-accuracy.png")),
    ]
    write_sections(title, sections, path)


def scores(found: Classified) -> dict[str, float | None]:
    """The test set's figures by the names of `toolkit.metrics`; averages over classes are plain means."""
    predictions, labels, probabilities = found.probabilities.argmax(1), found.labels, found.probabilities
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
    given = {"predictions": found.probabilities.argmax(1), "references": found.labels}
    classes = list(range(len(found.label_names)))
    columns = {name: metrics.load(name).compute(**given, average=None, labels=classes)[name]
               for name in ("precision", "recall", "specificity", "f1")}
    support = np.bincount(found.labels, minlength=len(classes))
    return _table(["class", "examples", *columns],
                  [[name, int(support[i]), *(values[i] for values in columns.values())]
                   for i, name in enumerate(found.label_names)])


def _worst(found: Classified) -> str:
    predictions = found.probabilities.argmax(1)
    wrong = np.flatnonzero(predictions != found.labels)
    confidence = found.probabilities[np.arange(len(predictions)), predictions]
    rows = [[found.label_names[found.labels[i]], found.label_names[predictions[i]], float(confidence[i]),
             _shortened(found.texts[i])] for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:_WORST]]
    told = f'<p class="soft">{len(wrong):,} of {len(predictions):,} are wrong; the most confident of them:</p>'
    return told + _table(["is", "taken for", "probability", "text"], rows)


def _threshold(threshold: dict | None) -> str:
    if threshold is None:
        return ""
    rows = [[name, threshold["validation"][name], threshold["test"][name]] for name in threshold["test"]]
    told = (f"<p>“{html.escape(threshold['label'])}” is answered from a probability of {threshold['probability']:.3f} "
            f"on, chosen on validation for {html.escape(threshold['aim'])}.</p>")
    return told + _table(["at this threshold", "validation", "test"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence]) -> str:
    def cell(value, tag: str) -> str:
        if isinstance(value, str):
            return f"<{tag}>{html.escape(value)}</{tag}>"
        text = "undefined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
        return f'<{tag} class="number">{text}</{tag}>'

    numbers = [bool(rows) and not isinstance(rows[0][column], str) for column in range(len(heads))]
    head = "".join(f'<th class="number">{html.escape(name)}</th>' if number else f"<th>{html.escape(name)}</th>"
                   for name, number in zip(heads, numbers, strict=True))
    body = "".join(f"<tr>{''.join(cell(value, 'td') for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img src="data:image/png;base64,{data}" alt="{html.escape(path.stem)}"></p>'


def _shortened(text: str, characters: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= characters else text[:characters].rsplit(" ", 1)[0] + " …"
