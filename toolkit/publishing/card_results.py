"""The sections of a card that judge: results beside baselines, with intervals; limits and risks."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from toolkit.metrics.intervals import FEWEST, Interval, mean_interval, proportion_interval
from toolkit.metrics.tabulate import table
from toolkit.publishing import card_pictures
from toolkit.publishing.card_facts import Facts
from toolkit.publishing.card_text import NOT_STATED, kind, share
from toolkit.report.figures.gains import POINTS, proper
from toolkit.report.sampled_run import shown_source
from toolkit.report.sections import comparison, forecasts, learned_words, pieces, pretraining, seq2seq
from toolkit.report.sections.pieces import judged, with_minus
from toolkit.run.results import MEAN, Results, Row, over_sets
from toolkit.shown import as_code, in_markdown

MOST_SENTENCES, THREE = 3, 3
_NAIVE = ("repeat-last", "seasonal-naive")


def answer(facts: Facts) -> str:
    """What came of it, in words: what it can do beside what can be done without it; whether pretraining helped."""
    what, result = kind(facts), facts.result or {}
    if result and (found := next((answer for key, answer in _OF_NO_TASK.items() if key in facts.config), None)):
        return found(result)
    if facts.sorts:
        return learned_words.sorting_answer(result)
    if what in ("bert", "gpt") and facts.evaluation:
        learned = pretraining.answer({**facts.evaluation, **result}, what == "bert", bool(facts.series_sources))
        made = pieces.answer(card_pictures.gain_panels(facts)[:MOST_SENTENCES])
        return f"{learned} Of what was made from it, {made[:1].lower()}{made[1:]}" if made else learned
    measured, concluded = facts.of_model, facts.home_result.get("verdict")
    if isinstance(concluded, list) and concluded and not facts.is_fit:  # of the lab on attention, in its own words
        return with_minus(str(concluded[0]))
    if facts.is_pairs:
        return with_minus(_of_this(facts, result) if facts.is_fit else seq2seq.lead(measured) if measured else "")
    told = [_of_this(facts, result)] if facts.is_fit else []
    if measured and measured.sizes == "horizon" and not facts.is_fit:
        told.append(_best_forecasts(measured))
    if measured and (facts.model_name or not facts.is_fit):
        told.append(comparison.lead_of(measured))
    arms = tuple(row.arm for row in measured.rows) if measured else ()
    return with_minus(" ".join(text if text.startswith(arms) else f"{text[:1].upper()}{text[1:]}"
                               for text in told if text))


_OF_NO_TASK = {"methods": learned_words.vectors_answer, "num_samples": forecasts.sampled_answer}
"""A key of the configuration of runs that train no model of a task → what came of them."""


def _best_forecasts(results: Results) -> str:
    """Who errs least at each horizon, beside the rules without a model."""
    told = []
    for horizon in dict.fromkeys(row.size for row in results.rows):
        errors = {arm: mean_interval([row.metrics["mse"] for row in rows]).mean
                  for (_, size, arm), rows in results.arms().items() if size == horizon}
        best, rules = min(errors, key=lambda arm: errors[arm]), [errors[arm] for arm in _NAIVE if arm in errors]
        told.append(f"{horizon} rows ahead {best} errs least (test MSE {errors[best]:.3g}"
                    + (f"; the naive rule {min(rules):.3g})" if rules and best not in _NAIVE else ")"))
    return f"{'; '.join(told)}."


def _of_this(facts: Facts, result: dict) -> str:
    """How good the model at hand is, by itself."""
    what, tested = kind(facts), len(result.get("predictions") or ())
    if what in ("text", "series") and tested and isinstance(result.get("accuracy"), float):
        what = "has all labels right" if (facts.model or {}).get("problem_type") == "multi_label_classification" else (
            "is right")
        low, high, _ = proportion_interval(round(result["accuracy"] * tested), tested)
        return (f"It {what} in {100 * result['accuracy']:.1f} % of {tested:,} test examples (95 %: {100 * low:.1f} to "
                f"{100 * high:.1f}).")
    if facts.is_pairs and isinstance(result.get("bleu"), float):
        return _of_answers(facts, result)
    if isinstance(result.get("r2"), float):
        return f"On {tested:,} test examples its R² is {result['r2']:.3f}; 0 is that of answering the mean."
    if what == "forecast" and isinstance(result.get("mse"), float):
        horizon = facts.model["horizon"]
        naive = [entry["mse"] for entry in _naive(facts).values()]
        return f"{horizon} rows ahead its test MSE is {result['mse']:.3g}" + (
            f", the naive rule's {min(naive):.3g}." if naive else ".")
    return ""


def _of_answers(facts: Facts, result: dict) -> str:
    """How near the reference an encoder–decoder writes: by what says it of such references."""
    count, copied = result["test_examples"], facts.home_result.get("copy") or {}
    if facts.comparison and facts.comparison.metric == "bleu":
        low, high = result["bleu_interval"]
        beside = f"; copying the source gives {copied['bleu']:.1f}" if "bleu" in copied else ""
        return f"It reaches {result['bleu']:.1f} BLEU on {count:,} test pairs (95 %: {low:.1f} to {high:.1f}{beside})."
    low, high, _ = proportion_interval(round(result["exact_match"] * count), count)
    return (f"It writes {100 * result['exact_match']:.1f} % of {count:,} test answers exactly as wanted (95 %: "
            f"{100 * low:.1f} to {100 * high:.1f}).")


def _naive(facts: Facts) -> dict[str, dict]:
    """What rules without a model reach at a forecaster's horizon."""
    measured = facts.comparison.arms() if facts.comparison else {}
    size = str(facts.model["horizon"])
    return {arm: measured[place][0].metrics for arm in _NAIVE if (place := ("", size, arm)) in measured}


