"""Series as tokens: scaled by their context's mean absolute value and put into uniform bins.

Ansari et al. (2024), *Chronos: Learning the language of time series*, section 3.1. Every value becomes one token, so
that a language model can be trained on series as on text, and forecast by sampling.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit import config as configuration
from toolkit.errors import UserError
from toolkit.run.files import read_json, write_json

FILE_NAME = "series_bins.json"
"""What a model's directory holds beside its weights."""

_SPECIALS = 2


@dataclass(frozen=True)
class SeriesBins:
    """A specification is all there is to it: nothing is trained. `tokenizers/series-bins.yaml` is one."""

    algorithm: Literal["series-bins"]
    context_length: int
    """Values at the start of a document whose mean absolute value is its scale, and after which a forecast begins."""
    horizon: int
    """Values after them: a document is context_length + horizon values and the end token."""
    vocab_size: int = 4096
    """Bins and the two special tokens: 0 is a value that is missing (PAD), 1 the end of a document (EOS)."""
    low_limit: float = -15.0
    """Centre of the first bin, in units of the scale; what lies more than half a bin below is clipped to it."""
    high_limit: float = 15.0
    """Centre of the last bin."""

    pad_token_id = 0
    eos_token_id = 1

    def __post_init__(self) -> None:
        for name in ("low_limit", "high_limit"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 15 and 15.0 are one fingerprint
        for name in ("context_length", "horizon"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.vocab_size < _SPECIALS + 2:
            raise UserError(f"vocab_size is {self.vocab_size}; two special tokens and at least two bins need "
                            f"{_SPECIALS + 2}.")
        if not self.low_limit < self.high_limit or not np.isfinite([self.low_limit, self.high_limit]).all():
            raise UserError(f"low_limit is {self.low_limit} and high_limit {self.high_limit}; the first must be the "
                            f"smaller, and both finite.")

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def num_bins(self) -> int:
        return self.vocab_size - _SPECIALS

    @property
    def bin_width(self) -> float:
        """In units of the scale."""
        return (self.high_limit - self.low_limit) / (self.num_bins - 1)

    @property
    def centres(self) -> np.ndarray:
        """(bins,) in units of the scale: what the ids from 2 on stand for."""
        return np.linspace(self.low_limit, self.high_limit, self.num_bins)

    @property
    def edges(self) -> np.ndarray:
        """(bins − 1,) half-way between centres; a value on an edge belongs to the bin above it."""
        centres = self.centres
        return (centres[1:] + centres[:-1]) / 2

    def scale(self, values: np.ndarray) -> np.ndarray:
        """(n, L) with NaN where missing → (n,) mean absolute value of what the first `context_length` values hold; 1
        where that is nothing, or zeros.
        """
        context = np.abs(np.asarray(values, np.float64)[:, :self.context_length])
        seen = ~np.isnan(context)
        mean = np.sum(context, 1, where=seen) / np.maximum(seen.sum(1), 1)
        return np.where(mean > 0, mean, 1.0)

    def encode(self, values: np.ndarray, scale: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(n, L) values, NaN where missing → (n, L) int64 ids, without end token, and (n,) scales.

        `scale`: default that of the values themselves. ValueError for infinite values.
        """
        values = np.asarray(values, np.float64)
        if np.isinf(values).any():
            raise ValueError(f"{np.isinf(values).sum():,} of {values.size:,} values are infinite; expected numbers, or "
                             f"NaN where one is missing")
        scale = self.scale(values) if scale is None else np.asarray(scale, np.float64)
        ids = np.searchsorted(self.edges, values / scale[:, None], side="right") + _SPECIALS
        return np.where(np.isnan(values), self.pad_token_id, ids), scale

    def decode(self, ids: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """(n, L) ids and (n,) scales → (n, L) float64 centres of the bins in the values' units, NaN for PAD and EOS."""
        ids = np.asarray(ids)
        known = np.concatenate([np.full(_SPECIALS, np.nan), self.centres])
        return known[ids] * np.asarray(scale, np.float64)[:, None]

    def clipped(self, values: np.ndarray, scale: np.ndarray) -> int:
        """How many of (n, L) values at (n,) scales lie more than half a bin outside the limits."""
        scaled, half = np.asarray(values, np.float64) / np.asarray(scale)[:, None], self.bin_width / 2
        return int(((scaled < self.low_limit - half) | (scaled > self.high_limit + half)).sum())

    def fingerprint(self) -> str:
        """SHA-256 of what the tokenizer does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `series_bins.json` into a model's directory."""
        write_json(Path(directory) / FILE_NAME, asdict(self))

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "SeriesBins":
        """From a directory in which `save_pretrained` wrote."""
        path = Path(directory) / FILE_NAME
        if not path.is_file():
            raise UserError(f"{path}: no such file. A model of series as tokens has one: `make pretrain-gpt "
                            f"CONFIG=recipes/configs/gpt-series.yaml` trains one.")
        return _checked(read_json(path, dict), str(path))


def read_series_bins(source: str) -> SeriesBins:
    """A specification (.yaml), or a directory that holds `series_bins.json`."""
    if not source.endswith((".yaml", ".yml")):
        return SeriesBins.from_pretrained(source)
    values = configuration.read_yaml(source)
    if values.get("algorithm") != "series-bins":
        raise UserError(f"{source}: algorithm is {values.get('algorithm')!r}, which cuts text; series need "
                        f"'series-bins', as in tokenizers/series-bins.yaml.")
    return _checked(values, source)


def _checked(values: dict, where: str) -> SeriesBins:
    try:
        return configuration.from_dict(SeriesBins, values, where)
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(where) else f"{where}: {message}") from None
