"""Answers as a table: the prediction's columns, and beside them all that stood in the input."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedConfig, PreTrainedModel

from toolkit.data.batches import LabelledBatches
from toolkit.errors import UserError
from toolkit.models.losses import task_of
from toolkit.tasks.classification import decisions, predict
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import exact

Note = Callable[[str], None]


def asking(model: PreTrainedModel, batch_size: int = 64) -> Callable[[LabelledBatches], np.ndarray]:
    """Batches → (n, classes) float32 logits of a saved model, computed as its test scores were."""
    accelerator = make_accelerator()
    precision = exact(accelerator.device)
    precision.prepare(model.to(accelerator.device))
    return lambda batches: predict(model, batches, accelerator, precision, batch_size)


def answers_table(outputs: np.ndarray, config: PreTrainedConfig, inputs: dict[str, Sequence], note: Note
                  ) -> pd.DataFrame:
    """A row an input: `label`, and `decision` where there is a threshold; `labels`, a list, where there may be several;
    `value` of a number; `p(NAME)` of every class. Then the columns of the input.

    outputs: what `probabilities` gives, (n, classes), or (n,) numbers.
    """
    task, names = task_of(config), [config.id2label[index] for index in range(config.num_labels)]
    found: dict[str, Sequence] = {}
    if task == "regression":
        found["value"] = outputs
    else:
        chosen = decisions(task, outputs)
        if task == "multi-label":
            found["labels"] = label_sets(chosen, names)
        else:
            found["label"] = [names[index] for index in chosen]
        if threshold := getattr(config, "decision_threshold", None):
            if threshold["label"] not in names:
                raise UserError(f"{config.name_or_path or 'the model'}: decision_threshold in config.json is of "
                                f"'{threshold['label']}', which is none of its classes. Fetch the model again.")
            found["decision"] = _decided(outputs, names, threshold)
        found |= {f"p({name})": outputs[:, index] for index, name in enumerate(names)}
    return pd.DataFrame(found | _beside(inputs, found, note))


def label_sets(chosen: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    """(n, classes) of 0 and 1 → the names of each row's labels."""
    return [[names[index] for index in np.flatnonzero(row)] for row in chosen]


def _decided(outputs: np.ndarray, names: list[str], threshold: dict) -> list[str]:
    positive = names.index(threshold["label"])
    others = outputs.copy()
    others[:, positive] = -1
    called = outputs[:, positive] >= threshold["probability"]
    return [names[positive] if yes else names[other] for yes, other in zip(called, others.argmax(1), strict=True)]


def _beside(inputs: dict[str, Sequence], found: dict[str, Sequence], note: Note) -> dict[str, Sequence]:
    """The input's columns; one that is called as a column of the answer gets another name."""
    kept: dict[str, Sequence] = {}
    for name, cells in inputs.items():
        new = name
        while new in found or new in kept or (new != name and new in inputs):
            new = f"input_{new}"
        if new != name:
            note(f"the input's column '{name}' is called '{new}' here, since '{name}' is the answer's")
        kept[new] = cells
    return kept
