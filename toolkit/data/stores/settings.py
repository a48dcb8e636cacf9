"""Settings of batches for BERT and of series as tokens; importing them takes no torch."""

import math
from dataclasses import dataclass, field

from toolkit.data.tables.time_table import Missing

_OVERSHOOT = 8  # predictions a row has to spare for the last whole word


@dataclass
class MaskingConfig:
    COMMON = ("max_seq_length", "mlm_probability", "next_sentence_prediction")

    max_seq_length: int = 128
    """Tokens in a row, special ones included; rows are filled to it."""
    mlm_probability: float = 0.3
    """Share of the non-special tokens that are predicted in training. BERT's 0.15 learns from half as many (Wettig et
    al. 2023); evaluations always predict 0.15, so that losses can be compared."""
    next_sentence_prediction: bool = True
    """Whether half of the rows get a B from a different document, to be told apart."""
    whole_word_masking: bool = False
    """Choose words instead of tokens: all pieces of a word are predicted, and share one fate of the 80/10/10."""
    short_seq_prob: float = 0.0
    """Share of the rows that are cut to a random length, as BERT did (0.1) to have seen short inputs too."""

    def predictions_per_row(self) -> int:
        """Slots for predictions in a row: a fixed number, so that shapes are static."""
        predictions = max(1, math.ceil(self.mlm_probability * (self.max_seq_length - 3)))
        return min(self.max_seq_length, predictions + _OVERSHOOT if self.whole_word_masking else predictions)


@dataclass
class SeriesCorpusConfig:
    COMMON = ("sources",)

    sources: list[str] = field(default_factory=list)
    """Series instead of a corpus of text: tables (.csv, .tsv, .parquet; each column of numbers is a series) and
    generator:NAME:COUNT, so many series of mackey-glass or noisy-sines. Empty: text."""
    stride: int | None = None
    """Values between the beginnings of two training windows of a table. Default: a window's length, so that no value
    is seen twice in an epoch; less gives more documents out of a short table."""
    time_column: str = "date"
    """Of every table: ISO 8601 dates or numbers; "" where rows are evenly spaced."""
    missing: Missing = "refuse"
    """Empty cells, NaN and infinity in tables: refused with their line, or masked: they become PAD, and are counted."""
    borders: list[float] = field(default_factory=lambda: [0.7, 0.8, 1.0])
    """Where a table's train, validation and test rows end, as shares or in rows. Of a generator, validation and test
    are a tenth as many series as COUNT, each."""
    seed: int = 0
    """Of the generators."""
