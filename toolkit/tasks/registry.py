"""Tasks by name: in which module each is, and what cards say of its models."""

import importlib

from toolkit.tasks.base import Description

TASKS = {"masked-lm": "toolkit.tasks.masked_lm", "causal-lm": "toolkit.tasks.causal_lm",
         "classification": "toolkit.tasks.classification", "forecasting": "toolkit.tasks.forecasting",
         "masked-patches": "toolkit.tasks.masked_patches", "seq2seq": "toolkit.tasks.seq2seq"}
"""Name → module, which may have `DESCRIPTIONS` for the card."""


def register(name: str, module: str) -> None:
    """Let cards know of a task that is kept elsewhere."""
    TASKS[name] = module


def describe(architecture: str, module: str | None, values: dict) -> Description | None:
    """Of the first task whose model this is. module: of ours, that has the class; values: of its config.json."""
    for place in TASKS.values():
        for description in getattr(importlib.import_module(place), "DESCRIPTIONS", ()):
            if description.is_of(architecture, module, values):
                return description
    return None
