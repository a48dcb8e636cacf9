"""Let a BERT fill the blanks of a text, or of every line of a file, through transformers' own pipeline.

    python recipes/fill_mask.py runs/demo/bert --text "returns true if the [MASK] is empty."
    python recipes/fill_mask.py runs/demo/bert --texts blanks.txt --top_k 3

MODEL is a directory, a run's directory or a hub id. Of several blanks in a text each is filled by itself.
"""

from dataclasses import dataclass

from toolkit import cli, config
from toolkit.errors import UserError
from toolkit.shown import tell


@dataclass
class FillMaskConfig:
    model: str
    text: str = config.text()
    """With [MASK], or whatever the model's mask token is, where a word is missing."""
    texts: str = ""
    """A file instead: a text a line (.txt), or a text column (.csv .tsv .jsonl .parquet)."""
    text_column: str = "text"
    top_k: int = 5
    """Answers for each blank."""
    batch_size: int = 32


def main(argv: list[str]) -> None:
    settings = config.parse(FillMaskConfig, argv, __doc__, ["model"])
    if bool(settings.text) == bool(settings.texts):
        raise UserError("Give either --text TEXT or --texts FILE.")
    from toolkit.data.tables.sources import Reading  # only now: --help waits for no library
    from toolkit.data.text.labelled import text_rows
    from toolkit.inference.generation import fill_masks
    from toolkit.shown import quoted

    rows = [] if settings.text else list(text_rows(settings.texts, settings.text_column, option="texts",
                                                   reading=Reading(note=tell)))
    texts = [row.text for row in rows] or [settings.text]
    found = fill_masks(settings.model, texts, settings.top_k, settings.batch_size, [row.place for row in rows])
    for text, masks in zip(texts, found, strict=True):
        print(text)
        for guesses in masks:
            print("  " + ", ".join(f"{quoted(token)} {100 * probability:.1f} %" for token, probability in guesses))


if __name__ == "__main__":
    cli.run(main)