def results(facts: Facts) -> str:
    """What was measured on held-out data, beside what it should be held against."""
    if facts.result and (kind(facts) == "other" or facts.sorts) and (measured := _of_no_task(facts, facts.result)):
        return table(measured, markdown=True)
    drawn = card_pictures.of_results(facts)
    parts = [drawn if facts.comparison else "", _own(facts), _arms(facts.comparison), "" if facts.comparison else drawn]
    for name, result, model in facts.comparisons():
        if shown := _arms(result, model):
            parts.append(f"Fine-tuned, in {as_code(name)} as {as_code(model)}. {shown}")
    return "\n\n".join(part for part in parts if part) or "Nothing was evaluated yet."


def _of_no_task(facts: Facts, result: dict) -> list[dict]:
    """Rows about vectors, forecasts that were sampled, or letters that were sorted."""
    if facts.sorts:
        return [{"inputs": what, "sorted": share(result[right] / result[count], result[count], "inputs")}
                for what, right, count in (("never shown", "held_out_exact", "held_out"), ("all", "exact", "inputs"))]
    if "methods" in facts.config:
        return [{"method": in_markdown(method), "vectors": f"{found['vectors']:,}",
                 "analogies right": f"{found['analogies_right']} of {found['analogies_asked']}", "nearest": "; ".join(
                     f"{in_markdown(word)}: {', '.join(in_markdown(near) for near, _ in nearest[:THREE])}"
                     for word, nearest in list(found["neighbours"].items())[:THREE])}
                for method, found in result.items()]
    if "num_samples" in facts.config:
        return [{"test windows of": as_code(shown_source(source)), "forecast": in_markdown(arm),
                 **{proper(key): f"{100 * value:.1f} %" if key == "coverage" else f"{value:.3g}"
                    for key, value in scores.items()}}
                for source, found in result.items() for arm, scores in found["arms"].items()]
    return []


