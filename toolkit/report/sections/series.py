"""Fine-tuned classifiers of series: what pretraining bought, the series themselves, and what is taken for what."""

from collections.abc import Sequence

import numpy as np

from toolkit.data.series.dataset import SeriesDataset
from toolkit.errors import UserError
from toolkit.report.figures.mistakes import Mistake, mistakes_figure
from toolkit.report.figures.series import examples_figure, spectra_figure
from toolkit.report.page import Section, grouped, join, paragraph, picture
from toolkit.report.sections import pieces
from toolkit.report.sections.classified import Classified, answers_sections
from toolkit.report.sections.evidence import Evidence
from toolkit.report.sections.text import curves_section, summed_up
from toolkit.run.binary import read_npz

SHOWN = "shown-series.npz"
"""What a page needs of the series, which lie in nobody's run: see `toolkit.experiments.shown_series`."""


def series_page(run: Evidence) -> tuple[str, list[Section]]:
    sections, lead = [], pieces.lead(run.results)
    if run.results:
        sections = [*pieces.gains(run.results), pieces.arms_section(run.results)]
    shown = shown_of(run)
    names = names_of(shown)
    kept = [name for name in run.models if (run.directory / f"{name}-pretrained/seed-0/outputs.npz").is_file()]
    sections += the_series(shown)
    for name in kept if shown else ():
        found = answers_of(run, name, shown, names)
        lead += f" {summed_up(found)}"
        own = [*answers_sections(found), *worst_section(found, shown), curves_section(
            run, f"{name}-pretrained/seed-0")]
        sections += [grouped(f"{name}: what it gets right and wrong", own)] if len(kept) > 1 else own
    if alive := pieces.dead_branches(run.result.get("dead_branches") or {}):
        sections.append(alive)
    return lead.strip(), [*sections, *pieces.fits(run), next_steps(run, kept)]


def shown_of(run: Evidence) -> dict[str, np.ndarray]:
    """Labels of the first seed's test series, means of classes, and some series whole; {} in runs without."""
    path = run.directory / SHOWN
    if not path.is_file():
        return {}
    found = read_npz(path, "label_names", "train_values", "train_labels", "labels", "index", "values")
    classes = len(found["label_names"]) if found["label_names"].ndim == 1 else 0
    values, numbers = ("train_values", "values"), ("train_labels", "labels", "index")
    fits = (found["label_names"].dtype.kind == "U"
            and all(found[name].ndim == 3 and found[name].shape[1] and found[name].dtype.kind == "f" for name in values)
            and all(found[name].ndim == 1 and found[name].dtype.kind == "i" for name in numbers)
            and len(found["train_values"]) == len(found["train_labels"]) and len(found["values"]) == len(found["index"])
            and found["values"].shape[1:] == found["train_values"].shape[1:] and all(_within(found[name], most) for
                name, most in zip(numbers, (classes, classes, len(found["labels"])), strict=True)))
    if not fits:
        raise UserError(f"{path}: its arrays do not fit together. Delete it; the page is made without it then.")
    return found


def names_of(shown: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Of the classes."""
    return tuple(shown["label_names"].tolist()) if shown else ()


def the_series(shown: dict[str, np.ndarray], spectra: bool = False) -> list[Section]:
    """Some of each class, as the models read them; none in runs that did not keep any."""
    if not shown:
        return []
    told = "Training series of each class as the models read them; at the right their mean with its middle half."
    data = _training(shown)
    parts = [paragraph(told, soft=True), picture(examples_figure(data), "Some series of each class, and their mean")]
    if spectra:
        parts.append(picture(spectra_figure(data), "Mean power of each class by frequency"))
    return [Section("The series", join(parts))]


def _within(numbers: np.ndarray, most: int) -> bool:
    return not len(numbers) or bool(0 <= numbers.min() and numbers.max() < most)


def _training(shown: dict[str, np.ndarray]) -> SeriesDataset:
    values = shown["train_values"].astype(np.float32)
    seen = np.isfinite(values)
    return SeriesDataset(np.where(seen, values, 0).astype(np.float32), shown["train_labels"].astype(np.int64),
                         names_of(shown), None if seen.all() else seen)


def answers_of(run: Evidence, name: str, shown: dict[str, np.ndarray], label_names: tuple[str, ...]) -> Classified:
    """Of the kept model, which is that of the first seed."""
    path = run.directory / f"{name}-pretrained/seed-0/outputs.npz"
    outputs = read_npz(path, "test")["test"].astype(float)
    if outputs.shape != (len(shown["labels"]), len(label_names)):
        raise UserError(f"{path}: has {outputs.shape} answers, of {len(shown['labels'])} test series of "
                        f"{len(label_names)} classes. Delete {run.directory / SHOWN}; the page is made without it "
                        f"then.")
    return Classified([str(number) for number in range(len(outputs))], shown["labels"], outputs, label_names,
                      item="test series", who=f"{name}, pretrained, as kept (seed 0)")


def worst_section(found: Classified, shown: dict[str, np.ndarray]) -> list[Section]:
    """The series that were taken for another class with the most confidence."""
    mistakes = mistakes_of(found, shown)
    return [Section("What the worst errors look like", picture(
        mistakes_figure(mistakes), "The series that were mistaken with the most confidence, between class means"))
            ] if mistakes else []


def mistakes_of(found: Classified, shown: dict[str, np.ndarray]) -> list[Mistake]:
    """At most six, the most confident first."""
    predictions = found.outputs.argmax(1)
    rows = {int(index): row for row, index in enumerate(shown["index"])}
    wrong = sorted((index for index in rows if predictions[index] != found.labels[index]),
                   key=lambda index: -found.outputs[index, predictions[index]])[:6]
    means = {label: _mean(shown, label) for label in {*found.labels[wrong], *predictions[wrong]}}
    return [Mistake(
        f"{index}: {found.label_names[found.labels[index]]}, taken for {found.label_names[predictions[index]]} "
        f"({100 * found.outputs[index, predictions[index]]:.0f} %)", shown["values"][rows[index], 0],
        means[found.labels[index]], means[predictions[index]]) for index in wrong]


def _mean(shown: dict[str, np.ndarray], label: int) -> np.ndarray:
    """(length,) of the first channel, NaN where there is none."""
    own = shown["train_values"][shown["train_labels"] == label, 0]
    seen = np.isfinite(own)
    return np.divide(np.where(seen, own, 0).sum(0), seen.sum(0), out=np.full(own.shape[1], np.nan),
                     where=seen.any(0))


def next_steps(run: Evidence, kept: Sequence[str]) -> Section:
    models = [run.path(f"{name}-pretrained/seed-0") for name in kept[:1]]
    steps = [step for model in models for step in (
        ("Ask it about series of yours.", f"make predict MODEL={model} FILE=series.tsv"),
        ("See which patches its heads look at.", f"make attention MODEL={model} SERIES=series.tsv ROW=0"),
        ("Publish it.", f"make push RUN={model} REPO=you/classifier"))]
    return pieces.commands([*steps, ("What are attention and a transformer at all worth on such series?",
                                     "make compare-series"),
                            ("This page again.", f"make report RUN={run.place}")])
