"""Which module has the classes of which `model_type` of ours, so that a checkpoint is enough to find its class.

A module registers its classes with transformers' Auto classes when it is imported; this table says which one to import.
"""

import importlib
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class Entry(NamedTuple):
    module: str
    reads: Literal["text", "series"]


TABLE: dict[str, Entry] = {
    "toolkit-text": Entry("toolkit.models.text", "text"),
    "toolkit-series": Entry("toolkit.models.series", "series"),
    "toolkit-series-ablated": Entry("toolkit.models.series.ablations", "series"),
    "toolkit-recurrent": Entry("toolkit.models.small.recurrent", "series"),
    "toolkit-recurrent-seq2seq": Entry("toolkit.models.seq2seq.recurrent", "text"),
    "toolkit-perceptron": Entry("toolkit.models.small.perceptron", "series"),
    "toolkit-keras-forda": Entry("toolkit.models.small.keras_forda", "series"),
    "toolkit-nlinear": Entry("toolkit.models.small.linear", "series"),
    "toolkit-dlinear": Entry("toolkit.models.small.linear", "series"),
}
"""`model_type` → the module of its configuration and models, and what these read."""


def module_of(model_type: str | None) -> str | None:
    """The module of this package that knows a model_type; None where transformers does."""
    return TABLE[model_type].module if model_type in TABLE else None


def reads_text(model_type: str | None) -> bool:
    """Whether classifiers of a model_type read text; those of transformers' own do."""
    return model_type not in TABLE or TABLE[model_type].reads == "text"


def register(model_type: str | None) -> None:
    """Make a configuration of ours, and the models it is for, known to transformers' Auto classes."""
    if module := module_of(model_type):
        importlib.import_module(module)


def model_class(config: "PreTrainedConfig") -> "type[PreTrainedModel] | None":
    """The class that a checkpoint was saved from, of ours or of transformers; None when there is none of that name."""
    name = (config.architectures or [""])[0]
    return getattr(importlib.import_module(module_of(config.model_type) or "transformers"), name, None)


def is_classifier(config: "PreTrainedConfig") -> bool:
    """Whether a checkpoint is what AutoModelForSequenceClassification loads, of texts or of series."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    return type(config) in KNOWN and KNOWN[type(config)] is model_class(config)
