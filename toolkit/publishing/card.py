"""The model's card: README.md of a run, in Hugging Face's form, made from the run's directory alone.

    regenerate("runs/demo/bert")        # README.md, and curves.png beside it

It is written at every evaluation, so that there is one of a run that was stopped, and when the run ends.
"""

import re
import time
import warnings
from dataclasses import fields
from pathlib import Path

from toolkit.config import from_dict
from toolkit.errors import UserError
from toolkit.publishing import card_results, card_text
from toolkit.publishing.card_facts import Facts
from toolkit.regular import regular
from toolkit.run.directory import home
from toolkit.run.files import write_atomic
from toolkit.run.model_card import CardConfig
from toolkit.shown import as_code, in_markdown

PICTURE = "curves.png"
MARK = "<!-- Written by pretraining-toolkit out of the run's files; `make card` writes it anew. -->"
FEWEST_POINTS = 5  # of a curve
LARGEST_SHARE = 0.01  # of the time of a training, for its cards


def regenerate(directory: str | Path, repository: str | None = None) -> Path:
    """Write a run's card, and its curves, from what lies in its directory; returns the card's path.

    repository: the hub id that its code loads the model from; default the folder beside the card.
    UserError when it is no run's directory, has another README.md, or states what the hub would not take.
    """
    facts = Facts.of(directory)
    path = facts.directory / "README.md"
    if path.exists() and MARK not in regular(path).read_text(encoding="utf-8"):
        raise UserError(f"{path}: was not written by this toolkit, and is left alone. Move it away to have the run's "
                        f"card there.")
    draw(facts)
    write_atomic(path, text(facts, repository))
    return path


def text(facts: Facts, repository: str | None = None) -> str:
    """The card: metadata between lines of ---, then Markdown. Read by huggingface_hub once, so that what does not come
    back as it was is never written.
    """
    from huggingface_hub import ModelCard

    card = stated(facts)
    card.check()
    metadata = data(facts, card)
    sections = [("", card_text.heading(facts))]
    if facts.model:
        beside = as_code(f"{facts.directory.name}/model")
        where = "" if repository else f" `./model` is the folder beside this file, {beside}."
        sections += [("How to use it", f"```python\n{card_text.usage(facts, repository or './model')}\n```\n\n"
                                       f"{_needs(facts)}{where}"),
                     ("The model", card_text.architecture(facts))]
    if facts.kept:
        sections.append(("Its models", "\n".join(
            f"* [`{path.relative_to(facts.directory)}`]({path.relative_to(facts.directory)}/README.md)"
            for path in facts.kept)))
    description = card_text.describe(facts)
    seen = "What it saw" if description and description.is_pretraining else "The data"
    sections += [(seen, card_text.data(facts, card)), ("Tokenizer", card_text.tokenizer(facts)),
                 ("Training", card_text.training(facts) + _picture(facts)), ("Results", card_results.results(facts)),
                 ("Limits and risks", card_results.limits(facts, card)),
                 ("How it was made", card_text.provenance(facts)),
                 ("Licence and author", f"Licence of the model: {card.license or card_text.NOT_STATED}. Author: "
                                        f"{in_markdown(card.author) or card_text.NOT_STATED}.")]
    body = "\n\n".join((f"## {name}\n\n" if name else f"# {in_markdown(facts.name)}\n\n") + content
                       for name, content in sections if content)
    whole = f"---\n{metadata.to_yaml()}\n---\n\n{body}\n\n{MARK}\n"
    if ModelCard(whole).data.to_dict() != metadata.to_dict():
        raise ValueError(f"{facts.directory}: the metadata of the card do not read back as they were")
    return whole


def stated(facts: Facts) -> CardConfig:
    """What the configuration says for the card; keys of other versions are passed over."""
    known = {item.name for item in fields(CardConfig)}
    values = facts.config.get("card") or {}
    return from_dict(CardConfig, {key: value for key, value in values.items() if key in known}, "config.yaml", "card.")


def data(facts: Facts, card: CardConfig):
    """huggingface_hub.ModelCardData; what is not known is not there."""
    from huggingface_hub import ModelCardData

    kind, description = card_text.kind(facts), card_text.describe(facts)
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+(@\S+)?", facts.base) and not Path(facts.base).exists()
    base = card.base_model or (facts.base.partition("@")[0] if on_hub and not facts.is_random else "")
    entries = {
        "license": card.license, "language": card_results.languages(facts, card), "library_name":
        "transformers" if facts.module is None else "pretraining-toolkit",
        "pipeline_tag": description and description.pipeline_tag,
        "datasets": sorted({*card.datasets, *_hub_datasets(facts)}), "base_model": base,
        "tags": ["pretraining-toolkit", *{kind, facts.shape.get("model_type")} - {"other", "experiment", None},
                 *(["time-series-classification"] if kind == "series" else [])]}
    results = _evaluations(facts, description.pipeline_tag if description else "other")
    entries |= {"eval_results": results, "model_name": facts.name} if results else {}
    if facts.energy and "emissions_kg" in facts.energy:
        used, machine = facts.energy, facts.manifest.get("machine") or {}
        entries["co2_eq_emissions"] = {
            "emissions": float(f"{1000 * used['emissions_kg']:.4g}"), "source":
            f"codecarbon {used['codecarbon']}, {used['method']}", "training_type":
            "fine-tuning" if "models" in facts.config else "pre-training", "geographical_location": used["country"],
            "hardware_used": machine.get("gpu") or machine.get("model") or machine.get("processor")}
    return ModelCardData(**{key: sorted(value) if key == "tags" else value for key, value in entries.items() if value})


