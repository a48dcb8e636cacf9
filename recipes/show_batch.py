"""Show the rows that a run sees at a step: any step, past or to come, without running to it.

    make show-batch STEP=1000 CONFIG=recipes/configs/bert-5min.yaml
    make show-batch CONFIG=recipes/configs/gunpoint.yaml                         # series: of make finetune-series
    python recipes/show_batch.py --step 1000 --pretraining recipes/configs/gpt-5min.yaml --rows 8

The data are prepared if they are not yet. Of a BERT: the pair, its label, and what is to be predicted, as [hidden],
[shown←hidden] where another token stands, [=kept] where it was left; of a GPT: the text, or the series' values in units
of their context's mean size, and a bar before each document that sees nothing of those before it. Of labelled series:
shapes and classes, and of each row its class, its first values, and how much of it was observed, in how many patches.
"""

from dataclasses import dataclass

from toolkit import cli, config


@dataclass
class ShowBatchConfig:
    step: int = 0
    """The training step, counted from 0."""
    pretraining: str = "recipes/configs/demo/bert.yaml"
    """The config.yaml of a run, of pretraining or of finetune-series, or the config it was started from."""
    rows: int = 4
    """Rows of the batch that are shown."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(ShowBatchConfig, __doc__)

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch

from toolkit.data.batches import IGNORED
from toolkit.data.series.dataset import SeriesBatches
from toolkit.data.series.splits import ROLES, SeriesDataSection, check_patches, load_splits
from toolkit.data.stores.bert_batches import BertBatches
from toolkit.data.stores.gpt_batches import GptBatches
from toolkit.data.stores.prepare import PreparedData, prepare
from toolkit.data.text.labelled import TextDataSection
from toolkit.errors import UserError
from toolkit.experiments.series import patches_of
from toolkit.experiments.settings import FinetuneSeriesConfig
from toolkit.experiments.sweep import read_pretraining
from toolkit.models.series.embedding import patches_observed
from toolkit.tasks.causal_lm import pretraining_data
from toolkit.tasks.continued import start_of
from toolkit.tasks.settings import PretrainBertConfig, PretrainGptConfig
from toolkit.tokenization.bins import SeriesBins

SHOWN_VALUES = 8


def is_of_series(path: str) -> bool:
    """Whether a config is of finetune-series: it names models, and what of data or patches series alone have."""
    values = config.read_yaml(path)
    if "models" not in values:
        return False
    text_keys = {field.name for field in fields(TextDataSection)}
    own_keys = {field.name for field in fields(SeriesDataSection)} - text_keys
    if "patch_length" not in values and not own_keys & (values.get("data") or {}).keys():
        raise UserError(f"{path}: names models to fine-tune, but nothing of series, such as patch_length. Give a "
                        f"config of make pretrain-bert, pretrain-gpt or finetune-series.")
    return True


def show_bert(settings: PretrainBertConfig, data: PreparedData, step: int, rows: range) -> str:
    batch = BertBatches(data.train, data.tokenizer, settings.masking, settings.training.batch_size, settings.seed,
                        data.weights).batch(step, rows)
    shown = []
    for row, number in enumerate(rows):
        tokens = data.tokenizer.convert_ids_to_tokens(batch["input_ids"][row].tolist())
        hidden = {int(place): data.tokenizer.convert_ids_to_tokens(int(label)) for place, label in
                  zip(batch["masked_positions"][row], batch["masked_labels"][row], strict=True) if label != IGNORED}
        length = int(batch["attention_mask"][row].sum())
        words = tokens[:length]
        for place, token in hidden.items():
            shown_as = {data.tokenizer.mask_token: "", token: "="}.get(words[place], f"{words[place]}←")
            words[place] = f"[{shown_as}{token}]"
        cut = int(np.argmax(batch["token_type_ids"][row])) or length  # a row may have no B
        label = "random B" if batch["next_sentence_label"][row] else "B follows A" if cut < length else "A alone"
        shown.append(f"row {number}: {label}; {length} of {len(tokens)} tokens, {len(hidden)} predicted\n"
                     f"  A  {' '.join(words[:cut])}" + f"\n  B  {' '.join(words[cut:])}" * (cut < length))
    return "\n\n".join(shown)


def show_gpt(settings: PretrainGptConfig, data: PreparedData, step: int, rows: range) -> str:
    end_id = data.tokenizer.eos_token_id
    batch = GptBatches(data.train, settings.block_size, settings.training.batch_size, settings.seed, data.weights,
                       end_id if settings.attention_within_documents else None).batch(step, rows)
    shown = []
    read = _values_of(data.tokenizer) if isinstance(data.tokenizer, SeriesBins) else data.tokenizer.decode
    for row, number in enumerate(rows):
        ids = batch["input_ids"][row]
        starts = [0, *(np.flatnonzero(ids[1:] == end_id) + 1), len(ids)]
        parts = [read(ids[start:stop]) for start, stop in zip(starts, starts[1:], strict=False)]
        bar = "\n  ┃ " if settings.attention_within_documents else ""
        following = read(batch["labels"][row, -1:])
        shown.append(f"row {number}: of {len(parts)} document{'s'[:len(parts) > 1]}; the last target is {following!r}"
                     f"\n  ┃ {bar.join(parts)}")
    return "\n\n".join(shown)


def _values_of(bins: SeriesBins) -> Callable[[np.ndarray], str]:
    def read(ids: np.ndarray) -> str:
        values = bins.decode(ids[None], np.ones(1))[0]
        return f"<end> {_few(values[1:])}".strip() if ids[0] == bins.eos_token_id else _few(values)

    return read


def _few(values: np.ndarray) -> str:
    rest = len(values) - SHOWN_VALUES
    shown = " ".join("–" if np.isnan(value) else f"{value:.2f}" for value in values[:SHOWN_VALUES])
    return shown + (f" … {rest:,} more" if rest > 0 else "")


def show_series(settings: FinetuneSeriesConfig, step: int, rows: range) -> str:
    """What the splits are, and rows of the first seed's training series; a value that was not observed is –."""
    lines: list[str] = []
    parts = load_splits(settings.data, 0, lines.append)
    train, size = parts[0], settings.training.batch_size
    lines.append(", ".join(f"{role} {len(part):,}" for role, part in zip(ROLES, parts, strict=True)) +
                 f" series; classes: {', '.join(train.label_names)}")
    cuts: dict[tuple[int, int], list[str]] = {}  # length and stride of patches → who cuts so
    for name, path in settings.models.items():
        patches = patches_of(path, settings.patch_length)
        check_patches(parts, patches.patch_length, patches.patch_stride,
                      patches.backbone_config.max_position_embeddings, lines.append)
        cuts.setdefault((patches.patch_length, patches.patch_stride), []).append(name)
    lines += [f"{', '.join(names)}: patches of {length} values, one every {stride}"
              for (length, stride), names in cuts.items()]
    batch = SeriesBatches(train, size, 0).batch(step, rows)
    observed = batch.get("observed", np.ones(batch["values"].shape, bool))
    shape = " × ".join(map(str, (size, *train.values.shape[1:])))
    lines.append(f"batch: values {shape} (series × channels × values), labels {size}"
                 f"{f', observed {shape}' if 'observed' in batch else ''}")
    for row, number in enumerate(rows):
        seen = observed[row]
        length = int(np.flatnonzero(seen.any(0))[-1]) + 1 if seen.any() else 0
        masks = [patches_observed(torch.from_numpy(observed[row:row + 1]), *cut) for cut in cuts]
        lines.append(f"\nrow {number}: class {train.label_names[batch['labels'][row]]}; {length:,} values, "
                     f"{100 * seen[:, :length].mean() if length else 0:.0f} % observed; patches with values: " +
                     ", ".join(f"{int(mask.sum())} of {mask.numel()}" for mask in masks))
        lines += [f"  ┃ {_few(channel[:length])}" for channel in np.where(seen, batch["values"][row], np.nan)]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    settings = config.parse(ShowBatchConfig, argv, __doc__)
    if settings.step < 0:
        raise UserError(f"step is {settings.step}; steps count from 0.")
    if settings.rows < 1:
        raise UserError(f"rows is {settings.rows}; show at least 1.")
    if is_of_series(settings.pretraining):
        run = config.from_dict(FinetuneSeriesConfig, config.with_places(
            FinetuneSeriesConfig, config.read_yaml(settings.pretraining), settings.pretraining), settings.pretraining)
    else:
        run = read_pretraining(settings.pretraining)
        run, _ = start_of(run, "gpt2" if isinstance(run, PretrainGptConfig) else "bert")
    rows = range(min(settings.rows, run.training.batch_size))
    if isinstance(run, FinetuneSeriesConfig):
        shown = show_series(run, settings.step, rows)
    elif isinstance(run, PretrainGptConfig):
        shown = show_gpt(run, pretraining_data(run, True), settings.step, rows)
    else:
        data = prepare(run.corpus, run.tokenizer, run.data_dir, end_documents=False,
                       num_proc=run.impl.preprocessing_num_workers)
        shown = show_bert(run, data, settings.step, rows)
    print(f"step {settings.step:,} of {settings.pretraining}, {len(rows)} of {run.training.batch_size} rows\n\n{shown}")


if __name__ == "__main__":
    cli.run(main)
