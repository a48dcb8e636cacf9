"""A classifier's answers to its test texts as a .parquet file, and back from it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit.errors import UserError
from toolkit.regular import regular
from toolkit.report.sections.classified import Classified, names_of
from toolkit.run.files import write_atomic


def write_predictions(found: Classified, path: str | Path) -> None:
    """A row a test example: the texts, label and prediction (lists of names where there may be several; of soft labels
    the likeliest class, and the share that each was given), and the probability of every class.
    """
    columns = {"text": list(found.texts), **({} if found.pairs is None else {"text_pair": list(found.pairs)})}
    if found.task == "regression":
        columns |= {"label": found.labels, "prediction": found.outputs}
    elif found.task == "multi-label":
        columns |= {"label": [names_of(found, row) for row in found.labels],
                    "prediction": [names_of(found, row) for row in found.outputs]}
    else:
        given = found.labels.argmax(1) if found.task == "distribution" else found.labels
        columns |= {"label": [found.label_names[i] for i in given],
                    "prediction": [found.label_names[i] for i in found.outputs.argmax(1)]}
    if found.task == "distribution":
        columns |= {f"share({name})": found.labels[:, i] for i, name in enumerate(found.label_names)}
    if found.task != "regression":
        columns |= {f"p({name})": found.outputs[:, i] for i, name in enumerate(found.label_names)}
    write_atomic(path, pd.DataFrame(columns).to_parquet(index=False))


def read_predictions(path: Path, label_names: Sequence[str], task: str, threshold: dict | None, who: str
                     ) -> Classified:
    """What `write_predictions` wrote; UserError for a file that it did not write so."""
    try:
        rows = pd.read_parquet(regular(path))
        texts = [str(text) for text in rows["text"]]
        pairs = [str(text) for text in rows["text_pair"]] if "text_pair" in rows else None
        if task == "regression":
            labels, outputs = (rows[name].to_numpy(np.float64) for name in ("label", "prediction"))
        else:
            outputs = _columns(rows, "p", label_names)
            labels = (_columns(rows, "share", label_names) if task == "distribution" else
                      _labels(rows["label"], label_names, task == "multi-label"))
        if not len(rows) or not np.isfinite(outputs).all():
            raise ValueError("no rows, or probabilities that are no numbers")
    except (OSError, KeyError, TypeError, ValueError) as error:  # pyarrow's errors are OSError or ValueError
        raise UserError(f"{path}: cannot be read as a classifier's predictions ({' '.join(str(error).split())[:120]}). "
                        f"Delete it and give the recipe's command again.") from None
    return Classified(texts, labels, outputs, tuple(label_names), threshold, task, pairs, who=who)


def _columns(rows: pd.DataFrame, kind: str, label_names: Sequence[str]) -> np.ndarray:
    return np.stack([rows[f"{kind}({name})"].to_numpy(np.float64) for name in label_names], 1)


def _labels(column: pd.Series, label_names: Sequence[str], several: bool) -> np.ndarray:
    """(n,) ids of names, or (n, classes) of 0 and 1 for lists of names."""
    place = {name: index for index, name in enumerate(label_names)}
    if not several:
        return np.array([place[name] for name in column])
    labels = np.zeros((len(column), len(label_names)), int)
    for row, names in enumerate(column):
        labels[row, [place[name] for name in names]] = 1
    return labels
