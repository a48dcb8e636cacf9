"""Pretrain small language models on your own text, fine-tune them on text and time series, and know whether it helped.

What a notebook needs is imported from here: `from toolkit import generate`. The names below are looked up when they are
asked for, so that `import toolkit` itself costs nothing.
"""

import importlib

from toolkit import bars, openmp

openmp.spin_briefly()
bars.load_tqdm()

_WHERE = {
    # Whole runs, as the commands of the same names: a run directory with its card, and what came out
    "toolkit.commands.pretrain_bert": ("pretrain_bert",),
    "toolkit.commands.pretrain_gpt": ("pretrain_gpt",),
    "toolkit.commands.finetune_text": ("finetune_text",),
    "toolkit.commands.finetune_series": ("finetune_series",),
    # Their settings
    "toolkit.tasks.settings": ("PretrainBertConfig", "PretrainGptConfig", "BertModelSection", "GptModelSection",
                               "PretrainingConfig", "FineTuningConfig", "MaskedPatchesConfig", "ForecastConfig"),
    "toolkit.experiments.settings": ("FinetuneTextConfig", "FinetuneSeriesConfig"),
    "toolkit.models.settings": ("InitialValues",),
    "toolkit.data.stores.settings": ("MaskingConfig",),
    "toolkit.data.text.corpus": ("CorpusConfig", "read_documents"),
    "toolkit.training.impl.settings": ("ImplConfig",),
    "toolkit.run.model_card": ("CardConfig",),
    # Data: documents → tokenizer → token store; labelled texts; labelled series
    "toolkit.data.stores.prepare": ("prepare",),
    "toolkit.data.text.labelled": ("TextDataSection", "load_data"),
    "toolkit.data.text.examples": ("few_shot",),
    "toolkit.data.text.batches": ("TextBatches",),
    "toolkit.data.series.dataset": ("SeriesDataset", "SeriesBatches", "z_normalise"),
    "toolkit.data.series.readers": ("read_series",),
    "toolkit.data.series.splits": ("SeriesDataSection", "load_splits"),
    "toolkit.data.series.windows": ("ForecastDataSection", "load_forecast_data", "window_splits"),
    "toolkit.tokenization.load": ("load_tokenizer",),
    "toolkit.tokenization.measure": ("compare_tokenizers",),
    # Models: transformers' classes, in published sizes; classifiers and forecasters around them
    "toolkit.models.presets": ("model_config",),
    "toolkit.models.initialisation": ("initialise",),
    "toolkit.models.text.bert": ("BertForPreTraining",),
    "toolkit.models.text.gpt": ("GPT2LMHeadModel",),
    "toolkit.models.text.classifier": ("text_classifier",),
    "toolkit.models.load": ("load_checkpoint_tokenizer",),
    "toolkit.models.series": ("SeriesForClassification", "SeriesForForecasting", "SeriesForMaskedPatches"),
    # Training, part by part
    "toolkit.run.directory": ("Run",),
    "toolkit.training.impl.distributed": ("make_accelerator",),
    "toolkit.training.trainer": ("train",),
    "toolkit.tasks.pretraining": ("with_defaults",),
    "toolkit.tasks.masked_lm": ("BertPretraining",),
    "toolkit.tasks.causal_lm": ("GptPretraining",),
    "toolkit.tasks.classification": ("fine_tune",),
    "toolkit.tasks.masked_patches": ("pretrain_on_series",),
    "toolkit.tasks.forecasting": ("fit_forecaster",),
    "toolkit.publishing.card": ("LiveCard",),
    # The same as scikit-learn's estimators
    "toolkit.estimators": ("TextClassifier", "SeriesClassifier", "SeriesForecaster"),
    # What came out: rows, intervals, differences, verdicts
    "toolkit.run.results": ("read_results",),
    "toolkit.metrics.intervals": ("mean_interval", "paired_difference", "proportion_interval", "verdict"),
    "toolkit.metrics.tabulate": ("table",),
    "toolkit.report.runs": ("find_runs", "read_run"),
    "toolkit.report.comparison_page": ("write_runs_page",),
    "toolkit.report.run_report": ("write_report",),
    # Figures: each is returned, and drawn without touching pyplot
    "toolkit.report.comparison_run": ("comparison_figures",),
    "toolkit.report.forecast_run": ("forecast_figures",),
    "toolkit.report.figures.gains": ("Gain", "GainPanel", "gain_figure", "gain_table", "panels_of"),
    "toolkit.report.figures.learning_curves": ("learning_curves_figure",),
    "toolkit.report.figures.many_sets": ("critical_difference_figure", "pairs_figure", "differences_figure"),
    "toolkit.report.figures.classification": ("confusion_counts", "confusion_figure", "ranking_figure",
                                              "calibration_figure", "numbers_figure"),
    "toolkit.report.figures.series": ("examples_figure", "spectra_figure"),
    "toolkit.report.figures.forecasts": ("Forecasts", "forecasts_figure", "SkillPanel", "skill_figure"),
    "toolkit.report.figures.seq2seq": ("alignment_figure", "by_length_figure"),
    "toolkit.report.figures.sweeps": ("sweep_figure",),
    "toolkit.report.figures.vocabularies": ("vocabularies_figure",),
    "toolkit.report.figures.training": ("loss_figure",),
    "toolkit.report.figures.canvas": ("save_figure",),
    # Models asked
    "toolkit.inference.generation": ("open_model", "generate", "continue_text", "fill_masks", "fill_mask"),
    "toolkit.inference.conversation": ("Conversation",),
    "toolkit.inference.text_answers": ("answer_texts",),
    "toolkit.inference.written_answers": ("translate",),
    "toolkit.inference.table_forecasts": ("forecast_table",),
    "toolkit.inference.series_answers": ("answer_series",),
    "toolkit.analysis.attention": ("text_attention", "series_attention", "relative_entropy"),
    "toolkit.analysis.alignment": ("text_alignment",),
    "toolkit.report.attention_page": ("write_attention_page",),
    "toolkit.analysis.bias": ("probe_bias", "read_pairs"),
    "toolkit.errors": ("UserError",),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = list(_MODULE)


def __getattr__(name: str):
    if name not in _MODULE:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    from toolkit.config_docs import document, is_configuration

    value = getattr(importlib.import_module(_MODULE[name]), name)
    if is_configuration(value):
        document(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
