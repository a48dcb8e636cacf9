"""Run directories as recipes leave them, written and not trained."""

import json

import torch
import yaml
from safetensors.torch import save_file

from toolkit.run.files import write_json


def make_run(directory, steps=40, tokens=512, lr=1e-3, result=True, **changes):
    """A run directory as the pretraining recipes leave it; losses fall towards 2 / learning rate-dependent."""
    directory.mkdir(parents=True)
    config = {"output_dir": "x", "masking": {"mlm_probability": 0.15}, "model": {"preset": "bert-tiny"},
              "training": {"learning_rate": lr, "max_steps": steps}, **changes}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(directory / "manifest.json", {"commit": "abc1234", "parameters": 1_503_746, "versions": {"torch": "2"},
                                             "data": {"tokenizer": "f" * 64}})
    lines = []
    for step in range(10, steps + 1, 10):
        loss = 8 * 1000 * lr / step + 2
        lines.append({"step": step, "loss": loss, "mlm_loss": loss, "learning_rate": lr, "tokens": step * tokens,
                      "tokens_per_second": 1e4})
        lines.append({"step": step, "eval_loss": loss + 0.1, "eval_mlm_accuracy": 0.1 + step / 1000})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "model").mkdir()
    save_file({"a": torch.zeros(10, 10)}, directory / "model/model.safetensors")
    if result:
        write_json(directory / "result.json", {"mlm_accuracy": 0.14, "loss": loss + 0.1, "steps": steps,
                                               "tokens": steps * tokens})
    return directory
