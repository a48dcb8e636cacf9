"""Pretrain the same model with several settings of its optimiser, and see which learns most from the same budget.

    make sweep CONFIG=recipes/configs/sweep-gpt-tiny.yaml
    make sweep CONFIG=… ARGS="--seeds 3"

Each setting is a run of the recipe with some keys changed, kept under output_dir; a sweep that was broken off goes on,
and settings may be added to a finished one. Writes sweep.json and sweep.png.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from pretrain_bert import PretrainBertConfig, pretrain_bert
from pretrain_gpt import pretrain_gpt
from show_batch import read_pretraining

from toolkit import cli, config
from toolkit.compare import mean_interval, table
from toolkit.errors import UserError
from toolkit.report import plot_sweep
from toolkit.run import environment, write_json
from toolkit.training.budget import Budget
from toolkit.training.loop import make_accelerator


@dataclass
class SweepConfig:
    output_dir: str
    pretraining: str
    """The config that every setting starts from."""
    training: list[dict] = field(default_factory=list)
    """The settings: keys of the `training` section with their values."""
    seeds: int = 1


def sweep(settings: SweepConfig, accelerator) -> dict:
    """Run every setting on every seed; returns what sweep.json holds, best first."""
    if not settings.training or settings.seeds < 1:
        raise UserError("a sweep needs at least one entry under 'training' and seeds of at least 1.")
    pretraining = read_pretraining(settings.pretraining)
    base, kind, budget = config.to_dict(pretraining), type(pretraining), Budget(pretraining.training)
    pretrain, metric = (pretrain_bert, "mlm_loss") if kind is PretrainBertConfig else (pretrain_gpt, "loss")
    rows = []
    for changes in settings.training:
        name = ", ".join(str(value) if key == "optimizer" else f"{key} {value}" for key, value in changes.items())
        values = {**base, "training": {**base["training"], **changes}}
        losses = []
        for seed in range(settings.seeds):
            run = config.from_dict(kind, values, f"{settings.pretraining} with {name}")
            directory = Path(settings.output_dir) / name.replace(", ", "_").replace(" ", "-") / f"seed-{seed}"
            losses.append(pretrain(replace(run, output_dir=str(directory), seed=seed), accelerator)[metric])
            accelerator.print(f"{name}, seed {seed}: {metric} {losses[-1]:.3f}")
        rows.append({"setting": name, **changes, **mean_interval(losses).as_dict(), "values": losses})
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
    accelerator.print(table([{"setting": row["setting"], result["metric"]: f"{row['mean']:.3f}"}
                             for row in result["settings"]], ["setting", result["metric"]]))
    accelerator.print(f"{settings.output_dir}/sweep.json")


if __name__ == "__main__":
    cli.run(main)
