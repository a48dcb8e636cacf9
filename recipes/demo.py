"""The whole way, on data every machine has: corpus → tokenizers → BERT and GPT → fine-tuning → what pretraining bought.

    make demo

Everything lies in runs/demo, and report.html there shows it. Each stage is a recipe of its own with a YAML in
recipes/configs/demo; a stage that is finished is not repeated, one that was interrupted continues.
"""

import os
import sys

if __name__ == "__main__" and sys.argv[1:]:  # it takes no options
    from toolkit.options.option_help import help_width, wrapped

    print("\n".join(wrapped(__doc__, help_width())))
    sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import of a Hugging Face library: nothing here needs a hub

import textwrap
import time
from dataclasses import replace
from pathlib import Path

from finetune_series import finetune_series
from finetune_text import finetune_text
from pretrain_bert import pretrain_bert
from pretrain_gpt import pretrain_gpt

from toolkit import cli, config
from toolkit.baselines.compressors import compressor_bits_per_byte, primed_xz_bits_per_byte
from toolkit.data.stores.prepare import prepare
from toolkit.data.text.corpus import read_documents
from toolkit.experiments.fine_tuning import arms_table
from toolkit.experiments.settings import FinetuneSeriesConfig, FinetuneTextConfig
from toolkit.inference.generation import continue_text, fill_mask
from toolkit.inference.samples import write_samples
from toolkit.metrics.intervals import proportion_interval
from toolkit.metrics.tabulate import table
from toolkit.publishing import card
from toolkit.report.figures.canvas import save_figure
from toolkit.report.figures.classification import confusion_figure, counts_of
from toolkit.report.figures.gains import GainPanel, gain_figure, panels_of
from toolkit.report.figures.training import curves_of, loss_figure
from toolkit.report.run_report import REPORT, write_report
from toolkit.run.directory import read_metrics
from toolkit.run.files import read_json, write_json
from toolkit.run.results import read_results
from toolkit.shown import quoted
from toolkit.tasks.settings import PretrainBertConfig, PretrainGptConfig
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.observers.throughput import duration

CONFIGS = Path(__file__).parent / "configs/demo"
DEMO = Path("runs/demo")
PROMPTS = ("Returns the", "This function is used to")
QUESTIONS = {"text": "which package? (few labels, names masked)", "series": "cylinder, bell or funnel?"}
BLANKS = ("returns true if the [MASK] is empty.", "the shape of the input [MASK].")


def demo(accelerator) -> dict:
    seconds = read_json(DEMO / "seconds.json") if (DEMO / "seconds.json").exists() else {}

    def stage(name: str, title: str, work):
        print(f"\n— {title}", flush=True)
        start = time.perf_counter()
        try:
            return work()
        finally:  # a stage continued after an interruption keeps the time it had taken before
            seconds[name] = round(seconds.get(name, 0) + time.perf_counter() - start, 1)
            write_json(DEMO / "seconds.json", seconds)

    bert_config, gpt_config, text_config, series_config = (
        config.from_dict(kind, config.read_yaml(CONFIGS / f"{name}.yaml"), str(CONFIGS / f"{name}.yaml"))
        for kind, name in ((PretrainBertConfig, "bert"), (PretrainGptConfig, "gpt"), (FinetuneTextConfig, "text"),
                           (FinetuneSeriesConfig, "series")))

    # 1. Data: documents, two tokenizers, two token stores.
    prepared = stage("data", "corpus, tokenizers, token stores", lambda: [
        prepare(settings.corpus, settings.tokenizer, settings.data_dir, end_documents=ends)
        for settings, ends in ((bert_config, False), (gpt_config, True))])
    splits = prepared[0].corpus["splits"]
    print(f"{splits['train']['documents']:,} documents, {splits['train']['bytes'] / 1e6:.1f} MB to train on; "
          f"{splits['validation']['documents']:,}, {splits['validation']['bytes'] / 1e6:.1f} MB held out")

    # 2. Two models from scratch.
    bert = stage("bert", "pretraining BERT: masked words and next sentences",
                 lambda: pretrain_bert(bert_config, accelerator))
    gpt = stage("gpt", "pretraining GPT: the next token", lambda: pretrain_gpt(gpt_config, accelerator))

    # 3. What they are worth: beside random starts, majority classes and classical baselines.
    text = stage("text", "fine-tuning on text: which package does a passage describe?",
                 lambda: finetune_text(text_config, accelerator))
    series = stage("series", "fine-tuning on time series: cylinder, bell or funnel?",
                   lambda: finetune_series(series_config, accelerator))

    # 4. Reference points, samples, pictures.
    def report():
        held_out = "\n\n".join(document.text for document in read_documents(
            Path(gpt_config.data_dir) / "corpus/validation.jsonl")).encode()
        read_before = "\n\n".join(document.text for document in read_documents(
            Path(gpt_config.data_dir) / "corpus/train.jsonl")).encode()
        compressors = compressor_bits_per_byte(held_out)
        low, high, half = proportion_interval(round(bert["nsp_accuracy"] * bert["nsp_count"]), bert["nsp_count"])
        summary = {
            "bert": {**bert, "nsp_interval": [low, high], "nsp_ci95": half, "fill_mask": {
                blank: fill_mask(f"{bert_config.output_dir}/model", blank) for blank in BLANKS}},
            "gpt": {**gpt, "gzip_bits_per_byte": compressors["gzip"], "xz_bits_per_byte": compressors["xz"],
                    "primed_xz_bits_per_byte": primed_xz_bits_per_byte(held_out, read_before),
                    "samples": [continue_text(f"{gpt_config.output_dir}/model", prompt) for prompt in PROMPTS]},
            "text": {key: value for key, value in text.items() if key not in ("predictions", "references")},
            "series": {key: value for key, value in series.items() if key not in ("predictions", "references")},
        }
        draw(summary, bert_config, gpt_config, text_config.output_dir, series_config.output_dir, text, series)
        return summary

    summary = stage("report", "reference points, samples, pictures", report)
    summary["seconds"] = {**seconds, "total": round(sum(seconds.values()), 1)}
    write_json(DEMO / "summary.json", summary)
    write_reports(bert_config, gpt_config)
    for name in ("bert", "gpt"):  # whose cards now know of more to stand beside
        card.refresh(DEMO / name)
    return summary


