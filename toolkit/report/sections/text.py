"""Fine-tuned classifiers of texts: what pretraining bought, and what the kept models get right and wrong."""

from collections.abc import Sequence

from toolkit.metrics.intervals import FEWEST
from toolkit.report.page import Section, grouped, join, paragraph
from toolkit.report.sections import pieces
from toolkit.report.sections.classified import Classified, answers_sections
from toolkit.report.sections.evidence import Evidence
from toolkit.report.sections.predictions import read_predictions


def text_page(run: Evidence, only: Sequence[str] | None = None) -> tuple[str, list[Section]]:
    """only: of some of the models that were tuned; the comparison stays whole."""
    sections, lead = [], pieces.lead(run.results)
    if run.results:
        sections = [*pieces.gains(run.results), pieces.arms_section(run.results)]
    kept = [name for name in only or run.models if (run.directory / f"{name}-predictions.parquet").is_file()]
    for name in kept:
        found = answers_of(run, name)
        lead += f" {summed_up(found)}" if found.task in ("classification", "distribution") else ""
        own = [*answers_sections(found), curves_section(run, f"{name}-pretrained/seed-0")]
        sections += [grouped(f"{name}: what it gets right and wrong", own)] if len(kept) > 1 else own
    return lead.strip(), [*sections, *pieces.fits(run), next_steps(run, kept)]


def answers_of(run: Evidence, name: str) -> Classified:
    """Of the kept model, which is that of the first seed."""
    fit = run.part(f"{name}-pretrained/seed-0").read("result.json", dict) or {}
    task = (run.config.get("data") or {}).get("task", "classification")
    return read_predictions(run.directory / f"{name}-predictions.parquet", run.result.get("label_names", ()), task,
                            fit.get("threshold"), f"{name}, pretrained, as kept (seed 0)")


def summed_up(found: Classified) -> str:
    """How often the kept model is right."""
    labels = found.labels.argmax(1) if found.task == "distribution" else found.labels
    right = float((found.outputs.argmax(1) == labels).mean())
    return f"{found.who}, is right in {100 * right:.1f} % of {len(labels):,} test examples."


def curves_section(run: Evidence, place: str) -> Section:
    """Of one fit."""
    return Section("How it learned", join([paragraph(f"The fit in {place}.", soft=True),
                                           pieces.curves(run.part(place))]))


def next_steps(run: Evidence, kept: Sequence[str]) -> Section:
    models = [run.path(f"{name}-pretrained/seed-0") for name in kept]
    seeds = len({row.seed for row in run.results.rows}) if run.results else 0
    few = [("An interval worth having takes three seeds or more.",
            f"make finetune-text CONFIG={run.path('config.yaml')} "
            f'ARGS="--seeds 5 --output_dir {run.place}-5-seeds"')] if seeds < FEWEST else []
    steps = [step for model in models[:1] for step in (
        ("Ask it about texts of yours (a file with a column text).", f"make predict MODEL={model} FILE=texts.csv"),
        ("See what its heads look at.", f'make attention MODEL={model} TEXT="a text of yours"'))]
    return pieces.commands([*few, *steps, *(("Publish it.", f"make push RUN={model} REPO=you/classifier")
                                            for model in models[:1]),
                            ("This page again.", f"make report RUN={run.place}")])
