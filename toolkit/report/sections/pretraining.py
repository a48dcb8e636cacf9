"""A pretraining: what it learned, beside what needs no model; how; what it writes; what it knows nothing of."""

import math

from markupsafe import Markup

from toolkit.metrics.intervals import proportion_interval
from toolkit.report.page import Between, Section, join, markup, paragraph, table
from toolkit.report.sections import pieces
from toolkit.report.sections.evidence import Evidence
from toolkit.run.results import kept_evaluation
from toolkit.run.schema import Fill, Samples

BY_GUESSING = math.log(2)
"""Nats of a guess between two."""


def pretraining_page(run: Evidence) -> tuple[str, list[Section]]:
    """The answer in a sentence, and the sections."""
    found = {**kept_evaluation(run.records), **run.result}
    is_bert = "mlm_loss" in found or "masking" in run.config
    sections = [Section("What it learned", learned(run, found, is_bert)),
                Section("How it learned", pieces.curves(run))]
    if written := samples(run.read("samples.json", Samples)):
        sections.append(written)
    return answer(found, is_bert, of_series(run)), [*sections, next_steps(run, is_bert)]


def of_series(run: Evidence) -> bool:
    """Whether its tokens are values of series."""
    return bool((run.config.get("series") or {}).get("sources"))


def answer(found: dict, is_bert: bool, series: bool = False) -> str:
    """What it can do beside what can be done without it. series: its tokens are values of series."""
    entropy = found.get("unigram_entropy")
    beside = f", where word frequencies alone give {entropy:.2f}" if entropy else ""
    if is_bert and "mlm_loss" in found:
        text = (f"It fills a hidden word with {found['mlm_loss']:.2f} nats of surprise{beside}, and rightly in "
                f"{100 * found['mlm_accuracy']:.1f} % of cases.")
        if found.get("nsp_count"):
            text += (f" Whether one text follows another it tells in {percent_of(found['nsp_accuracy'])} of cases "
                     f"({interval(found['nsp_accuracy'], found['nsp_count'])}), guessing in 50 %.")
        return text
    if "loss" in found:
        token = "value" if series else "token"
        text = (f"It foretells the next {token} with {found['loss']:.2f} nats of surprise"
                f"{beside.replace('word', token)}")
        bits = found.get("bits_per_byte")
        return text + (f": {bits:.3f} bits per byte of text." if bits else ".")
    return "It has not been evaluated yet."


