"""Does attention help, by how much, and from which length on? Encoder–decoders side by side, over seeds.

    make compare-seq2seq                                                  # without files, in three minutes
    make compare-seq2seq CONFIG=recipes/configs/compare-bert-gpt.yaml     # BERT and GPT joined, beside random weights

Arms differ from the settings' `model`, and `training`, in the keys that they name. Every arm sees the same pairs, as
long as its budget lasts, and answers the test set once a seed. An arm without attention is what its like that has it is
held against, and random weights what the same pretrained is: the difference with its interval, and by the length of the
source.
"""

from toolkit import cli, config
from toolkit.experiments.settings import CompareSeq2SeqConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(CompareSeq2SeqConfig, __doc__)

from dataclasses import replace

from toolkit.data.pairs.pair_files import PairParts, load_sets
from toolkit.experiments.grid import Cell, Grid
from toolkit.experiments.results import by
from toolkit.experiments.seq2seq import (
    SCORES,
    Arm,
    Tokenised,
    arms_of,
    length_verdict,
    reference_of,
    score_rows,
    summary_of,
    training_of,
    verdict_between,
    write_alignments,
)
from toolkit.metrics.tabulate import on_screen
from toolkit.publishing.card import LiveCard
from toolkit.report.ending import command, ending
from toolkit.run.directory import Run
from toolkit.run.results import Row, Verdict
from toolkit.tasks.seq2seq import scores, telling_metric
from toolkit.training.impl.distributed import make_accelerator
from toolkit.views import counted


def compare_seq2seq(settings: CompareSeq2SeqConfig, accelerator) -> dict | None:
    """Every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run, [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    arms, sets = arms_of(settings, settings.arms), load_sets(settings.data, accelerator.print)
    run.write_manifest(examples={name: dict(zip(("train", "validation", "test"), map(len, parts), strict=True))
                                 for name, parts in sets.items()})
    metric = telling_metric([text for parts in sets.values() for text in parts[2].targets])
    grid = Grid("seq2seq", run, accelerator, metric, dry_run=settings.dry_run)
    for name, parts in sets.items():
        fit_set(grid, name, parts, arms, settings)
    if settings.dry_run:
        return grid.tell()
    of, results, told = by(grid.rows, "set", "arm"), {}, []
    for name, parts in sets.items():
        told += verdicts_of(name, of[name], metric)
        results[name] = {"arms": {arm: summary_of(rows) for arm, rows in of[name].items()},
                         "copy": scores(parts[2].sources, parts[2].targets), "test_examples": len(parts[2])}
    write_alignments(run, grid.rows)
    grid.write(told)
    return run.finish({"sets": results, "verdicts": [verdict.text for verdict in told], "metric": metric,
                       "bleu_signature": next(iter(results.values()))["copy"]["bleu_signature"]})


def fit_set(grid: Grid, name: str, parts: PairParts, arms: dict[str, Arm], settings: CompareSeq2SeqConfig
            ) -> None:
    """Every arm on every seed of one set; what it trains lies in a folder of the set, where it has a name."""
    run = grid.run.part(name) if name else grid.run
    own = replace(settings, data=replace(settings.data, built_in=name)) if name else settings
    tokenised = Tokenised(own, parts, run, grid.accelerator)
    for title, arm in arms.items():
        for seed in range(settings.seeds):
            place = Cell(title, seed, "/".join(filter(None, [name, title, f"seed-{seed}"])), set=name,
                         model=arm.model.architecture, reference=reference_of(title, arms))
            grid.fit(place, training_of(arm, tokenised, seed))


def verdicts_of(name: str, arms: dict[str, list[Row]], metric: str) -> list[Verdict]:
    """What each arm that has a reference gained over it, and from which length on."""
    told = []
    for arm, rows in arms.items():
        if reference := rows[0].reference:
            text = f"{arm} beside {reference}: {verdict_between(rows, arms[reference], metric)}. "
            text += length_verdict(rows, arms[reference], metric)
            told.append(Verdict(arm, f"{name}, {text}" if name else text, name))
    return told


def main(argv: list[str]) -> None:
    settings = config.parse(CompareSeq2SeqConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = compare_seq2seq(settings, accelerator)
    if settings.dry_run:
        return
    for name, found in result["sets"].items():
        title = f"{name}: " if name else ""
        accelerator.print(f"\n{title}{counted(found['test_examples'], 'test pair')}, "
                          f"{counted(settings.seeds, 'seed')}")
        accelerator.print(on_screen(score_rows(found["arms"], found["copy"]), SCORES))
    accelerator.print("\n" + "\n".join(result["verdicts"]))
    accelerator.print(f"BLEU: {result['bleu_signature']}")
    accelerator.print(ending(settings.output_dir, command("make card", {"RUN": settings.output_dir}),
                             results=f"{settings.output_dir}/result.json"))


if __name__ == "__main__":
    cli.run(main)
