"""What is asked of a fine-tuned model; importing it takes no torch."""

from dataclasses import dataclass, field

from toolkit.data.series.tables import SeriesTable


@dataclass
class PredictConfig:
    model: str
    file: str
    text_column: str = "text"
    text_pair_column: str = ""
    data: SeriesTable = field(default_factory=SeriesTable)
    """Of a table of series: which columns hold what. Of any .csv or .tsv: its encoding."""
    sampling_rate: float | None = None
    """Of series: values a second (Hz), as you know it; refused where the model learned others."""
    batch_size: int = 32
    output: str = ""
    """A .parquet, .csv, .tsv or .jsonl file; empty: to the screen."""
