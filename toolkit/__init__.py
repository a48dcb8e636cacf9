"""Pretrain small language models on your own text, fine-tune them on text and time series, and know whether it helped.

What a notebook needs is imported from here: `from toolkit import generate`. The names below are looked up when they are
asked for, so that `import toolkit` itself costs nothing.
"""

import importlib

from toolkit import openmp

openmp.spin_briefly()

_WHERE = {
    # Data: documents → tokenizer → token store; labelled texts; labelled series
    "toolkit.data.text.corpus": ("CorpusConfig", "read_documents"),
    "toolkit.data.stores.prepare": ("prepare",),
    "toolkit.data.stores.bert_batches": ("MaskingConfig",),
    "toolkit.data.text.labelled": ("TextDataSection", "load_data"),
    "toolkit.data.text.examples": ("few_shot",),
    "toolkit.data.text.batches": ("TextBatches",),
    "toolkit.data.series.dataset": ("SeriesDataset", "SeriesBatches", "z_normalise"),
    "toolkit.data.series.readers": ("read_series",),
    "toolkit.data.series.windows": ("load_forecast_data", "window_splits"),
    "toolkit.tokenization.load": ("load_tokenizer",),
    # Models: transformers' classes, in published sizes; classifiers and forecasters around them
    "toolkit.models.presets": ("model_config",),
    "toolkit.models.initialisation": ("InitialValues", "initialise"),
    "toolkit.models.text.bert": ("BertForPreTraining",),
    "toolkit.models.text.gpt": ("GPT2LMHeadModel",),
    "toolkit.models.text.classifier": ("text_classifier",),
    "toolkit.models.load": ("load_checkpoint_tokenizer",),
    "toolkit.models.series": ("SeriesForClassification", "SeriesForForecasting", "SeriesForMaskedPatches"),
    # Training
    "toolkit.run.directory": ("Run",),
    "toolkit.training.impl.distributed": ("make_accelerator",),
    "toolkit.training.impl.precision": ("ImplConfig",),
    "toolkit.training.trainer": ("train",),
    "toolkit.tasks.pretraining": ("PretrainingConfig", "with_defaults"),
    "toolkit.tasks.masked_lm": ("BertPretraining",),
    "toolkit.tasks.causal_lm": ("GptPretraining",),
    "toolkit.tasks.classification": ("FineTuningConfig", "fine_tune"),
    "toolkit.tasks.masked_patches": ("MaskedPatchesConfig", "pretrain_on_series"),
    "toolkit.tasks.forecasting": ("ForecastConfig", "fit_forecaster"),
    "toolkit.publishing.card": ("LiveCard",),
    # The same as scikit-learn's estimators
    "toolkit.estimators": ("TextClassifier", "SeriesClassifier", "SeriesForecaster"),
    # What came out: intervals, differences, verdicts
    "toolkit.metrics.intervals": ("mean_interval", "paired_difference", "proportion_interval", "verdict"),
    "toolkit.metrics.tabulate": ("table",),
    "toolkit.report.runs": ("find_runs", "read_run"),
    "toolkit.report.comparison_page": ("write_runs_page",),
    # Models asked
    "toolkit.inference.generation": ("open_model", "generate", "continue_text", "fill_masks", "fill_mask"),
    "toolkit.inference.conversation": ("Conversation",),
    "toolkit.inference.text_answers": ("answer_texts",),
    "toolkit.inference.table_forecasts": ("forecast_table",),
    "toolkit.inference.series_answers": ("answer_series",),
    "toolkit.analysis.attention": ("text_attention", "series_attention", "relative_entropy"),
    "toolkit.report.attention_page": ("write_attention_page",),
    "toolkit.analysis.bias": ("probe_bias", "read_pairs"),
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
