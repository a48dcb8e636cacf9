"""The demo on one page: did pretraining help, what was pretrained, what it writes, and where to go on."""

import dataclasses

from markupsafe import Markup

from toolkit.report.figures.classification import confusion_figure, counts_of
from toolkit.report.figures.gains import GainPanel, panels_of
from toolkit.report.page import Measured, Section, join, markup, paragraph, picture, table
from toolkit.report.sections import pieces, pretraining
from toolkit.report.sections.evidence import Evidence
from toolkit.run.schema import DemoSummary, Samples

QUESTIONS = {"text": "Which package does a passage describe? (few labels, names masked)",
             "series": "Cylinder, bell or funnel? (time series)"}
PARTS = (("bert", "BERT: how it was pretrained"), ("gpt", "GPT: how it was pretrained"),
         ("text", "Texts: scores, confusion, ranking, calibration, worst errors"),
         ("series", "Series: the series themselves, scores, confusion, worst errors"))


def demonstration_page(run: Evidence) -> tuple[str, list[Section]]:
    summary = run.read("summary.json", DemoSummary)
    panels = panels_of_parts(run)
    told = ("A dot is a seed: other labelled examples, another random start, another order. The gain is paired by "
            "seed, its interval is Student's t over seeds.")
    sections = [Section("The comparison", join([pieces.gain_picture(panels), paragraph(told, soft=True),
                                     pieces.gain_rows(panels)])),
                *confusions(run), Section("What was pretrained", pretrained(summary))]
    for name, title in (("bert", "BERT"), ("gpt", "GPT")):
        sections.append(Section(f"How {title} learned", pieces.curves(run.part(name))))
    if written := pretraining.samples(samples_of(run, summary)):
        sections.append(Section("What they write", written.body))
    sections.append(Section("Each part by itself", join([
        pieces.links(run, [(f"{name}/report.html", told) for name, told in PARTS]), seconds(summary)])))
    return pieces.answer(panels), [*sections, next_steps(run)]


def panels_of_parts(run: Evidence) -> list[GainPanel]:
    """A panel a question."""
    return [dataclasses.replace(panel, title=question) for name, question in QUESTIONS.items()
            if (results := run.part(name).results) for panel in panels_of(results.rows, results.metric, results.sizes)]


def confusions(run: Evidence) -> list[Section]:
    """Which classes are taken for which, of the seeds that the scores are of; none in demos of earlier versions."""
    drawn = []
    for name, question in QUESTIONS.items():
        result = run.part(name).result
        names = result.get("label_names") or ()
        for arm, triples in (result.get("confusion") or {}).items():
            if arm.endswith("-pretrained"):
                counts = counts_of(triples, len(names))
                told = f"{question} {arm.removesuffix('-pretrained')}, pretrained: {counts.sum():,} test examples"
                drawn.append(picture(confusion_figure(counts, names, ""), f"Confusion matrix. {told}", told))
    return [Section("Which classes are taken for which", join([
        paragraph("Test examples of all seeds together, as in the scores above.", soft=True),
        markup('<div class="pictures">{{ drawn }}</div>', drawn=join(drawn))]))] if drawn else []


def pretrained(summary: DemoSummary) -> Markup:
    """A row a figure, beside what needs no model."""
    bert, gpt = summary["bert"], summary["gpt"]
    half = bert.get("nsp_ci95")
    rows = [
        ["BERT: hidden words, loss (nats)", Measured(bert["mlm_loss"], decimals=3),
         f"{bert['unigram_entropy']:.3f} by word frequencies alone"],
        ["BERT: hidden words filled rightly (%)", Measured(100 * bert["mlm_accuracy"], decimals=1), ""],
        ["BERT: next sentence or not (%)", Measured(100 * bert["nsp_accuracy"], half and 100 * half),
         "50.0 by guessing"],
        ["GPT: bits per byte", Measured(gpt["bits_per_byte"], decimals=3),
         f"{gpt['gzip_bits_per_byte']:.3f} gzip, {gpt['xz_bits_per_byte']:.3f} xz, "
         f"{gpt['primed_xz_bits_per_byte']:.3f} xz that has read the training text"]]
    told = "On held-out text; one run each, one seed."
    return join([paragraph(told, soft=True), table(["", "ours", "beside"], rows)])


def samples_of(run: Evidence, summary: DemoSummary) -> Samples:
    """Those of both models, on held-out text; in demos of earlier versions the summary's."""
    found = [run.part(name).read("samples.json", Samples) for name in ("bert", "gpt")]
    if all(found):
        return {**found[0], **found[1]}
    return {"fills": [{"text": blank, "answers": answers}
                      for blank, answers in (summary["bert"].get("fill_mask") or {}).items()],
            "continuations": [{"prompt": "", "text": text} for text in summary["gpt"].get("samples") or ()]}


def seconds(summary: DemoSummary) -> Markup:
    spent = summary.get("seconds") or {}
    names = {"data": "corpus, tokenizers, token stores", "bert": "BERT", "gpt": "GPT", "text": "texts",
             "series": "series", "report": "reference points, samples, pictures", "total": "all of it"}
    return table(["stage", "seconds"], [[names.get(name, name), round(value)] for name, value in spent.items()]
                 ) if spent else Markup("")


def next_steps(run: Evidence) -> Section:
    return pieces.commands([
        ("Your own text: set corpus.sources.", "make pretrain-bert CONFIG=recipes/configs/bert-5min.yaml"),
        ("See what BERT's heads look at.", f'make attention MODEL={run.path("bert")} TEXT="returns the shape of it"'),
        ("Write with the GPT, in turn.", f"make chat MODEL={run.path('gpt')}"),
        ("Ask the classifier about texts of yours (a file with a column text).",
         f"make predict MODEL={run.path('text/bert-pretrained/seed-0')} FILE=texts.csv"),
        ("A GPT of 85,584 parameters learns to sort, in a minute.", "make nano-gpt"),
        ("This page again.", f"make report RUN={run.place}")])
