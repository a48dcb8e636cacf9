"""A model, and what it can be asked in the browser: its kind, and the limits of what is typed and uploaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedConfig

from toolkit.errors import UserError
from toolkit.inference.generation import LanguageModel, open_model
from toolkit.inference.table_forecasts import is_forecaster
from toolkit.inference.written_answers import Writer, open_writer
from toolkit.models.load import checkpoint_config, model_directory
from toolkit.models.registry import is_classifier, reads_text
from toolkit.regular import regular

MOST_CHARACTERS = 20_000
MOST_BYTES = 10_000_000
FILES = {"series": (".csv", ".tsv", ".ts", ".arff", ".npy"), "forecast": (".csv", ".tsv")}
"""What is read of uploaded files: none of the kinds that may grow when they are unpacked."""
Kind = Literal["text", "series", "forecast", "masked", "causal", "written"]


@dataclass(frozen=True)
class Asked:
    """A model that was opened to be asked."""

    name: str
    """As it was named."""
    directory: str
    kind: Kind
    shape: PreTrainedConfig
    language: LanguageModel | None = None
    """Of a BERT or GPT: it, opened."""
    writer: Writer | None = None
    """Of an encoder–decoder: it, opened."""

    @property
    def reads_pairs(self) -> bool:
        return bool((getattr(self.shape, "text_input", None) or {}).get("pairs"))

    @property
    def asks_for_series_column(self) -> bool:
        """Whether it learned tables with a row a time, where a column says which series a row belongs to."""
        return self.kind == "series" and bool(getattr(self.shape, "channel_names", None))


def open_asked(name: str) -> Asked:
    """name: a directory, a run's directory or a hub id. UserError where there is no model, or one that nothing can be
    asked of here.
    """
    directory = model_directory(name)
    shape = checkpoint_config(directory)
    if is_forecaster(shape):
        return Asked(name, directory, "forecast", shape)
    if shape.is_encoder_decoder:
        return Asked(name, directory, "written", shape, writer=open_writer(directory))
    if is_classifier(shape):
        return Asked(name, directory, "text" if reads_text(shape.model_type) else "series", shape)
    language = open_model(name)
    return Asked(name, directory, language.kind, shape, language)


def checked_text(text: str | None, what: str = "text") -> str:
    """It; UserError where it is empty or too long."""
    text = text or ""
    if not text.strip():
        raise UserError(f"{what}: is empty. Write something.")
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{what}: has {len(text):,} characters; this page takes {MOST_CHARACTERS:,}. Shorten it, or "
                        f"ask by a file: make predict, make chat.")
    return text


def checked_file(path: str | None, kind: Kind) -> str:
    """It; UserError where there is none, or one that is too large or of another kind."""
    if not path:
        raise UserError("file: none was given. Upload a table.")
    place = regular(Path(path))
    if place.suffix.lower() not in FILES[kind]:
        raise UserError(f"{place.name}: this page reads {', '.join(FILES[kind])}. Others are read by make predict.")
    if not place.is_file():
        raise UserError(f"{place.name}: is no longer there. Upload it again.")
    if (size := place.stat().st_size) > MOST_BYTES:
        raise UserError(f"{place.name}: has {size / 1e6:.1f} MB; this page takes {MOST_BYTES / 1e6:.0f} MB. Larger "
                        f"files are read by make predict.")
    return str(place)