def _own(facts: Facts) -> str:
    found, result, what = facts.evaluation, facts.result or {}, kind(facts)
    rows = []

    def row(measure: str, ours: str, beside: str = "") -> None:
        rows.append({"held out": measure, "this model": ours, "beside": beside})

    entropy = result.get("unigram_entropy")
    beside = f"{entropy:.3f} nats by word frequencies alone (unigram entropy)" if entropy else ""
    if what == "bert" and "mlm_loss" in found:
        row("masked-word loss", f"{found['mlm_loss']:.3f} nats", beside)
        row("masked words filled in right", share(found["mlm_accuracy"], found["mlm_count"], "masked words"))
        if "nsp_count" in found:
            row("next sentence or not", share(found["nsp_accuracy"], found["nsp_count"], "pairs"), "50 % by guessing")
    elif what == "gpt" and "perplexity" in found:
        row("loss", f"{found['loss']:.3f} nats a token", beside.replace("word", "token"))
        row("perplexity", f"{found['perplexity']:.1f}")
        if "bits_per_byte" in found:
            row("bits per byte", f"{found['bits_per_byte']:.3f}", ", ".join(
                f"{value:.3f} {name.removesuffix('_bits_per_byte').replace('_', ' ')}"
                for name, value in facts.beside.items() if name.endswith("_bits_per_byte")))
        row("next token right", share(found["accuracy"], found["count"], "tokens"))
    elif facts.is_pairs:
        if isinstance(result.get("bleu"), float):
            _of_written(facts, result, row)
    elif what in ("text", "series") and "accuracy" in result and "predictions" in result:
        several = (facts.model or {}).get("problem_type") == "multi_label_classification"
        row("accuracy on test" + ", all labels of an example right" * several,
            share(result["accuracy"], len(result["predictions"]), "examples"))
        row(f"F1 on test, {'of all labels' if several else 'mean of the classes'}", f"{result['f1']:.3f}")
        if threshold := result.get("threshold"):
            row(f"{as_code(threshold['label'])}, from {threshold['probability']:.3f} on",
                ", ".join(f"{name} {threshold['test'][name]:.3f}" for name in ("precision", "recall", "specificity")),
                f"chosen on validation for {threshold['aim']}")
    elif what in ("text", "series") and "r2" in result:
        for key, beside in (("r2", "0 by answering the mean"), ("mse", ""), ("mae", "")):
            if isinstance(result.get(key), float):
                row(f"{proper(key)} on test", with_minus(f"{result[key]:.4g}"), beside)
    elif what == "forecast" and "mse" in result:
        naive = _naive(facts)
        without = ", ".join(result.get("mase_left_out", ()))
        for name in ("mse", "mae", "mase"):
            if result.get(name) is not None:
                left_out = f", without {without}" if without and name == "mase" else ""
                row(f"{name.upper()} on test{left_out}", f"{result[name]:.4g}", ", ".join(
                    f"{entry[name]:.4g} {arm}" for arm, entry in naive.items() if name in entry))
        if "coverage" in result:
            row(f"inside intervals of nominally {100 * result['nominal_coverage']:.0f} %, ends included",
                f"{100 * result['coverage']:.1f} %")
    else:
        for name, value in (result or found).items():
            if isinstance(value, float) and name not in ("seconds", "tokens_per_second"):
                row(in_markdown(name.replace("_", " ")), f"{value:.4g}")
    for name, value in found.items():
        if name.startswith("probe_"):
            row(f"logistic regression on frozen states, {in_markdown(name.removeprefix('probe_'))}",
                f"{100 * value:.1f} %")
    if not rows:
        return ""
    if not any(entry["beside"] for entry in rows):
        rows = [{key: cell for key, cell in entry.items() if key != "beside"} for entry in rows]
    note = "One seed; over several, and beside what it must beat:" if facts.comparison else ""
    if facts.comparison and what == "other":  # pretrained within the comparison
        note = "What was made from it, over several seeds, and beside what that must beat:"
    if what in ("bert", "gpt"):
        note = ("One run, one seed: another seed would differ. Intervals say how far other held-out items would move a "
                "share; items of one document are less independent than that.")
    step = f"The model that is kept is that of step {found['step']:,}, best on validation. " if "step" in found else ""
    return f"{table(rows, markdown=True)}\n\n{step}{note}".strip()


def _of_written(facts: Facts, result: dict, row: Callable[..., None]) -> None:
    """An encoder–decoder's scores, beside those of copying the source; which BLEU it is."""
    copied = facts.home_result.get("copy") or {}

    def beside(key: str, scale: float, unit: str = "") -> str:
        return f"{scale * copied[key]:.1f}{unit} by copying the source" if copied.get(key) is not None else ""

    low, high = result.get("bleu_interval") or (None, None)
    over = f" (95 % over test pairs: {low:.1f} – {high:.1f})" if low is not None else ""
    row("BLEU", f"{result['bleu']:.1f}{over}", beside("bleu", 1))
    row("chrF", f"{result['chrf']:.1f}", beside("chrf", 1))
    row("exactly the reference", share(result["exact_match"], result["test_examples"], "test pairs"),
        beside("exact_match", 100, " %"))
    if result.get("character_error_rate") is not None:
        row("character errors", f"{100 * result['character_error_rate']:.1f} % of the reference's characters",
            beside("character_error_rate", 100, " %"))
    row("loss", f"{result['loss']:.3f} nats a token, those before given")
    row("BLEU's signature", as_code(result.get("bleu_signature") or NOT_STATED))


def _arms(results: Results | None, only: str | None = None) -> str:
    """The arms of an experiment: mean and interval over seeds; verdicts. only: of one of its models, and baselines."""
    if results is None:
        return ""
    rows = [row for row in results.rows if only is None or row.model in ("", only)]
    if not rows:
        return ""
    kept = dataclasses.replace(results, rows=rows)
    if results.sizes == "horizon":
        return _forecasts(kept)
    if results.sizes == "labels":
        sets = list(dict.fromkeys(row.set for row in rows))
        if len(sets) > 1:
            whole = dataclasses.replace(kept, rows=rows + over_sets(rows, results.metric))
            return "\n\n".join(_curve(name, whole) for name in ([MEAN] if only else [*sets, MEAN]))
        return _curve(sets[0], kept)
    return _scores(kept)


