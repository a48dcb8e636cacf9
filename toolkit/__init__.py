"""Pretrain small language models on your own text, fine-tune them on text and time series, and know whether it helped.

What a notebook needs is imported from here: `from toolkit import generate`. The names below are looked up when they are
asked for, so that `import toolkit` itself costs nothing.
"""

import importlib

from toolkit import openmp

openmp.spin_briefly()

_WHERE = {
    # Data: documents → tokenizer → token store; labelled texts; labelled series
    "toolkit.data.corpus": ("CorpusConfig", "read_documents"),
    "toolkit.data.prepare": ("prepare",),
    "toolkit.data.bert": ("MaskingConfig",),
    "toolkit.data.labelled": ("TextDataSection", "load_data", "few_shot"),
    "toolkit.data.text_batches": ("TextBatches",),
    "toolkit.data.series": ("SeriesDataset", "SeriesBatches", "z_normalise"),
    "toolkit.data.series_files": ("read_series",),
    "toolkit.data.forecasting": ("load_forecast_data", "window_splits"),
    "toolkit.tokenization": ("load_tokenizer",),
    # Models: transformers' classes, in published sizes; classifiers and forecasters around them
    "toolkit.models.presets": ("model_config",),
    "toolkit.models.initialisation": ("InitialValues", "initialise"),
    "toolkit.models.bert": ("BertForPreTraining",),
    "toolkit.models.gpt": ("GPT2LMHeadModel",),
    "toolkit.models.text": ("text_classifier", "load_checkpoint_tokenizer"),
    "toolkit.models.series": ("SeriesForClassification", "SeriesForForecasting", "SeriesForMaskedPatches"),
    # Training
    "toolkit.run": ("Run",),
    "toolkit.training.distributed": ("make_accelerator",),
    "toolkit.training.precision": ("ImplConfig",),
    "toolkit.training.pretraining": ("BertPretraining", "GptPretraining", "PretrainingConfig", "with_defaults"),
    "toolkit.training.loop": ("train",),
    "toolkit.training.fine_tuning": ("FineTuningConfig", "fine_tune"),
    "toolkit.training.masked_patches": ("MaskedPatchesConfig", "pretrain_on_series"),
    "toolkit.training.forecasting": ("ForecastConfig", "fit_forecaster"),
    # What came out: intervals, differences, verdicts
    "toolkit.compare": ("mean_interval", "paired_difference", "proportion_interval", "verdict", "table"),
    "toolkit.run_browser": ("find_runs", "read_run", "write_runs_page"),
    # Models asked
    "toolkit.generation": ("open_model", "generate", "continue_text", "Conversation", "fill_masks", "fill_mask"),
    "toolkit.attention_page": ("text_attention", "series_attention", "relative_entropy", "write_attention_page"),
    "toolkit.bias": ("probe_bias", "read_pairs"),
    "toolkit.errors": ("UserError",),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = list(_MODULE)


def __getattr__(name: str):
    if name not in _MODULE:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
