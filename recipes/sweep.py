"""Pretrain the same model with several settings, and see which learns most, and most of use, from the same budget.

    make sweep CONFIG=recipes/configs/sweep-gpt-tiny.yaml
    make sweep CONFIG=… ARGS="--seeds 3"

Each setting is a run of the recipe with some keys changed, kept under output_dir; a sweep that was broken off goes on,
and settings may be added to a finished one. Writes sweep.json and sweep.png. Where the pretraining config has `probes`,
they are in the table too.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from pretrain_bert import PretrainBertConfig, pretrain_bert
from pretrain_gpt import pretrain_gpt
from show_batch import read_pretraining

from toolkit import cli, config
from toolkit.errors import UserError
from toolkit.metrics.intervals import mean_interval
from toolkit.metrics.tabulate import table
from toolkit.report.plots import plot_sweep
from toolkit.run.files import write_json
from toolkit.run.provenance import environment
from toolkit.training.budget import Budget
from toolkit.training.impl.distributed import make_accelerator


@dataclass
class SweepConfig:
    output_dir: str
    pretraining: str
    """The config that every setting starts from."""
    settings: list[dict] = field(default_factory=list)
    """Each a dictionary of keys, as on the command line, and their values: {training.optimizer: adamw}."""
    seeds: int = 1


def sweep(settings: SweepConfig, accelerator) -> dict:
    """Run every setting on every seed; returns what sweep.json holds, best first."""
    if not settings.settings or settings.seeds < 1:
        raise UserError("a sweep needs at least one entry under 'settings' and seeds of at least 1.")
    pretraining = read_pretraining(settings.pretraining)
    base, kind, budget = config.to_dict(pretraining), type(pretraining), Budget(pretraining.training)
    pretrain, metric = (pretrain_bert, "mlm_loss") if kind is PretrainBertConfig else (pretrain_gpt, "loss")
    rows = []
    for changes in settings.settings:
        name = ", ".join(f"{key.removeprefix('training.')} {value}" for key, value in changes.items()) or "as it is"
        changed = config.from_dict(kind, config.with_values(base, changes), f"{settings.pretraining} with {name}")
        results = []
        for seed in range(settings.seeds):
            directory = Path(settings.output_dir) / re.sub(r"[^\w.+-]+", "-", name) / f"seed-{seed}"
            results.append(pretrain(replace(changed, output_dir=str(directory), seed=seed), accelerator))
            accelerator.print(f"{name}, seed {seed}: {metric} {results[-1][metric]:.3f}")
        measured = {key: mean_interval([result[key] for result in results]).as_dict()
                    for key in ("nsp_accuracy", "probe") if key in results[0]}
        losses = [result[metric] for result in results]
        rows.append({"setting": name, "changes": changes, **mean_interval(losses).as_dict(), "values": losses,
                     **measured})
    rows.sort(key=lambda row: row["mean"])
    result = {"metric": metric, "pretraining": base, "settings": rows, "environment": environment()}
    if accelerator.is_main_process:
        write_json(Path(settings.output_dir) / "sweep.json", result)
        plot_sweep(rows, Path(settings.output_dir) / "sweep.png",
                   f"{base['model']['preset']}, {budget.limit:,} {budget.name.removeprefix('max_')}: validation "
                   f"{metric.replace('_', ' ')}")
    return result


def main(argv: list[str]) -> None:
    settings = config.parse(SweepConfig, argv, __doc__)
    accelerator = make_accelerator()
    result = sweep(settings, accelerator)
    accelerator.print(table([{"setting": row["setting"], result["metric"]: f"{row['mean']:.3f}"} |
                             {key: f"{row[key]['mean']:.3f}" for key in ("nsp_accuracy", "probe") if key in row}
                             for row in result["settings"]]))
    accelerator.print(f"{settings.output_dir}/sweep.json")


if __name__ == "__main__":
    cli.run(main)
