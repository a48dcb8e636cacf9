"""Fine-tune pretrained models to classify text, each beside the same model from a random start and TF-IDF.

    make finetune-text CONFIG=recipes/configs/authorship.yaml
    python recipes/finetune_text.py --config recipes/configs/authorship.yaml --seeds 5

Every arm sees the same examples in the same order for the same number of steps; the test set is touched once an arm
and seed. The classifier of the first seed is kept in <output_dir>/<model>-pretrained/seed-0/model, its answers to the
test texts in <model>-predictions.parquet. report.html is a page about all of it, <model>-report.html about one model.
"""

from pathlib import Path

from toolkit import cli, config
from toolkit.experiments.settings import FinetuneTextConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(FinetuneTextConfig, __doc__)

from toolkit.commands.finetune_text import finetune_text
from toolkit.experiments.fine_tuning import arms_table
from toolkit.report.ending import command, ending
from toolkit.tasks.classification import MAIN_SCORE
from toolkit.training.impl.distributed import make_accelerator


def main(argv: list[str]) -> None:
    settings = config.parse(FinetuneTextConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = finetune_text(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(f"\ntest {MAIN_SCORE[settings.data.task]} in percent, mean ± 95 % interval over {settings.seeds} "
                      f"seeds, {result['test_examples']:,} examples")
    accelerator.print(arms_table(result, list(settings.models)))
    first = next(iter(settings.models))
    pages = {f"page, {name}": Path(settings.output_dir) / f"{name}-report.html" for name in settings.models}
    kept = f"{settings.output_dir}/{first}-pretrained/seed-0"
    accelerator.print(ending(settings.output_dir, command("make predict", {"MODEL": kept, "FILE": "texts.csv"}),
                             model=f"{kept}/model", **pages))


if __name__ == "__main__":
    cli.run(main)
