"""A whole comparison of fine-tuned text classifiers with the same from random starts, as `make finetune-text`."""

import hashlib
from functools import partial

from accelerate import Accelerator

from toolkit.analysis.probes import new_text_classifier
from toolkit.analysis.shown_attention import keep_text_map
from toolkit.baselines.classical import constant_outputs, tfidf_outputs
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText, few_shot, spread
from toolkit.data.text.labelled import load_data
from toolkit.errors import UserError
from toolkit.experiments.fine_tuning import Arm, dry_run_arms, fine_tune_arms
from toolkit.experiments.settings import FinetuneTextConfig
from toolkit.models.load import load_checkpoint_tokenizer, pretrained_config
from toolkit.publishing.card import LiveCard
from toolkit.report.comparison_run import comparison_figures
from toolkit.report.figures.canvas import save_figure
from toolkit.report.run_report import write_model_report, write_report
from toolkit.report.sections.classified import Classified
from toolkit.report.sections.predictions import write_predictions
from toolkit.run.binary import read_npz
from toolkit.run.directory import Run
from toolkit.tasks.classification import MAIN_SCORE, score
from toolkit.tokenization import load as tokenization
from toolkit.tokenization.measure import check_unknown
from toolkit.training.impl.distributed import make_accelerator


def finetune_text(settings: FinetuneTextConfig, accelerator: Accelerator | None = None) -> dict | None:
    """Train every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    accelerator = accelerator or make_accelerator(settings.impl.ddp_timeout, settings.impl)
    if not settings.models:
        raise UserError("models is empty; name at least one checkpoint, for instance {bert: runs/demo/bert/model}.")
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run,
              [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    data = settings.data
    train, validation, test = load_data(data, accelerator.print)
    whole = settings.pooling == "cls" and data.long_texts == "windows"  # transformers' own classes read no windows
    tokenizers = {name: load_checkpoint_tokenizer(path, data.max_length if whole else None)
                  for name, path in settings.models.items()}
    for name, tokenizer in tokenizers.items():
        check_unknown(tokenizer, spread(train, 2000), f"models.{name}, on texts of data.train", data.max_unknown,
                      "data.max_unknown", accelerator.print)
    positions = {name: pretrained_config(path).max_position_embeddings for name, path in settings.models.items()}
    parts = {"train": train, "validation": validation, "test": test}
    run.write_manifest(examples={split: len(part) for split, part in parts.items()},
                       data={"labelled": {split: fingerprint(part) for split, part in parts.items()},
                             "tokenizer": {name: tokenization.fingerprint(tokenizer)
                                           for name, tokenizer in tokenizers.items()}})
    accelerator.print(f"{len(train):,} labelled examples to draw from, {len(validation):,} for validation, "
                      f"{len(test):,} for test; {len(train.label_names)} classes")

    def on_seed(seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        labelled = few_shot(train, data.shots, seed, data.train or "the built-in task") if data.shots else train
        arms = {}
        for name, path in settings.models.items():
            batches = tuple(TextBatches(part, tokenizers[name], data.max_length, settings.training.batch_size, seed,
                                        data.long_texts, positions[name]) for part in (labelled, validation, test))
            make = partial(new_text_classifier, path, train.label_names, tokenizers[name], batches[0], accelerator,
                           settings.impl, pooling=settings.pooling, dropout=settings.dropout, task=train.task)
            arms[name] = Arm(make, batches, tokenizers[name], train.task, settings.threshold)
        return arms, {name: score(train.task, outputs(labelled, test), test.labels)[MAIN_SCORE[train.task]]
                      for name, outputs in (("tfidf", tfidf_outputs), ("majority", constant_outputs))}

    if settings.dry_run:
        return dry_run_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator)
    result = fine_tune_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator, "text")
    if accelerator.is_main_process:
        save_figure(comparison_figures(run.directory)["gains"], run.directory / "plots/gains.png")
        for name in settings.models:
            keep_answers(run, name, test)
    result = run.finish({**result, "label_names": list(test.label_names)})
    if accelerator.is_main_process:
        for name, tokenizer in tokenizers.items():
            keep_text_map(run.directory / f"{name}-pretrained/seed-0", test, tokenizer,
                          min(data.max_length, positions[name]))
        for name in settings.models:
            write_model_report(run.directory, name)
        write_report(run.directory)
    return result


def fingerprint(part: LabelledText) -> str:
    """SHA-256 of the texts and their labels, in order."""
    digest = hashlib.sha256(repr(part.label_names).encode() + part.labels.tobytes())
    for text in (*part.texts, *(part.pairs or ())):
        digest.update(repr(text).encode())
    return digest.hexdigest()


def keep_answers(run: Run, model: str, test: LabelledText) -> None:
    """The kept model's answers to the test texts, as a table."""
    kept = run.directory / f"{model}-pretrained/seed-0"
    probabilities = read_npz(kept / "outputs.npz", "test")["test"].astype(float)
    write_predictions(Classified(test.texts, test.labels, probabilities, test.label_names, task=test.task,
                                 pairs=test.pairs), run.directory / f"{model}-predictions.parquet")