def _hub_datasets(facts: Facts) -> list[str]:
    """Ids of what was read from the hub: hub:owner/name[:configuration][@revision]."""
    corpus, labelled = facts.config.get("corpus") or {}, facts.config.get("data") or {}
    sources = [*(corpus.get("sources") or []), *(corpus.get("validation_sources") or []),
               *(labelled.get(split) for split in ("train", "validation", "test"))]
    return [re.split("[:@]", source.removeprefix("hub:"))[0] for source in sources
            if isinstance(source, str) and source.startswith("hub:")]


def _evaluations(facts: Facts, task: str) -> list:
    """What was measured, as the hub's model-index has it."""
    from huggingface_hub import EvalResult

    found, result = facts.evaluation, facts.result or {}
    if "predictions" in result:
        values, split = {key: result.get(key) for key in ("accuracy", "f1", "r2", "mse")}, "test"
        name = card_text.task_name(facts)
    elif "mse" in result or "mase" in result:
        values, split = {key: result.get(key) for key in ("mse", "mae", "mase")}, "test"
        name = card_text.task_name(facts)
    else:
        keys = ("mlm_loss", "mlm_accuracy", "nsp_accuracy", "perplexity", "bits_per_byte")
        values, split = {key: found.get(key) for key in (*keys, "loss", "accuracy")}, "validation"
        sources = ((facts.config.get("corpus") or {}).get("sources")) or ["held-out data"]
        name = ", ".join(map(str, sources))
    return [EvalResult(task_type=task, dataset_type=re.sub(r"[^\w./-]+", "-", name).strip("-"), dataset_name=name,
                       dataset_split=split, metric_type=key, metric_name=key.replace("_", " "),
                       metric_value=float(f"{value:.5g}"))
            for key, value in values.items() if isinstance(value, float) and value == value]


def _needs(facts: Facts) -> str:
    if facts.module is None:
        # Saved so before, tokenizers have a name that only transformers 5 knows (`save_tokenizer`).
        versions = "5" if (facts.tokenizer or {}).get("tokenizer_class") == "TokenizersBackend" else "4.57 or 5"
        return f"It needs transformers, of version {versions}, and nothing of what made it."
    return "It needs the package that made it, pretraining-toolkit."


def _picture(facts: Facts) -> str:
    return f"\n\n![Loss by step]({PICTURE})" if (facts.directory / PICTURE).exists() else ""


def draw(facts: Facts) -> None:
    """Curves of training and validation, as PNG beside the card."""
    if len([record for record in facts.records if "loss" in record]) < FEWEST_POINTS:
        return
    from toolkit.report.figures.canvas import save_figure
    from toolkit.report.figures.training import loss_figure

    figure = loss_figure(facts.records, title=facts.name, result=facts.result)
    if figure is not None:
        save_figure(figure, facts.directory / PICTURE)


# --- while a run goes on -------------------------------------------------------------------------------------------


def refresh(directory: str | Path) -> None:
    """`regenerate` for the run that a directory is or is a part of, if any, and, once that has ended, for the models
    it kept. Cards of other runs stay as they are. A failure is said, and stops nothing.
    """
    place = home(directory)
    if place is None:
        return
    try:
        regenerate(place)
        facts = Facts.of(place)
        if facts.result is not None and "models" in facts.config:
            for run in facts.kept:
                regenerate(run)
    except Exception as error:  # noqa: BLE001 - a card is worth less than what it tells of
        warnings.warn(f"{place}/README.md could not be written: {error}", stacklevel=2)


class LiveCard:
    """An observer of runs that keeps their cards: written anew at evaluations, unless that takes more than a hundredth
    of the time, and whenever something is finished.
    """

    def __init__(self) -> None:
        self.began, self.spent = time.monotonic(), 0.0

    def __call__(self, directory: Path, finished: bool = False) -> None:
        now = time.monotonic()
        if finished or self.spent <= LARGEST_SHARE * (now - self.began):
            refresh(directory)
            self.spent += time.monotonic() - now
