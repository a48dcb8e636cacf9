"""The front matter of a card: what the hub sorts, links and compares by. What is not known is not there."""

import re
from pathlib import Path
from typing import Any

from toolkit.metrics.intervals import FEWEST, mean_interval, proportion_interval
from toolkit.publishing import card_results, card_text
from toolkit.publishing.card_data import task_name, without_place
from toolkit.publishing.card_facts import Facts
from toolkit.publishing.card_samples import Samples
from toolkit.shown import on_one_line

_WIDGETS = ("fill-mask", "text-generation", "text-classification", "translation", "text2text-generation")
"""Tasks that the hub has a box to try a model in for."""
_SHARES = {"mlm_accuracy": ("mlm_count", "hidden words"), "nsp_accuracy": ("nsp_count", "pairs of texts"),
           "accuracy": ("count", "tokens")}
"""Of a pretraining: a share → what holds the number of its cases, and what they are."""


def data(facts: Facts, card: Any):
    """huggingface_hub.ModelCardData."""
    from huggingface_hub import ModelCardData

    kind, languages = card_text.kind(facts), card_results.languages(facts, card)
    task = _task(facts, languages)
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+(@\S+)?", facts.base) and not Path(facts.base).exists()
    base = card.base_model or (facts.base.partition("@")[0] if on_hub and not facts.is_random else "")
    entries = {
        "license": card.license, "language": languages, "library_name": facts.model and (
            "transformers" if facts.module is None and not facts.series_sources else "pretraining-toolkit"),
        "pipeline_tag": task, "widget": _widget(facts, card, task),
        "datasets": sorted({*card.datasets, *(_on_hub(source)["dataset_type"] for source in _sources(facts)
                                              if source.startswith("hub:"))}), "base_model": base,
        "tags": ["pretraining-toolkit", *{kind, facts.shape.get("model_type")} - {"other", "experiment", None},
                 *(["time-series-classification"] if kind == "series" else [])]}
    results = _evaluations(facts, task or "other")
    entries |= {"eval_results": results, "model_name": facts.name} if results else {}
    if facts.energy and "emissions_kg" in facts.energy:
        used, machine = facts.energy, facts.manifest.get("machine") or {}
        entries["co2_eq_emissions"] = {
            "emissions": float(f"{1000 * used['emissions_kg']:.4g}"), "source":
            f"codecarbon {used['codecarbon']}, {used['method']}", "training_type":
            "fine-tuning" if "models" in facts.config else "pre-training", "geographical_location": used["country"],
            "hardware_used": machine.get("gpu") or machine.get("model") or machine.get("processor")}
    return ModelCardData(**{key: sorted(value) if key == "tags" else value for key, value in entries.items() if value})


def _task(facts: Facts, languages: list[str]) -> str:
    """As the hub calls it; "" where there is no model, or one of no task."""
    description = card_text.describe(facts)
    if facts.is_pairs and description:  # between languages that are named, it translates
        return "translation" if len(set(languages)) > 1 else description.pipeline_tag
    return "time-series-forecasting" if facts.series_sources and description else (
        description.pipeline_tag if description else "")


def _widget(facts: Facts, card: Any, task: str) -> list[dict[str, str]]:
    """What to try it with: samples that are nobody's own; else, in English, what the code below asks."""
    if task not in _WIDGETS or not facts.tokenizer:
        return []
    texts = Samples(facts).texts() if facts.is_public else []
    if not texts and not facts.is_pairs and card_results.languages(facts, card) in ([], ["en"]):
        texts = [card_text.example(facts)]
    return [{"text": on_one_line(text)} for text in texts]


def _sources(facts: Facts) -> list[str]:
    """All that was read."""
    if facts.series_sources:
        return facts.series_sources
    corpus, labelled = facts.config.get("corpus") or {}, facts.config.get("data") or {}
    sources = [*(corpus.get("sources") or []), *(corpus.get("validation_sources") or []),
               *(labelled.get(split) for split in ("train", "validation", "test"))]
    sources = [file for source in sources for file in (source if isinstance(source, list) else [source])]
    return [source for source in sources if source and isinstance(source, str)]


def _on_hub(source: str) -> dict[str, str]:
    """hub:owner/name[:configuration][@revision][#split], as model-index has it."""
    name, configuration, revision = re.fullmatch(r"hub:([^:@#]*)(?::([^@#]*))?(?:@([^#]*))?(?:#.*)?", source).groups()
    return {"dataset_type": name, "dataset_name": name, **({"dataset_config": configuration} if configuration else {}),
            **({"dataset_revision": revision} if revision else {})}


