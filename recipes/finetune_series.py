"""Fine-tune text-pretrained backbones to classify time series, each beside a random start and logistic regression.

    make finetune-series CONFIG=recipes/configs/gunpoint.yaml
    python recipes/finetune_series.py --config recipes/configs/demo/series.yaml --output_dir runs/cbf

Series → patches → linear embedding → BERT or GPT through `inputs_embeds` → mean → classes. Without files, a set is
generated from published equations: Cylinder-Bell-Funnel, or another (data.generator). report.html in output_dir shows
it all: gains, scores, the series and what is taken for what.
"""

from toolkit import cli, config
from toolkit.experiments.settings import FinetuneSeriesConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(FinetuneSeriesConfig, __doc__)

from toolkit.commands.finetune_series import finetune_series
from toolkit.experiments.fine_tuning import arms_table
from toolkit.report.ending import command, ending
from toolkit.training.impl.distributed import make_accelerator


def main(argv: list[str]) -> None:
    settings = config.parse(FinetuneSeriesConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = finetune_series(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(f"\ntest accuracy in percent, mean ± 95 % interval over {settings.seeds} seeds, "
                      f"{result['test_examples']:,} series")
    accelerator.print(arms_table(result, list(settings.models)))
    kept = f"{settings.output_dir}/{next(iter(settings.models))}-pretrained/seed-0"
    accelerator.print(ending(settings.output_dir, command("make predict", {"MODEL": kept, "FILE": "series.csv"}),
                             model=f"{kept}/model"))


if __name__ == "__main__":
    cli.run(main)
