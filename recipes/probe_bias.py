"""Which of two sentences that differ in one group term does a model find likelier?

    make probe-bias MODEL=runs/bert-5min                     # our templates: 290 plain sentences
    make probe-bias MODEL=runs/bert-5min PAIRS=pairs.csv     # yours: sentence_a, sentence_b, category
    python recipes/probe_bias.py MODEL --pairs crows_pairs_anonymized.csv --a_column sent_more --b_column sent_less \\
        --category_column bias_type                          # CrowS-Pairs' own file

A BERT is scored as in CrowS-Pairs (Nangia et al. 2020), a GPT by the sentences' log-likelihood. MODEL is a directory, a
run's directory or a hub id; of a run, the report goes to its bias.json, from where its card takes it, and to a page,
bias.html.
"""

from dataclasses import dataclass
from pathlib import Path

from toolkit import cli, config
from toolkit.run.files import disk_errors, write_json


@dataclass
class ProbeBiasConfig:
    model: str
    pairs: str = ""
    """A .csv, .tsv, .jsonl or .parquet file; empty: our templates."""
    a_column: str = "sentence_a"
    b_column: str = "sentence_b"
    category_column: str = "category"
    """Empty: all pairs are of one category."""
    batch_size: int = 64
    output: str = ""
    """Where the report goes, a page of it beside it as .html; default: bias.json of the run, and nowhere for a model
    that is of none."""


def show(report: dict) -> None:
    from toolkit.analysis.bias import AS_CONTROL, CONTROL, in_order, verdict
    from toolkit.metrics.tabulate import on_screen

    def row(category: str, found: dict, said: str = "") -> dict:
        share = "–" if found["prefers_a"] is None else (
            f"{100 * found['prefers_a']:.0f} % ({100 * found['low']:.0f}–{100 * found['high']:.0f})")
        spread = "" if found["ci95"] is None else f" ± {found['ci95']:.2f}"
        return {"category (a / b)": "Monday / Tuesday (control)" if category == CONTROL else category,
                "pairs": found["n"], "prefer a": share, "a − b, nats": f"{found['mean_difference']:+.2f}{spread}",
                "": said.replace(AS_CONTROL, "*")}

    rows = []
    for category in in_order(report["categories"]):
        found = report["categories"][category]
        rows.append(row(category, found, verdict(category, report["categories"])))
        if "shared_tokens" in found:
            rows.append(row("  … shared tokens alone", found["shared_tokens"]))
    print(f"{report['model']}, {report['pairs']} pairs: {report['method']}\n\n{on_screen(rows)}\n")
    if any(cell[""].endswith("*") for cell in rows):
        print("*: as far as the control pairs, which name no group, might\n")
    print("lead by more than others of their category, in nats:")
    for category, found in report["categories"].items():
        for side in ("a", "b"):
            if told := ", ".join(f"{text} {lead:.1f}" for text, lead in found["stand_out"][side]):
                print(f"  {category}, {side}: {told}")
    if left_out := sum(report["left_out"].values()):
        print(f"left out: {left_out} pairs, with a word that the tokenizer does not know")
    print(f"in {report['split_terms']} pairs what differs is several tokens")
    print(f"\nThis can show: {report['can_show']}\nIt cannot show: {report['cannot_show']}")


def main(argv: list[str]) -> None:
    settings = config.parse(ProbeBiasConfig, argv, __doc__, ["model"])
    from toolkit.analysis.bias import probe_bias, read_pairs, report_path  # only now: --help waits for no library
    from toolkit.report.bias_page import lead_of, write_bias_page
    from toolkit.report.ending import command, ending

    pairs = read_pairs(settings.pairs, settings.a_column, settings.b_column,
                       settings.category_column) if settings.pairs else None
    report = probe_bias(settings.model, pairs, settings.batch_size)
    output = settings.output or report_path(settings.model)
    show(report)
    if output:
        page = Path(output).with_suffix(".html")
        with disk_errors(output, "output"):
            write_json(output, report)
            write_bias_page(report, page)
        own = report_path(settings.model)
        following = command("make card", {"RUN": own.parent}) if own else command("make app", {"MODEL": settings.model})
        print(ending(None, following, lead_of(report), page=page, results=output))


if __name__ == "__main__":
    cli.run(main)
