"""Run directories as training leaves them, small enough to push in no time: a BERT with checkpoints, classifiers."""

import json
from pathlib import Path

import small
import torch
import yaml
from PIL import Image

from toolkit.models.series.patches import SeriesForClassification
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.classifier import text_classifier
from toolkit.training import checkpoint

CARD = """---
license: apache-2.0
language: en
library_name: transformers
tags: [toolkit]
---

# A little model

![its loss](plots/loss.png)
"""


def finish(run: Path, model, tokenizer=None) -> Path:
    """What every finished run has beside its model."""
    model.save_pretrained(run / "model")
    if tokenizer is not None:
        tokenizer.save_pretrained(run / "model")
    (run / "plots").mkdir()
    Image.new("RGB", (8, 8), "white").save(run / "plots/loss.png")
    (run / "config.yaml").write_text(yaml.safe_dump({"output_dir": f"runs/{run.name}", "seed": 0}))
    (run / "metrics.jsonl").write_text("".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in (1, 2)))
    (run / "result.json").write_text('{"loss": 0.5, "predictions": [1, 2, 3]}')
    (run / "manifest.json").write_text("{}")
    (run / ".lock").touch()
    return run


def bert_run(run: Path, tokenizer) -> Path:
    """Pretrained; with checkpoints of steps 10 and 20, whose weights differ from each other's and the final ones."""
    torch.manual_seed(0)
    model = BertForPreTraining(small.bert_config(len(tokenizer)))
    optimizer = torch.optim.SGD(model.parameters())
    for step in (10, 20):
        torch.nn.init.constant_(model.cls.seq_relationship.bias, step)
        checkpoint.save(run / "checkpoints", step, checkpoint.snapshot(model, [optimizer]), {}, keep=2)
    torch.nn.init.constant_(model.cls.seq_relationship.bias, 1.0)
    finish(run, model, tokenizer)
    (run / "README.md").write_text(CARD)  # by hand; the others have none yet
    return run


def text_run(run: Path, pretrained: Path, tokenizer) -> Path:
    """A pooled classifier of three classes, of a class of this toolkit."""
    torch.manual_seed(1)
    return finish(run, text_classifier(str(pretrained / "model"), ["red", "green", "blue"], tokenizer, True).eval(),
                  tokenizer)


def series_run(run: Path, pretrained: Path) -> Path:
    """A series classifier of two classes, of a class of this toolkit."""
    torch.manual_seed(2)
    return finish(run, SeriesForClassification.from_backbone(str(pretrained / "model"), ["up", "down"], pretrained=True,
                                                             patch_length=8))