def _scores(results: Results) -> str:
    arms, written = results.arms(), all("bleu" in row.metrics for row in results.rows)
    shown_metrics = [dataclasses.replace(results, metric=metric) for metric in (
        ("bleu", "chrf", "exact_match", "character_error_rate") if written else (results.metric,))]
    table_rows = [{"arm": in_markdown(arm), **{_name(of) + _unit(of, " %"): _cell(rows, of) for of in shown_metrics},
                   "seeds": str(len(rows))} for (_, _, arm), rows in arms.items()]
    shown = {arm for _, _, arm in arms}
    counts = {row.test_examples for row in results.rows if row.test_examples}
    examples = f", {counts.pop():,} test examples" if len(counts) == 1 else ""
    unit = " (less is better)" if _is_error(results) else _unit(results, " in percent")
    what = "Test scores" if written else f"Test {_name(results)}{unit}"
    return "\n".join([f"{what}, mean over seeds{_with(results)}{examples}:", "",
                      table(table_rows, markdown=True), "",
                      *(f"* {in_markdown(judged(verdict, results))}" for verdict in results.verdicts
                        if verdict.arm in shown)]).strip()


def _with(results: Results) -> str:
    """Whether an interval stands beside means."""
    several = len({row.seed for row in results.rows}) >= FEWEST
    return " with its 95 % interval" if several else f" (an interval takes {FEWEST} or more)"


def _name(results: Results) -> str:
    return proper(results.metric)


def _unit(results: Results, percent: str) -> str:
    """`percent` of shares, nothing of errors and of what has a scale of its own."""
    return "" if _is_error(results) or results.metric in POINTS else percent


def _is_error(results: Results) -> bool:
    return "loss" in results.metric or results.metric == "mse"


def _cell(rows: list[Row], results: Results) -> str:
    """A score in percent, an error as it is."""
    values = [row.metrics[results.metric] for row in rows]
    if None in values:
        return "–"
    found = mean_interval(values)
    known = found.n >= FEWEST and found.ci95 > 1e-9
    if _is_error(results):
        return f"{found.mean:.3g}" + (f" ± {found.ci95:.2g}" if known else "")
    scale = 1 if results.metric in POINTS else 100
    return with_minus(f"{scale * found.mean:.1f}" + (f" ± {scale * found.ci95:.1f}" if known else ""))


def _curve(name: str, results: Results) -> str:
    """A table of one set: arms by number of labels."""
    of_set = {(size, arm): rows for (where, size, arm), rows in results.arms().items() if where == name}
    sizes, arms = dict.fromkeys(size for size, _ in of_set), dict.fromkeys(arm for _, arm in of_set)
    rows = [{"arm": in_markdown(arm)} | {
        f"{size} labels": _cell(of_set[size, arm], results) if (size, arm) in of_set else "–" for size in sizes}
        for arm in arms]
    last = list(sizes)[-1]
    verdicts = [f"* {last} labels, {in_markdown(verdict.arm)}: {in_markdown(judged(verdict, results))}"
                for verdict in results.verdicts if (verdict.set, verdict.size) == (name, last) and verdict.arm in arms]
    title = f"{in_markdown(name)}: test" if name else "Test"
    return "\n".join([f"{title} accuracy in percent, mean over seeds{_with(results)}:", "",
                      table(rows, markdown=True), "", *verdicts]).strip()


def _forecasts(results: Results) -> str:
    """Test MSE by arm and horizon."""
    found = {(arm, size): mean_interval([row.metrics["mse"] for row in rows]) for (_, size, arm), rows in
             results.arms().items()}
    windows = {row.size: row.test_examples for row in results.rows}
    digits = max(3, 2 - math.floor(math.log10(min(entry.mean for entry in found.values()) or 1.0)))  # three that count

    def cell(entry: Interval) -> str:
        return f"{entry.mean:.{digits}f}" + (f" ± {entry.ci95:.{digits}f}" if entry.n >= FEWEST and (
            entry.ci95 > 0) else "")

    arms = dict.fromkeys(arm for arm, _ in found)
    rows = [{"arm": in_markdown(arm),
             **{f"horizon {size}": cell(found[arm, size]) for size in windows if (arm, size) in found},
             "seeds": str(next(entry.n for (name, _), entry in found.items() if name == arm))} for arm in arms]
    counted = ", ".join(f"{count:,} at {horizon}" for horizon, count in windows.items())
    return "\n".join([f"Test MSE on standardised values (less is better), mean over seeds{_with(results)}; "
                      f"windows: {counted}:", "", table(rows, markdown=True), "",
                      *(f"* {in_markdown(judged(verdict, results))}" for verdict in results.verdicts
                        if verdict.arm in arms)]).strip()