def write_reports(bert_config, gpt_config) -> None:
    """A page each part, and one of all of it."""
    for settings in (bert_config, gpt_config):
        write_samples(settings.output_dir, settings.data_dir)
    for name in ("bert", "gpt", "text", "series"):
        write_report(DEMO / name)
    write_report(DEMO)


def draw(summary: dict, bert_config, gpt_config, text_dir: str, series_dir: str, text: dict, series: dict) -> None:
    plots = DEMO / "plots"
    for run, names in ((bert_config.output_dir, ("bert-mlm", "bert-nsp")), (gpt_config.output_dir, ("gpt",))):
        records, model = read_metrics(Path(run) / "metrics.jsonl"), names[0].split("-")[0]
        for name, curve in zip(names, curves_of(records, summary[model]), strict=True):
            save_figure(loss_figure(records, [curve], model.upper()), plots / f"{name}.png")
    for name, result in (("text", text), ("series", series)):
        if "confusion" in result:  # else this part is of an earlier version, which kept the last seed's alone
            counts = counts_of(result["confusion"]["bert-pretrained"], len(result["label_names"]))
            title = f"{name}: pretrained BERT, test examples of all seeds together"
            save_figure(confusion_figure(counts, result["label_names"], title), plots / f"{name}-confusion.png")
    save_figure(gain_figure(gain_panels(text_dir, series_dir)), plots / "arms.png")


def gain_panels(text_dir: str, series_dir: str) -> list[GainPanel]:
    """What pretraining bought on text and on series."""
    return [replace(panel, title=QUESTIONS[name]) for name, directory in (("text", text_dir), ("series", series_dir))
            for panel in panels_of(read_results(directory).rows)]


def show(summary: dict) -> None:
    bert, gpt = summary["bert"], summary["gpt"]
    print("\n" + "=" * 78)
    print(table([
        {"what": "BERT masked words, nats", "ours": bert["mlm_loss"],
         "beside": f"{bert['unigram_entropy']:.3f} by frequencies alone"},
        {"what": "BERT masked words, accuracy", "ours": bert["mlm_accuracy"], "beside": ""},
        {"what": "BERT next sentence, accuracy", "ours": f"{bert['nsp_accuracy']:.3f} ± {bert['nsp_ci95']:.3f}",
         "beside": "0.5 by guessing"},
        {"what": "GPT bits per byte", "ours": gpt["bits_per_byte"],
         "beside": f"{gpt['gzip_bits_per_byte']:.3f} gzip, {gpt['xz_bits_per_byte']:.3f} xz"},
        {"what": "", "ours": "", "beside": f"{gpt['primed_xz_bits_per_byte']:.3f} xz that read the corpus"},
        {"what": "tokens per second", "ours": f"{bert['tokens_per_second']:,.0f} BERT", "beside":
         f"{gpt['tokens_per_second']:,.0f} GPT"},
    ], ["what", "ours", "beside"]))
    for name, what in QUESTIONS.items():
        print(f"\n{what} Test accuracy in percent, mean ± 95 % interval over seeds, "
              f"{summary[name]['test_examples']:,} test examples")
        print(arms_table(summary[name], ["bert", "gpt"]))
    print("\nBERT fills blanks:")
    for blank, answers in bert["fill_mask"].items():
        print(f"  {blank}\n    " + ", ".join(f"{quoted(token)} {100 * probability:.0f} %"
                                            for token, probability in answers))
    print("GPT continues:")
    for sample in gpt["samples"]:
        print(textwrap.fill(" ".join(sample.split()), 78, initial_indent="  ", subsequent_indent="    "))
    stages = [f"{stage} {value:.0f} s" for stage, value in summary["seconds"].items() if stage != "total"]
    print(f"\n{duration(summary['seconds']['total'])}: " + ", ".join(stages))
    print(f"""
figures:   {DEMO}/summary.json
pictures:  {DEMO}/plots
models:    {DEMO}/bert/model  {DEMO}/gpt/model
next:      make pretrain-bert CONFIG=recipes/configs/bert-5min.yaml
           (your own text: set corpus.sources)

All of it on one page: {DEMO / REPORT}""")


def main(argv: list[str]) -> None:
    if (DEMO / "summary.json").exists():
        print(f"The demo has run; to run it again, delete {DEMO}.")
        if not (DEMO / REPORT).exists():  # of an earlier version
            write_report(DEMO)
        show(read_json(DEMO / "summary.json"))
        return
    show(demo(make_accelerator()))


if __name__ == "__main__":
    cli.run(main)