def _data_set(facts: Facts) -> dict[str, str]:
    """What it was measured on. Only ids on the hub have a slash, so that nothing else looks like one."""
    labelled = facts.config.get("data") or {}
    name = next((str(labelled[key]) for key in ("test", "train") if labelled.get(key)), "")
    if facts.is_pairs:
        files = labelled.get("test") or labelled.get("train") or []
        name = str(files[0]) if len(files) == 1 else task_name(facts)
    sources = _sources(facts)
    if not name and len(sources) == 1:
        name = sources[0]
    if name.startswith("hub:"):
        return _on_hub(name)
    if not name and sources:
        name = ", ".join(map(without_place, sources))
    name = without_place(name) if name else task_name(facts)
    return {"dataset_type": re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data", "dataset_name": on_one_line(name)}


def _evaluations(facts: Facts, task: str) -> list:
    """What was measured, each with its seeds and its interval, as the hub's model-index has it."""
    from huggingface_hub import EvalResult

    result = facts.result or {}
    split = "test" if {"predictions", "mse", "mase", "bleu"} & result.keys() else "validation"
    measured = _tested(facts, result) if split == "test" else _held_out(facts)
    return [EvalResult(task_type=task, **_data_set(facts), dataset_split=split, metric_type=key, metric_name=told,
                       metric_value=float(f"{value:.5g}"))
            for key, value, told in measured if isinstance(value, float) and value == value]


def _held_out(facts: Facts) -> list[tuple[str, Any, str]]:
    """(metric, value, what is to be said of it) of a pretraining."""
    found, rows = facts.evaluation, []
    for key in ("mlm_loss", "mlm_accuracy", "nsp_accuracy", "perplexity", "bits_per_byte", "loss", "accuracy"):
        counted, what = _SHARES.get(key, ("", ""))
        told = _over_cases(found.get(key), found.get(counted), what) if counted else ""
        rows.append((key, found.get(key), _told(key, f"seed {facts.seed}", told)))
    return rows


def _tested(facts: Facts, result: dict) -> list[tuple[str, Any, str]]:
    """The same of what was tuned: this model's figures; beside the one by which arms are compared the mean of all."""
    rows = _written(facts, result) if facts.is_pairs else []
    for key in ("accuracy", "f1", "r2", "mse", "mae", "mase"):
        cases = len(result["predictions"]) if key == "accuracy" and "predictions" in result else None
        rows.append((key, result.get(key), _told(key, f"seed {facts.seed}", _over_cases(
            result.get(key), cases, "test examples"), _over_seeds(facts, key))))
    return rows


def _written(facts: Facts, result: dict) -> list[tuple[str, Any, str]]:
    """Of an encoder–decoder, each with its interval over test pairs where one is known; BLEU with its signature."""
    if not isinstance(result.get("bleu"), float):
        return []
    count, (low, high) = result.get("test_examples"), result.get("bleu_interval") or (None, None)
    told = {"bleu": [f"sacrebleu {result.get('bleu_signature')}", f"95 % over {count:,} test pairs: {low:.1f} to "
                     f"{high:.1f}" if count and low is not None else ""],
            "exact_match": [_over_cases(result.get("exact_match"), count, "test pairs")]}
    return [(key, result.get(key), _told(key, f"seed {facts.seed}", *told.get(key, []), _over_seeds(facts, key)))
            for key in ("bleu", "chrf", "exact_match", "character_error_rate")]


def _over_seeds(facts: Facts, key: str) -> str:
    """What the fit's arm comes to on all its seeds, in words."""
    results = facts.comparison
    mine = next((row for row in results.rows if row.run and row.run == facts.part), None) if results else None
    if mine is None or key != results.metric:
        return ""
    found = mean_interval([row.metrics[key] for row in results.arms()[mine.set, mine.size, mine.arm]])
    if found.n < 2:
        return ""
    half = "" if found.n < FEWEST else f" ± {found.ci95:.3g} (95 %, Student's t)"
    return f"mean of {found.n} seeds {found.mean:.4g}{half}"


def _told(key: str, *more: str) -> str:
    return "; ".join(filter(None, [key.replace("_", " "), *more]))


def _over_cases(share: Any, count: Any, what: str) -> str:
    """Wilson's interval, in words."""
    if not count or not isinstance(share, float):
        return ""
    low, high, _ = proportion_interval(round(share * count), int(count))
    return f"95 % over {int(count):,} {what}: {low:.3f} to {high:.3f}"