def percent_of(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval(share: float, count: float) -> str:
    """In words, both ends in percent."""
    low, high, _ = proportion_interval(round(share * count), int(count))
    return f"95 %: {100 * low:.1f} to {100 * high:.1f}"


def learned(run: Evidence, found: dict, is_bert: bool) -> Markup:
    """A row a figure on held-out text, beside what it must beat."""
    entropy, rows = found.get("unigram_entropy"), []
    series = of_series(run)
    token = "value's bin" if series else "token"

    def counted(name: str) -> Between | None:
        count = found.get(f"{name.removesuffix('accuracy')}count", 0)
        if name not in found:
            return None
        if not count:
            return Between(100 * found[name], decimals=1)
        low, high, _ = proportion_interval(round(found[name] * count), int(count))
        return Between(100 * found[name], 100 * low, 100 * high, 1)

    def row(what: str, value: object, beside: str = "") -> None:
        if value is not None:
            rows.append([what, value, beside])

    alone = f"{entropy:.3f} by frequencies alone (unigram entropy)" if entropy else ""
    if is_bert:
        row("hidden words: loss (nats)", found.get("mlm_loss"), alone)
        row("hidden words filled rightly (%)", counted("mlm_accuracy"))
        row("next sentence: loss (nats)", found.get("nsp_loss"), f"{BY_GUESSING:.3f} by guessing")
        row("next sentence or not (%)", counted("nsp_accuracy"), "50.0 by guessing")
    else:
        row(f"next {token}: loss (nats)", found.get("loss"), alone)
        row("perplexity", found.get("perplexity"), f"{math.exp(entropy):,.0f} by frequencies alone" if entropy else "")
        row("bits per byte", found.get("bits_per_byte"), compressed(run))
        row(f"next {token} right (%)", counted("accuracy"))
    rows += [[f"frozen states under logistic regression, {name.removeprefix('probe_')} (%)",
              Between(100 * value, decimals=1), ""] for name, value in found.items() if name.startswith("probe_")]
    kept = f" The model that is kept is that of step {found['step']:,}, best there." if "step" in found else ""
    told = (f"On held-out {'series' if series else 'text'}, one run, seed {run.config.get('seed', 0)}: another seed "
            f"would differ. In brackets the 95 % interval over held-out {'values' if series else 'items'}.{kept}")
    return join([paragraph(told, soft=True), table(["", "this model", "beside"], rows), spent(run)])


def spent(run: Evidence) -> Markup:
    """What the training took."""
    seconds, long = run.result.get("seconds"), (run.result.get("seconds") or 0) >= 100
    found = {"parameters": run.manifest.get("parameters"), "steps": run.result.get("steps"),
             "tokens": run.result.get("tokens"),
             "minutes of training" if long else "seconds of training": seconds and seconds / (60 if long else 1),
             "tokens a second": run.result.get("tokens_per_second")}
    rows = [[what, round(value)] for what, value in found.items() if isinstance(value, (int, float))]
    return table(["what it took", ""], rows) if rows else Markup("")


def compressed(run: Evidence) -> str:
    """What compressors need for the same text, where a summary of several runs beside this one says it."""
    summary = run.part("..").read("summary.json", dict) or {}
    beside = summary.get(run.directory.name)
    names = {"gzip": "gzip", "xz": "xz", "primed_xz": "xz that has read the text"}
    found = beside if isinstance(beside, dict) else {}
    return ", ".join(f"{found[f'{key}_bits_per_byte']:.3f} {name}" for key, name in names.items()
                     if isinstance(found.get(f"{key}_bits_per_byte"), float))


def samples(found: Samples | None) -> Section | None:
    """What it fills in and how it goes on, on held-out text."""
    if not found or not (found.get("fills") or found.get("continuations")):
        return None
    parts = []
    if fills := found.get("fills"):
        keep = 3 if any(fill.get("truth") for fill in fills) else 2
        parts.append(table(["held-out text" if keep == 3 else "text", "likeliest words", "what stood there"][:keep], [
            [fill["text"], guesses(fill), fill.get("truth", "")][:keep] for fill in fills]))
    for each in found.get("continuations") or ():
        parts.append(markup(
            '<blockquote dir="auto"><b>{{ prompt }}</b>{{ text }}{% if came %}<br><span class="soft">What came: '
            "{{ came }}</span>{% endif %}</blockquote>", prompt=each["prompt"], text=each["text"],
            came=each.get("came", "")))
    return Section("What it writes" if found.get("continuations") else "What it fills in", join(parts))


def guesses(fill: Fill) -> Markup:
    """The likeliest words with their probabilities, the right one marked."""
    answers = [(str(token), f"{100 * float(share):.0f}") for token, share in fill["answers"]]
    return markup('{% for token, share in answers %}{{ ", " if not loop.first }}{% if token == truth %}'
                  "<mark>“{{ token }}”</mark>{% else %}“{{ token }}”{% endif %} {{ share }} %{% endfor %}",
                  truth=fill.get("truth"), answers=answers)


def next_steps(run: Evidence, is_bert: bool) -> Section:
    model, name = run.path("model"), run.directory.name
    mine = f"--models '{{{name}: {run.path('model')}}}' --output_dir runs/{name}-text"
    fill = f'.venv/bin/python recipes/fill_mask.py --model {model} --text "The [MASK] of it."'
    ask = ("Ask it for a word.", fill) if is_bert else ("Write with it, in turn.", f"make chat MODEL={run.place}")
    steps = [ask, ("See what its heads look at.", f'make attention MODEL={run.place} TEXT="a sentence of yours"'),
             ("Does it help to classify texts?",
              f'make finetune-text CONFIG=recipes/configs/authorship.yaml ARGS="{mine}"'),
             ("Train it longer.", f"make pretrain-{'bert' if is_bert else 'gpt'} CONFIG={run.path('config.yaml')} "
                                  f'ARGS="{longer(run)}"'),
             ("Publish it.", f"make push RUN={run.place} REPO=you/{name}")]
    if of_series(run):
        steps = [("Forecast with it.", f'make sample-forecasts ARGS="--run {run.place}"'), steps[3], steps[4]]
    return pieces.commands(steps)


def longer(run: Evidence) -> str:
    """Twice the budget it had, as options."""
    training = run.config.get("training") or {}
    budgets = {key: training[key] for key in ("max_steps", "max_tokens", "max_minutes") if training.get(key)}
    return " ".join(f"--training.{key} {2 * value:g}" if isinstance(value, float) else f"--training.{key} {2 * value}"
                    for key, value in budgets.items()) or "--training.max_minutes 30"
