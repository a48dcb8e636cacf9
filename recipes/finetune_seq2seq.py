"""Train an encoder–decoder on pairs of texts: translate, transliterate, normalise, parse.

    make finetune-seq2seq
    make finetune-seq2seq CONFIG=recipes/configs/multi30k.yaml
    python recipes/finetune_seq2seq.py --data.train '[train.de.gz, train.en.gz]' --output_dir runs/de-en

Without files it learns dates and numbers in words → digits. Each seed is a fit of its own; the model that was best on
validation answers the test set once. The first seed's is kept in <output_dir>/seed-0/model, its answers beside it in
predictions.json.
"""

from toolkit import cli, config
from toolkit.experiments.settings import FinetuneSeq2SeqConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(FinetuneSeq2SeqConfig, __doc__)

from toolkit.data.pairs.pair_files import load_pairs
from toolkit.experiments.grid import Cell, Grid
from toolkit.experiments.seq2seq import SCORES, Arm, Tokenised, score_rows, summary_of, training_of, write_alignments
from toolkit.metrics.tabulate import on_screen
from toolkit.publishing.card import LiveCard
from toolkit.report.ending import command, ending
from toolkit.run.directory import Run
from toolkit.tasks.seq2seq import scores, telling_metric
from toolkit.training.impl.distributed import make_accelerator
from toolkit.views import counted


def finetune_seq2seq(settings: FinetuneSeq2SeqConfig, accelerator) -> dict | None:
    """Train every seed; returns what `result.json` holds, a dry run nothing."""
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run, [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    parts = load_pairs(settings.data, accelerator.print)
    tokenised = Tokenised(settings, parts, run, accelerator)
    sides, _ = tokenised.of(settings.model)
    run.write_manifest(examples=dict(zip(("train", "validation", "test"), map(len, parts), strict=True)))
    accelerator.print(f"{len(parts[0]):,} pairs to learn from, {len(parts[1]):,} for validation, {len(parts[2]):,} for "
                      f"test; {len(sides.source):,} tokens" + ("" if sides.is_shared else
                                                               f" of sources, {len(sides.target):,} of targets"))
    grid = Grid("seq2seq", run, accelerator, telling_metric(parts[2].targets), dry_run=settings.dry_run)
    for seed in range(settings.seeds):
        training = training_of(Arm(settings.model, settings.training), tokenised, seed)
        grid.fit(Cell(settings.model.architecture, seed, f"seed-{seed}"), training)
    if settings.dry_run:
        return grid.tell()
    copied = scores(parts[2].sources, parts[2].targets)
    grid.note(Cell("copy of the source", 0), copied)
    write_alignments(run, grid.rows)
    grid.write()
    fits = [row for row in grid.rows if row.arm == settings.model.architecture]
    return run.finish({**summary_of(fits), "copy": copied, "metric": grid.metric,
                       "bleu_signature": copied["bleu_signature"], "test_examples": len(parts[2])})


def main(argv: list[str]) -> None:
    settings = config.parse(FinetuneSeq2SeqConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = finetune_seq2seq(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(on_screen(score_rows({settings.model.architecture: result}, result["copy"]), SCORES))
    decoding = settings.training.decoding
    how = "drawn" if decoding.temperature else "decoded greedily" if decoding.num_beams == 1 else "decoded by beams"
    accelerator.print(f"BLEU: {result['bleu_signature']}; {counted(result['test_examples'], 'test pair')}, {how}")
    first = f"{settings.output_dir}/seed-0"
    accelerator.print(ending(settings.output_dir, command("make predict", {"MODEL": first, "FILE": "texts.txt"}),
                             model=f"{first}/model", answers=f"{first}/predictions.json"))


if __name__ == "__main__":
    cli.run(main)
