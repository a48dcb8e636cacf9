"""Does attention help, by how much, and from which length on? Encoder–decoders side by side, over seeds.

    make compare-seq2seq

Arms differ from the settings' `model` in the keys that they name. Every arm sees the same pairs, as long as its budget
lasts, and answers the test set once a seed. An arm without attention is held against its like that has it, one from
random weights against the same pretrained: the difference with its interval, and by the length of the source.
"""

from toolkit import cli, config
from toolkit.experiments.settings import CompareSeq2SeqConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(CompareSeq2SeqConfig, __doc__)

from toolkit.data.pairs.pair_files import load_pairs
from toolkit.experiments.grid import Cell, Grid
from toolkit.experiments.results import by, summary, values
from toolkit.experiments.seq2seq import (
    METRICS,
    SCORES,
    arms_of,
    length_verdict,
    reference_of,
    score_rows,
    tokenizers_of,
    training_of,
    verdict_between,
    write_alignments,
)
from toolkit.metrics.tabulate import table
from toolkit.publishing.card import LiveCard
from toolkit.run.directory import Run
from toolkit.run.results import Verdict
from toolkit.tasks.seq2seq import scores, telling_metric
from toolkit.training.impl.distributed import main_process_first, make_accelerator


def compare_seq2seq(settings: CompareSeq2SeqConfig, accelerator) -> dict | None:
    """Every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run, [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    arms = arms_of(settings, settings.arms)
    parts = load_pairs(settings.data, accelerator.print)
    run.write_manifest(examples=dict(zip(("train", "validation", "test"), map(len, parts), strict=True)))
    metric = telling_metric(parts[2].targets)
    grid = Grid("seq2seq", run, accelerator, metric, dry_run=settings.dry_run)
    for name, model in arms.items():
        with main_process_first(accelerator):
            sides = tokenizers_of(settings, parts[0], model, run, accelerator.print)
        for seed in range(settings.seeds):
            place = Cell(name, seed, f"{name}/seed-{seed}", model=model.architecture,
                         reference=reference_of(name, arms))
            grid.fit(place, training_of(model, sides, parts, settings, seed))
    if settings.dry_run:
        return grid.tell()
    copied = scores(parts[2].sources, parts[2].targets)
    of = by(grid.rows, "arm")
    verdicts = {name: verdict_between(rows, of[rows[0].reference], metric) for name, rows in of.items()
                if rows[0].reference}
    told = [Verdict(name, f"{name} beside {of[name][0].reference}: {text}. "
                    + length_verdict(of[name], of[of[name][0].reference], metric))
            for name, text in verdicts.items()]
    write_alignments(run, grid.rows)
    grid.write(told)
    summaries = {name: {key: summary(values(rows, key)) for key in METRICS} for name, rows in of.items()}
    return run.finish({"arms": summaries, "verdicts": [verdict.text for verdict in told],
                       "copy": copied, "metric": metric, "bleu_signature": copied["bleu_signature"],
                       "test_examples": len(parts[2])})


def main(argv: list[str]) -> None:
    settings = config.parse(CompareSeq2SeqConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = compare_seq2seq(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(table(score_rows(result["arms"], result["copy"]), SCORES))
    accelerator.print("\n".join(result["verdicts"]))
    accelerator.print(f"BLEU: {result['bleu_signature']}; {result['test_examples']:,} test pairs, {settings.seeds} "
                      f"seeds")


if __name__ == "__main__":
    cli.run(main)