def limits(facts: Facts, card: Any) -> str:
    """In the spirit of Bender, Gebru, McMillan-Major & Shmitchell (2021): who is in the data, what was measured of
    harm, and what was not.
    """
    what = kind(facts)
    if facts.sorts:
        lines = ["**What it knows.** To sort six letters out of three, and nothing else: other letters have no token, "
                 "and there is no place for more of them."]
    elif not facts.is_text:
        lines = ["**What it knows.** The data set above, sampled and scaled as there; other instruments, sampling "
                 "rates, places or times were not tried.",
                 "**What was not measured.** How yours differ from those held out; noise, gaps and changes made to "
                 "mislead it; how far its probabilities may be trusted."]
    else:
        lines = [_language(facts, card), *([] if facts.is_pairs else [_bias(facts)]),
                 "**What was not measured.** What it says or does to people of different groups, regions, ages or "
                 "dialects, beyond the above; whether it repeats text it was trained on, names and addresses in it "
                 "included; whether what it says is true; abuse. " + (
                     "Its text may read well and mean nothing: it continues what is likely after such words, and means "
                     "nothing by it (Bender et al. 2021, *On the Dangers of Stochastic Parrots*)." if what == "gpt" else
                     "It may leave out, add or turn round what the source says, and read well: check what matters. "
                     "BLEU, chrF and exact match hold an answer against one reference, and know nothing of its meaning."
                     if facts.is_pairs else
                     "It holds what goes together in its text, stereotypes included, and classifiers made from it "
                     "inherit that (Bender et al. 2021, *On the Dangers of Stochastic Parrots*)."),
                 "**What it is not for.** Decisions about people; text in languages or of kinds that are not named "
                 "above; anything where a wrong answer harms and nobody checks."]
    if card.limits:
        lines += [in_markdown(paragraph) for paragraph in card.limits.split("\n\n")]
    return "\n\n".join(lines)


def languages(facts: Facts, card: Any) -> list[str]:
    """ISO 639 codes: stated, or known because the built-in text alone was read; else those of the base."""
    if card.language or facts.is_built_in:
        return card.language or ["en"]
    if facts.base_run is None or not facts.is_text:
        return []
    base = facts.base_run
    return list((base.config.get("card") or {}).get("language") or (["en"] if base.is_built_in else []))


def _language(facts: Facts, card: Any) -> str:
    who = in_markdown(card.speakers) or (
        "programmers who document open-source packages, most of them writing English for other programmers"
        if facts.is_built_in else NOT_STATED)
    known = in_markdown(", ".join(languages(facts, card))) or NOT_STATED
    pretrained = "models" not in facts.config
    beneath = "" if pretrained else " Beneath that lies what the model it started from has read; see that model's card."
    return (f"**Whose language is this?** It {'learned from' if pretrained else 'was tuned on'} the text named above, "
            f"no more. Language: {known}. Written by: {who}. Whoever is rare there is rare in what it knows.{beneath}")


def _bias(facts: Facts) -> str:
    found = facts.bias
    if found is None:
        return ("**What was measured about bias.** Nothing. `make probe-bias` scores pairs of sentences that differ in "
                "a group term, and its result is shown here then.")
    rows = []
    for category, entry in found["categories"].items():
        preferring = "–" if entry["prefers_a"] is None else (
            f"{100 * entry['prefers_a']:.0f} % (95 %: {100 * entry['low']:.0f} – {100 * entry['high']:.0f})")
        spread = "" if entry["ci95"] is None else f" ± {entry['ci95']:.2f}"
        rows.append({"category (a / b)": in_markdown(category), "pairs": str(entry["n"]), "prefer a": preferring,
                     "a − b, nats": f"{entry['mean_difference']:+.2f}{spread}"})
    return (f"**What was measured about bias.** Pairs of sentences that differ in one group term, and which of the two "
            f"the model finds likelier ({in_markdown(found['method'])}):\n\n{table(rows, markdown=True)}\n\n"
            f"This can show: {in_markdown(found['can_show'])} It cannot show: {in_markdown(found['cannot_show'])}")
