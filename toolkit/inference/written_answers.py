"""What an encoder–decoder writes, by the code that answered its test set: `toolkit.tasks.seq2seq.answers`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from accelerate import Accelerator
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from toolkit.config import from_dict
from toolkit.data.pairs.batches import PairBatches, TokenIds
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.data.tables.sources import Reading
from toolkit.data.text.labelled import text_rows
from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory
from toolkit.inference.answers import beside
from toolkit.models.load import checkpoint_config, load_weights, model_directory
from toolkit.shown import tell
from toolkit.tasks.seq2seq import TARGET_TOKENIZER, answers
from toolkit.tasks.settings import DecodingConfig
from toolkit.tokenization.load import load_tokenizer
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import Precision, exact


@dataclass(frozen=True)
class Writer:
    """An encoder–decoder that was opened, with all that its answers take."""

    name: str
    model: PreTrainedModel
    source: PreTrainedTokenizerBase
    target: PreTrainedTokenizerBase
    ids: tuple[TokenIds, TokenIds]
    decoding: DecodingConfig
    longest: int
    """Tokens of a source; what is longer is read up to there."""
    accelerator: Accelerator
    precision: Precision

    def write(self, texts: Sequence[str], batch_size: int = 32, num_beams: int | None = None,
              note: Callable[[str], None] = tell) -> list[str]:
        """What it writes for each text, as it answered its test set. note: is told how many were too long."""
        pairs = self.batches(texts, [""] * len(texts), batch_size)
        if pairs.cut:
            note(f"{pairs.cut:,} of {len(texts):,} texts have {self.longest:,} tokens or more and are read up to there")
        decoding = replace(self.decoding, num_beams=num_beams or self.decoding.num_beams)
        return answers(self.model, pairs, self.target, decoding, self.accelerator, self.precision, batch_size)

    def batches(self, texts: Sequence[str], targets: Sequence[str], batch_size: int = 1) -> PairBatches:
        sides = [[" ".join(text.split()) for text in side] for side in (texts, targets)]
        return PairBatches(TextPairs(*sides, [""] * len(texts)), self.source, self.target, self.ids,
                           (self.longest, 2), batch_size, 0)


def open_writer(model: str | Path) -> Writer:
    """UserError where `model` is no encoder–decoder."""
    directory = model_directory(model)
    shape = checkpoint_config(directory)
    if not shape.is_encoder_decoder:
        raise UserError(f"{model}: is a {', '.join(shape.architectures or ['model'])}, which does not turn one text "
                        f"into another. Train one that does: make finetune-seq2seq.")
    source = load_tokenizer(directory)
    own = Path(checkpoint_directory(directory)) / TARGET_TOKENIZER
    target = load_tokenizer(str(own)) if own.is_dir() else source
    decoding = from_dict(DecodingConfig, getattr(shape, "decoding", None) or {}, f"{model}: decoding in config.json")
    longest = getattr(shape, "max_source_length", None) or source.model_max_length
    accelerator = make_accelerator()
    precision = exact(accelerator.device)
    loaded = load_weights(AutoModelForSeq2SeqLM, directory, model).to(accelerator.device).eval()
    precision.prepare(loaded)
    return Writer(str(model), loaded, source, target,
                  (TokenIds.of(source, str(model)), TokenIds.of(target, str(model))), decoding, longest, accelerator,
                  precision)


def translate(model: str | Path, texts: Sequence[str], batch_size: int = 32, num_beams: int | None = None) -> list[str]:
    """What a model of finetune-seq2seq writes for each text, as it answered its test set.

    num_beams: None for as many as it was tested with. UserError where `model` is no encoder–decoder.
    """
    return open_writer(model).write(texts, batch_size, num_beams)


def written_table(model: str, file: str, text_column: str, reading: Reading, batch_size: int) -> pd.DataFrame:
    """A row a text of a file: `prediction`, then all its columns."""
    rows = list(text_rows(file, text_column, reading=reading))
    if not rows:
        raise UserError(f"{file}: there is no text to ask {model} about. Give at least one.")
    found = {"prediction": translate(model, [row.text for row in rows], batch_size)}
    columns = dict.fromkeys(name for row in rows for name in row.columns)
    inputs = {name: [row.columns.get(name) for row in rows] for name in columns}
    return pd.DataFrame(found | beside(inputs, found, tell))
