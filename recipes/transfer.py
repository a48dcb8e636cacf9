"""What is a checkpoint worth with 100, 400, 1,600 and all labels? Learning curves beside what needs no pretraining.

    make transfer
    make transfer ARGS="--models '{bert: runs/bert/model}' --output_dir runs/transfer-bert"
    make transfer ARGS="--quick true"                     probes only, a minute

For each data set, number of labels and seed (which draws the labels, the random start, the order and the dropout):
a frozen probe (logistic regression on the checkpoint's states), full fine-tuning that starts from this probe, both from
random weights of the same shape, TF-IDF, and averaged word vectors. Writes transfer.json (data set → labels → arm →
mean, ci95), transfer.png (learning curves) and transfer-gains.png. A run that was broken off goes on.
"""

from toolkit import cli, config
from toolkit.experiments.settings import TransferConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(TransferConfig, __doc__)

from pathlib import Path

from toolkit.baselines.classical import majority, tfidf_logistic
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import draw, label_counts
from toolkit.data.text.labelled import TextDataSection, load_data
from toolkit.errors import UserError
from toolkit.experiments.grid import Cell, Grid
from toolkit.experiments.results import cell as shown
from toolkit.experiments.text import (
    Checkpoint,
    arms_by_set_and_labels,
    fine_tuning,
    probed,
    states_by_seed,
    verdicts_by_labels,
)
from toolkit.metrics.tabulate import on_screen
from toolkit.models.load import load_checkpoint_tokenizer
from toolkit.models.word_vectors import averaged, load_word2vec
from toolkit.publishing.card import LiveCard
from toolkit.report.comparison_run import comparison_figures
from toolkit.report.ending import command, ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.tokenization.load import load_tokenizer
from toolkit.training.impl.distributed import make_accelerator


def transfer(settings: TransferConfig, accelerator) -> dict | None:
    """Every arm on every set, count of labels and seed; returns what transfer.json holds, a dry run nothing."""
    if not settings.models or not settings.sets or not settings.labels or settings.seeds < 1:
        raise UserError("transfer needs at least one entry under each of models, sets and labels, and seeds of at "
                        "least 1.")
    sections = {name: config.from_dict(TextDataSection, values or {}, f"sets.{name}")
                for name, values in settings.sets.items()}
    models = {name: Checkpoint(path, load_checkpoint_tokenizer(path)) for name, path in settings.models.items()}
    vectors = load_word2vec(settings.word_vectors) if settings.word_vectors else None
    vector_tokenizer = load_tokenizer(str(Path(settings.word_vectors).parent)) if vectors else None
    data = {name: load_data(section) for name, section in sections.items()}
    for name, checkpoint in models.items():
        for key, (train, _, _) in data.items():
            checkpoint.check(train, sections[key], name, accelerator.print)
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run, [LiveCard()]).open(settings)
    run.write_manifest(examples={name: {"train": len(train), "validation": len(validation), "test": len(test)}
                                 for name, (train, validation, test) in data.items()})

    grid = Grid(Path(settings.output_dir).name, run, accelerator, sizes="labels", dry_run=settings.dry_run)
    for name, (train, validation, test) in data.items():
        seeds = range(settings.seeds)
        draws = {size: [draw(train, count, seed) for seed in seeds]
                 for size, count in label_counts(settings.labels, len(train)).items()}

        def probe(arm: str, states: list, seed: int, name=name, train=train, test=test, draws=draws, **place) -> None:
            for size, by_seed in draws.items():
                grid.measure(Cell(arm, seed, set=name, size=size, **place),
                             lambda chosen=by_seed[seed]: probed(states, chosen, train, test))

        # Without a network: the majority class, TF-IDF, averaged word vectors.
        for size, by_seed in draws.items():
            for seed, labelled in enumerate(map(train.select, by_seed)):
                grid.measure(Cell("majority class", seed, set=name, size=size), lambda labelled=labelled, test=test: {
                    "accuracy": majority(labelled.labels, test.labels)})
                grid.measure(Cell("TF-IDF", seed, set=name, size=size), lambda labelled=labelled, test=test: {
                    "accuracy": float((tfidf_logistic(labelled, test) == test.labels).mean())})
        if vectors and not settings.dry_run:
            averages = [averaged(part.texts, vectors, vector_tokenizer) for part in (train, test)]
            for seed in seeds:
                probe("word vectors", averages, seed)
        accelerator.print(f"{name}: baselines measured" if not settings.dry_run else f"{name}: read", flush=True)

        # With one: frozen, and tuned from the frozen probe; the checkpoint beside random weights of its shape.
        for model, checkpoint in models.items():
            def tokenised(part, batch_size, seed, checkpoint=checkpoint, max_length=sections[name].max_length):
                return TextBatches(part, checkpoint.tokenizer, max_length, batch_size, seed)

            for start in ("pretrained", "random"):
                def place(kind: str, model=model, start=start) -> dict:
                    reference = f"{model}, random: {kind}" if start == "pretrained" else ""
                    return {"model": model, "start": start, "reference": reference}

                if not settings.dry_run:
                    parts = [tokenised(part, 0, 0) for part in (train, test)]
                    for seed, states in enumerate(states_by_seed(checkpoint, train.label_names, parts,
                                                                 start == "pretrained", settings, accelerator)):
                        probe(f"{model}, {start}: probe", states, seed, **place("probe"))
                for size in () if settings.quick else draws:
                    for seed in seeds:
                        batches = tuple(tokenised(part, settings.training.batch_size, seed)
                                        for part in (train.select(draws[size][seed]), validation, test))
                        cell = Cell(f"{model}, {start}: tuned", seed, f"fits/{name}/{model}-{start}/{size}/seed-{seed}",
                                    set=name, size=size, **place("tuned"))
                        grid.fit(cell, fine_tuning(checkpoint, train.label_names, batches, settings, accelerator,
                                                   start == "pretrained"))
    if settings.dry_run:
        return grid.tell()

    result = arms_by_set_and_labels(grid.rows)
    grid.write([verdict for name, curve in result.items() for verdict in verdicts_by_labels(curve, name)])
    if accelerator.is_main_process:
        write_json(run.directory / "transfer.json", result)
        figures = comparison_figures(run.directory)
        save_figure(figures["learning-curves"], run.directory / "transfer.png")
        save_figure(figures["gains"], run.directory / "transfer-gains.png")
        run.tell(finished=True)
    return result


def show(result: dict) -> str:
    """One table a set: arms by number of labels, in percent."""
    blocks = []
    for name, curve in result.items():
        arms = list(next(iter(curve.values())))
        rows = [{"arm": arm} | {size: shown(entries[arm]) for size, entries in curve.items()} for arm in arms]
        lines = [f"{verdict.size} labels, {verdict.arm}: {verdict.text}" for verdict in verdicts_by_labels(curve)]
        blocks.append("\n".join([f"{name}, test accuracy in percent by number of labels", on_screen(rows), *lines]))
    return "\n\n".join(blocks)


def main(argv: list[str]) -> None:
    settings = config.parse(TransferConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = transfer(settings, accelerator)
    if result is not None:
        accelerator.print(show(result))
        if accelerator.is_main_process:
            write_report(settings.output_dir)
        accelerator.print(ending(settings.output_dir, command("make card", {"RUN": settings.output_dir}),
                                 results=f"{settings.output_dir}/transfer.json",
                                 picture=f"{settings.output_dir}/transfer.png"))


if __name__ == "__main__":
    cli.run(main)
