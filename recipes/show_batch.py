"""Show the rows that a pretraining run sees at a step: any step, past or to come, without running to it.

    make show-batch STEP=1000 CONFIG=recipes/configs/bert-5min.yaml
    python recipes/show_batch.py --step 1000 --pretraining recipes/configs/gpt-5min.yaml --rows 8

The data are prepared if they are not yet. Of a BERT: the pair, its label, and what is to be predicted, as [hidden],
[shown←hidden] where another token stands, [=kept] where it was left; of a GPT: the text, and a bar before each document
that sees nothing of those before it.
"""

from dataclasses import dataclass

import numpy as np
from pretrain_bert import PretrainBertConfig
from pretrain_gpt import PretrainGptConfig

from toolkit import cli, config
from toolkit.data.bert import IGNORED, BertBatches
from toolkit.data.gpt import GptBatches
from toolkit.data.prepare import PreparedData, prepare
from toolkit.errors import UserError


@dataclass
class ShowBatchConfig:
    step: int = 0
    """The training step, counted from 0."""
    pretraining: str = "recipes/configs/demo/bert.yaml"
    """The config.yaml of a pretraining run, or the config it was started from."""
    rows: int = 4
    """Rows of the batch that are shown."""


def read_pretraining(path: str) -> PretrainBertConfig | PretrainGptConfig:
    """Which of the two a config is for shows in its preset, or in a key that only GPT has."""
    values = config.read_yaml(path)
    preset = str((values.get("model") or {}).get("preset", ""))
    is_gpt = preset.startswith("gpt") or {"block_size", "attention_within_documents"} & values.keys()
    return config.from_dict(PretrainGptConfig if is_gpt else PretrainBertConfig, values, path)


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
        cut = int(np.flatnonzero(batch["token_type_ids"][row])[0])
        label = "random B" if batch["next_sentence_label"][row] else "B follows A"
        shown.append(f"row {number}: {label}; {length} of {len(tokens)} tokens, {len(hidden)} predicted\n"
                     f"  A  {' '.join(words[:cut])}\n  B  {' '.join(words[cut:])}")
    return "\n\n".join(shown)


def show_gpt(settings: PretrainGptConfig, data: PreparedData, step: int, rows: range) -> str:
    end_id = data.tokenizer.eos_token_id
    batch = GptBatches(data.train, settings.block_size, settings.training.batch_size, settings.seed, data.weights,
                       end_id if settings.attention_within_documents else None).batch(step, rows)
    shown = []
    for row, number in enumerate(rows):
        ids = batch["input_ids"][row]
        starts = [0, *(np.flatnonzero(ids[1:] == end_id) + 1), len(ids)]
        parts = [data.tokenizer.decode(ids[start:stop]) for start, stop in zip(starts, starts[1:], strict=False)]
        bar = "\n  ┃ " if settings.attention_within_documents else ""
        following = data.tokenizer.decode(batch["labels"][row, -1:])
        shown.append(f"row {number}: of {len(parts)} document{'s'[:len(parts) > 1]}; the last target is {following!r}"
                     f"\n  ┃ {bar.join(parts)}")
    return "\n\n".join(shown)


def main(argv: list[str]) -> None:
    settings = config.parse(ShowBatchConfig, argv, __doc__)
    pretraining = read_pretraining(settings.pretraining)
    is_gpt = isinstance(pretraining, PretrainGptConfig)
    if settings.step < 0:
        raise UserError(f"step is {settings.step}; steps count from 0.")
    if settings.rows < 1:
        raise UserError(f"rows is {settings.rows}; show at least 1.")
    data = prepare(pretraining.corpus, pretraining.tokenizer, pretraining.data_dir, end_documents=is_gpt,
                   num_proc=pretraining.impl.preprocessing_num_workers)
    rows = range(min(settings.rows, pretraining.training.batch_size))
    print(f"step {settings.step:,} of {settings.pretraining}, {len(rows)} of {pretraining.training.batch_size} rows\n")
    print((show_gpt if is_gpt else show_bert)(pretraining, data, settings.step, rows))


if __name__ == "__main__":
    cli.run(main)
