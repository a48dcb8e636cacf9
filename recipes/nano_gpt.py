"""Train the GPT that bbycroft.net/llm draws, 85,584 parameters, to sort six letters; then ask it all 729 questions.

    make nano-gpt

A quarter of the inputs is never trained on, so that a perfect score means sorting and not remembering.
"""

from dataclasses import dataclass, field

from toolkit import cli, config
from toolkit.training.impl.settings import ImplConfig
from toolkit.training.observers.base import LossShown
from toolkit.training.settings import TrainingConfig


@dataclass
class NanoGptConfig:
    output_dir: str = "runs/nano-gpt"
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(
        max_steps=1500, batch_size=64, learning_rate=3e-3, weight_decay=0.01, logging_steps=50, save_steps=500))
    seed: int = 0
    impl: ImplConfig = field(default_factory=lambda: ImplConfig(dtype="fp32"))


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(NanoGptConfig, __doc__)

from pathlib import Path

import numpy as np
import torch

from toolkit.data.stores.sorting import LENGTH, LETTERS, SortingBatches, all_inputs, held_out, with_answers
from toolkit.models.presets import model_config
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.pretrained import saved_model
from toolkit.publishing.card import LiveCard
from toolkit.report.ending import ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.figures.training import loss_figure
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run, read_metrics
from toolkit.tasks.causal_lm import CausalLanguageModelling
from toolkit.training.feed import as_tensors, seed_everything, to_device
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.trainer import train


class Sorting(CausalLanguageModelling):
    """The causal language model's loss on the sorted half; evaluated on the inputs held out."""

    best_metric = "loss"

    def __init__(self, model, batch_size: int, seed: int):
        self.model, self.loss_shown = model, LossShown(guessing=float(np.log(len(LETTERS))))
        self.batch = SortingBatches(batch_size, seed).batch

    def evaluate(self, model, accelerator, precision) -> dict[str, float]:
        inputs = all_inputs()
        batch = with_answers(inputs[held_out(inputs)])
        sums = self.losses(model, to_device(as_tensors(batch), accelerator.device))
        return {"loss": float(sums["lm"]) / sum(self.counts(batch).values())}

    def save(self, model, directory: Path) -> None:
        model.save_pretrained(directory)


def answers(model, inputs: np.ndarray) -> np.ndarray:
    """(n, 6) greedy continuations of the letters."""
    prompt = torch.from_numpy(inputs)
    output = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=LENGTH, do_sample=False)
    return output[:, LENGTH:].numpy()


def nano_gpt(settings: NanoGptConfig, accelerator) -> dict:
    """Train and examine; returns what `result.json` holds."""
    run = Run(settings.output_dir, accelerator.is_main_process, [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    seed_everything(settings.seed)
    model = GPT2LMHeadModel(model_config("gpt-nano", bos_token_id=None, eos_token_id=None))
    run.write_manifest(parameters=model.num_parameters())
    accelerator.print(f"gpt-nano: {model.num_parameters():,} parameters")
    task = Sorting(model, settings.training.batch_size, settings.seed)
    metrics = train(task, settings.training, settings.impl, run, accelerator, settings.seed, "nano GPT")

    inputs = all_inputs()
    best = saved_model(GPT2LMHeadModel, run.model_dir).eval()
    exact = (answers(best, inputs) == np.sort(inputs, 1)).all(1)
    unseen = held_out(inputs)
    result = {**metrics, "guessing": float(np.log(len(LETTERS))), "parameters": model.num_parameters(),
              "inputs": len(inputs), "exact": int(exact.sum()), "held_out": int(unseen.sum()),
              "held_out_exact": int(exact[unseen].sum())}
    figure = loss_figure(read_metrics(run.metrics_path), title="Six letters sorted, by a GPT of "
                         f"{model.num_parameters():,} parameters", result=result)
    if accelerator.is_main_process and figure is not None:
        save_figure(figure, run.directory / "plots/loss.png")
    return run.finish(result)


def main(argv: list[str]) -> None:
    settings = config.parse(NanoGptConfig, argv, __doc__)
    accelerator = make_accelerator()
    result = nano_gpt(settings, accelerator)
    accelerator.print(f"sorted exactly: {result['exact']} of {result['inputs']} inputs, {result['held_out_exact']} of "
                      f"the {result['held_out']} it was never shown")
    if accelerator.is_main_process:
        model = saved_model(GPT2LMHeadModel, f"{settings.output_dir}/model").eval()
        example = all_inputs()[[654]]
        print(f"for instance {spell(example[0])} → {spell(answers(model, example)[0])}")
        write_report(settings.output_dir)
        print(ending(settings.output_dir, "make shakespeare-char",
                     f"loss {result['loss']:.4f} nats a letter; {result['guessing']:.4f} by guessing"))


def spell(ids: np.ndarray) -> str:
    return "".join(LETTERS[i] for i in ids)


if __name__ == "__main__":
    cli.run(main)
