"""Runs that are no training of a network: word vectors and tokenizers beside each other; and the one that sorts."""

from toolkit.report.figures.vocabularies import vocabularies_figure
from toolkit.report.page import Between, Section, join, paragraph, picture, table
from toolkit.report.sections import pieces
from toolkit.report.sections.classified import share
from toolkit.report.sections.evidence import Evidence


def word_vectors_page(run: Evidence) -> tuple[str, list[Section]]:
    """Neighbours and analogies by method."""
    sections = []
    for method, found in run.result.items():
        near = [[word, ", ".join(f"{other} {cosine:.2f}" for other, cosine in neighbours)]
                for word, neighbours in found["neighbours"].items()]
        asked = []
        for analogy, answers in found["analogies"].items():
            a, b, c, d = analogy.split()
            asked.append([f"{a} : {b} = {c} : ?", d, answers[0][0], Between(answers[0][1], decimals=2),
                          answers[0][0] == d])
        sections += [Section(f"{method}: nearest words", table(["word", "nearest, with the cosine"], near)),
                     Section(f"{method}: analogies", table(["", "expected", "found", "cosine", "right"], asked,
                                                           sortable=len(asked) > 6))]
    first = next(iter(run.result), "ppmi-svd")
    steps = [("Start a BERT from them.", "make pretrain-bert CONFIG=recipes/configs/bert-5min.yaml "
              f'ARGS="--model.embeddings {run.path(f"{first}.txt")} --output_dir runs/{run.directory.name}-bert"'),
             ("This page again.", f"make report RUN={run.place}")]
    return vectors_answer(run.result), [*sections, pieces.commands(steps)]


def vectors_answer(result: dict) -> str:
    """How many vectors there are, and how many analogies they solve, by method."""
    return "; ".join(f"{method}: {found['vectors']:,} vectors, {found['analogies_right']} of "
                     f"{found['analogies_asked']} analogies right" for method, found in result.items()) + "."


def tokenizers_page(run: Evidence) -> tuple[str, list[Section]]:
    """What tokenizers need for the same text."""
    rows = (run.read("tokenizers.json", dict) or {})["rows"]
    own = [row for row in rows if row["text"] == "held-out"] or rows
    best = max(own, key=lambda row: row["bytes_per_token"])
    lead = (f"{best['tokenizer']} of {best['vocab_size']:,} needs the fewest tokens for held-out text: "
            f"{best['bytes_per_token']:.2f} bytes each.")
    names = list(dict.fromkeys(key for row in rows for key in row))
    shown = [[row.get(name) for name in names] for row in rows]
    return lead, [
        Section("Bytes per token by size of the vocabulary", picture(
            vocabularies_figure(rows, ""), "Bytes per token by size of the vocabulary, a line a tokenizer")),
        Section("All figures", table([name.replace("_", " ") for name in names], shown, filters=["tokenizer", "text"])),
        pieces.commands([("Pretrain with one of them.", "make pretrain-bert CONFIG=recipes/configs/bert-5min.yaml "
                          'ARGS="--tokenizer tokenizers/wordpiece-8k.yaml"'),
                         ("This page again.", f"make report RUN={run.place}")])]


def sorting_page(run: Evidence) -> tuple[str, list[Section]]:
    """The GPT that sorts six letters."""
    found = run.result
    learned = Section("How it learned", pieces.curves(run))
    again = pieces.commands([("See it beside other runs.", f'make compare-runs RUNS="{run.place} runs/other"'),
                             ("This page again.", f"make report RUN={run.place}")])
    if not found:
        return "It has not ended yet.", [learned, again]
    rows = [["never shown", found["held_out"], share(found["held_out_exact"], found["held_out"])],
            ["all", found["inputs"], share(found["exact"], found["inputs"])]]
    return sorting_answer(found), [
        Section("Sorted exactly", join([paragraph("In brackets: the 95 % interval over inputs. One seed.", soft=True),
                                        table(["inputs", "how many", "share sorted"], rows)])),
        learned, again]


def sorting_answer(found: dict) -> str:
    """How many inputs it sorts."""
    return (f"It sorts {found['held_out_exact']} of the {found['held_out']} inputs that it was never shown, and "
            f"{found['exact']} of all {found['inputs']}.")
