"""What pretraining tasks share: published learning rates, and how evaluations are summed."""

import dataclasses

from toolkit.models.presets import preset
from toolkit.tasks.settings import PretrainingConfig

# Peak rates of AdamW as published: Devlin et al. 2018, section A.2; Radford et al. 2018, section 4.1; Brown et al.
# 2020, table 2.1, which GPT-2's sizes of the same shape share (its own paper gives none).
_PUBLISHED_RATES = {
    "bert-base": 1e-4, "bert-large": 1e-4, "gpt1": 2.5e-4,
    "gpt2": 6e-4, "gpt2-medium": 3e-4, "gpt2-large": 2.5e-4, "gpt2-xl": 2e-4,
    "gpt3-small": 6e-4, "gpt3-medium": 3e-4, "gpt3-large": 2.5e-4, "gpt3-xl": 2e-4, "gpt3-2.7b": 1.6e-4,
    "gpt3-6.7b": 1.2e-4, "gpt3-13b": 1e-4, "gpt3": 6e-5}

EVALUATION_SEED = 0x5EED  # one fixed draw of pairs and masks for every evaluation of every run


def with_defaults(training: PretrainingConfig, preset_name: str | None, width: int = 0) -> PretrainingConfig:
    """Optimiser and rates that are left open, as they go with the preset; None: with a model of this width.

    Small models: what transferred best at width 128 (docs/results/transfer.md); wider ones in proportion to 1 / width
    (Yang et al. 2022), measured at 256. Large models: what their authors published.
    """
    narrow = 128 / max(128, preset(preset_name).width if preset_name else width)
    published = _PUBLISHED_RATES.get(preset_name)
    optimizer = training.optimizer or ("adamw" if published else "muon")
    defaults = {"optimizer": optimizer, "learning_rate": published or 2e-3 * narrow,
                "muon_learning_rate": 1e-2 * narrow, "weight_decay": 0.1 if published else 0.3}
    return dataclasses.replace(training, **{key: value for key, value in defaults.items()
                                            if getattr(training, key) is None})


def add_to(totals: dict[str, float], values: dict) -> None:
    for key, value in values.items():
        totals[key] = totals.get(key, 0.0) + float(value)
