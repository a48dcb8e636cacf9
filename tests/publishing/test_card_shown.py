"""What a stranger sees of a card: the answer first, pictures and samples of what it says, nothing that was not used."""

import re
import shutil

import numpy as np
import pytest
import small
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from toolkit.models.series.patches import SeriesConfig, SeriesForForecasting
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.classifier import text_classifier
from toolkit.publishing.card import regenerate, without_held_out
from toolkit.publishing.staging import stage
from toolkit.report.sections.classified import Classified
from toolkit.report.sections.predictions import write_predictions
from toolkit.run.files import read_json, write_json
from toolkit.run.results import Results, Row, Verdict, write_results

HOSTILE = "![x](plots/none.png) <script> | `a` $b$ # [c](d)\n## Results"


def make_run(directory, config, result=None, manifest=None):
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    write_json(directory / "manifest.json", manifest or {})
    if result is not None:
        write_json(directory / "result.json", result)
    return directory


@pytest.fixture(scope="module")
def bert(tmp_path_factory, wordpiece):
    """A pretrained BERT of a corpus of the user's own."""
    run = make_run(tmp_path_factory.mktemp("shown") / "bert", {
        "masking": {}, "corpus": {"sources": ["../shared/data/notes"]}, "seed": 4, "training": {"max_steps": 2}},
        {"mlm_loss": 2.5, "unigram_entropy": 3.5})
    (run / "metrics.jsonl").write_text('{"step": 2, "eval_loss": 2.5, "eval_mlm_loss": 2.5, "eval_mlm_accuracy": 0.25, '
                                       '"eval_mlm_count": 400}\n')
    BertForPreTraining(small.bert_config(len(wordpiece))).save_pretrained(run / "model")
    wordpiece.save_pretrained(run / "model")
    write_json(run / "samples.json", {"fills": [
        {"text": f"{number}. the [MASK] {HOSTILE}", "answers": [["sea", 0.5], ["|<b>", 0.25]], "truth": "`river`"}
        for number in range(5)]})
    return run


def rows(arms: dict[str, list[float]], models=("bert",), **place) -> list[Row]:
    found = []
    for arm, values in arms.items():
        model = next((name for name in models if arm.startswith(f"{name}, ")), "")
        reference = arm.replace("pretrained", "random") if arm.endswith("pretrained") else ""
        found += [Row("text", arm, seed, {"accuracy": value}, model=model, start=arm.partition(", ")[2],
                      reference=reference, run=f"{arm.replace(', ', '-')}/seed-{seed}" if model else "", **place)
                  for seed, value in enumerate(values)]
    return found


ARMS = {"bert, pretrained": [0.7, 0.72, 0.74], "bert, random": [0.5, 0.53, 0.53], "tfidf": [0.6, 0.6, 0.6]}


@pytest.fixture
def text(bert, wordpiece, tmp_path):
    """Labelled texts of the user's own: three seeds of two arms, the pretrained first seed kept."""
    run = make_run(tmp_path / "text", {
        "models": {"bert": "../bert/model"}, "data": {
            "task": "classification", "train": "../shared/data/mail/train.tsv", "test": "../shared/data/mail/test.tsv",
            "text_column": "text", "label_column": "kind", "label_separator": "|", "validation_share": 0.1,
            "corpus_dir": "runs/demo/data", "shots": 8, "max_length": 16, "long_texts": "windows", "max_unknown": 0.5}},
        {"label_names": ["work", "home"]})
    write_results(run, Results("text", "accuracy", rows(ARMS), [Verdict("bert, pretrained", "bert: pretraining real")]))
    fit = run / "bert-pretrained/seed-0"
    text_classifier(str(bert / "model"), ["work", "home"], wordpiece, True).save_pretrained(fit / "model")
    wordpiece.save_pretrained(fit / "model")
    write_json(fit / "result.json", {"accuracy": 0.7, "f1": 0.69, "predictions": [0] * 10})
    texts = [f"letter {number} {HOSTILE}" for number in range(10)]
    write_predictions(Classified(texts, [0, 1] * 5, np.array([[0.75, 0.25]] * 10), ("work", "home")),
                      run / "bert-predictions.parquet")
    return run


def headings(card: str) -> list[str]:
    return re.findall(r"^## (.+)$", re.sub("```.*?```", "", card, flags=re.DOTALL), re.MULTILINE)


def pictures_are_there(path) -> list[str]:
    shown = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", path.read_text())
    for name in shown:
        assert not name.startswith(("/", "..")) and Image.open(path.parent / name).size[0] > 300, name
    return shown


def test_the_answer_stands_under_the_title_and_results_come_first(text):
    path = regenerate(text / "bert-pretrained/seed-0")
    card = ModelCard.load(path).text
    assert headings(card)[:3] == ["Results", "Three answers", "How to use it"]
    above = card.split("## Results")[0]
    assert "**It is right in 70.0 % of 10 test examples (95 %: 39.7 to 89.2). Pretraining helped bert (+20.0" in above
    assert pictures_are_there(path) == ["gains.png"]
    assert pictures_are_there(regenerate(text)) == ["gains.png"]


def test_figures_of_the_front_matter_say_over_which_seeds_and_with_which_interval(text, bert):
    told = {found.metric_type: found for found in ModelCard.load(
        regenerate(text / "bert-pretrained/seed-0")).data.eval_results}
    assert told["accuracy"].metric_value == 0.7 and told["accuracy"].metric_name == (
        "accuracy; seed 0; 95 % over 10 test examples: 0.397 to 0.892; mean of 3 seeds 0.72 ± 0.0497 (95 %, Student's "
        "t)")
    assert told["f1"].metric_name == "f1; seed 0"
    pretrained = {found.metric_type: found.metric_name for found in ModelCard.load(regenerate(bert)).data.eval_results}
    assert pretrained["mlm_accuracy"] == "mlm accuracy; seed 4; 95 % over 400 hidden words: 0.210 to 0.295"


def test_two_seeds_are_too_few_for_an_interval(text):
    two = Results("text", "accuracy", rows({arm: values[:2] for arm, values in ARMS.items()}),
                  [Verdict("bert, pretrained", "bert: pretraining +19.5 ± 6.4 points: real")])
    write_results(text, two)
    card = regenerate(text).read_text()
    assert "| bert, pretrained | 71.0 " in card and "±" not in card.split("## Results")[0]
    assert "too few seeds to be judged" in card and "points: real (2 seeds: run 3 or more)" in card
    data = ModelCard.load(regenerate(text / "bert-pretrained/seed-0")).data
    assert data.eval_results[0].metric_name.endswith("; mean of 2 seeds 0.71")


@pytest.mark.parametrize("source, expected", [
    ("../shared/data/mail/test.tsv", ("mail-test.tsv", "mail/test.tsv", None, None)),
    ("hub:ada/mail:de@v2#test", ("ada/mail", "ada/mail", "de", "v2")),
    ("hub:ada/mail", ("ada/mail", "ada/mail", None, None))])
def test_the_data_set_of_the_model_index_is_no_path(text, source, expected):
    # Once `../shared/data/mail/test.tsv`, which the hub takes for an id.
    config = yaml.safe_load((text / "config.yaml").read_text())
    config["data"]["test"] = source
    (text / "config.yaml").write_text(yaml.safe_dump(config))
    found = ModelCard.load(regenerate(text / "bert-pretrained/seed-0")).data.eval_results[0]
    assert (found.dataset_type, found.dataset_name, found.dataset_config, found.dataset_revision) == expected


def data_section(path) -> str:
    return re.search("## The data\n\n(.*?)\n\n##", path.read_text(), re.DOTALL)[1]


def test_only_settings_that_had_a_say_are_told(text, tmp_path):
    told = data_section(regenerate(text / "bert-pretrained/seed-0"))
    assert "* label column: `kind`" in told and "* train: `mail/train.tsv`" in told
    for name in ("corpus dir", "label separator", "max unknown", "long texts", ".."):
        assert name not in told, name
    series = {"label_column": "label", "generator": None, "train_per_class": 30, "test_per_class": 300, "missing":
              "refuse", "normalisation": "series"}
    generated = data_section(regenerate(make_run(tmp_path / "generated", {"models": {}, "data": series}, {})))
    assert "* train per class: `30`" in generated and "label column" not in generated and "missing" not in generated
    files = {**series, "train": "data/FordA_TRAIN.tsv", "test": "data/FordA_TEST.tsv"}
    given = data_section(regenerate(make_run(tmp_path / "files", {"models": {}, "data": files}, {})))
    # Once "train per class: 30" stood where files were given.
    assert "* train: `data/FordA_TRAIN.tsv`" in given and "per class" not in given and "label column" not in given
    table = {"path": "data/tides.csv", "generated_rows": 5000, "time_column": "date", "season": 24, "scale": "all"}
    of_table = data_section(regenerate(make_run(tmp_path / "table", {"models": {}, "data": table}, {})))
    assert "* time column: `date`" in of_table and "generated rows" not in of_table and "scale" not in of_table
    assert "time column" not in data_section(regenerate(make_run(
        tmp_path / "chaos", {"models": {}, "data": {**table, "path": ""}}, {})))


def test_samples_are_three_and_show_what_was_written_as_text(bert, text):
    for path, title in ((regenerate(bert), "What it fills in"), (regenerate(text / "bert-pretrained/seed-0"),
                                                                "Three answers")):
        shown = path.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
        assert len(re.findall(r"^\* ", shown, re.MULTILINE)) == 3 == len(re.findall(r"^  → ", shown, re.MULTILINE))
        assert r"!\[x\](plots/none.png) \<script\> \| \`a\` \$b\$ \# \[c\](d) \#\# Results" in shown
    assert "“sea” 50 %, “\\|\\<b\\>” 25 %; there stood “\\`river\\`”" in bert.joinpath("README.md").read_text()
    answers = re.findall(r"→ \*\*work\*\* 75 %; (.+)", (text / "bert-pretrained/seed-0/README.md").read_text())
    assert set(answers) == {"which is right", "it is home"}


def test_texts_of_the_user_stay_unless_they_are_asked_for(bert, text):
    for run, title in ((bert, "What it fills in"), (text / "bert-pretrained/seed-0", "Three answers")):
        card = regenerate(run).read_text()
        staged = stage(run, "ada/little", "main")
        pushed = (staged.folder / "README.md").read_text()
        assert staged.withheld and title not in headings(pushed) and title in headings(card)
        assert [name for name in headings(card) if name != title] == headings(pushed)
        asked = stage(run, "ada/little", "main", predictions=True)
        assert not asked.withheld and title in headings((asked.folder / "README.md").read_text())
        assert all(text in card and text not in without_held_out(card) for text in re.findall(r"^\* .*script.*$", card,
                                                                                              re.MULTILINE))


def test_samples_of_what_is_built_in_go_and_are_what_the_widget_asks(bert, tmp_path):
    shutil.copytree(bert, tmp_path / "bert")
    assert ModelCard.load(regenerate(tmp_path / "bert")).data.widget == [{"text": "There is a [MASK] here."}]
    write_json(tmp_path / "bert/manifest.json", {"data": {"corpus": {"sources": [{"source": "python-docs"}]}}})
    data = ModelCard.load(regenerate(tmp_path / "bert")).data
    assert len(data.widget) == 3 and data.widget[0]["text"].startswith("0. the [MASK] ![x]")
    staged = stage(tmp_path / "bert", "ada/little", "main")
    assert not staged.withheld and "What it fills in" in headings((staged.folder / "README.md").read_text())
    (tmp_path / "bert/config.yaml").write_text("masking: {}\ncard: {language: [de]}\n")
    write_json(tmp_path / "bert/manifest.json", {})
    data = ModelCard.load(regenerate(tmp_path / "bert")).data
    assert "widget" not in data.to_dict()  # no German is known to ask


def test_pictures_go_with_the_card_and_one_that_is_left_out_is_not_shown(text):
    fit = text / "bert-pretrained/seed-0"
    regenerate(fit)
    staged = stage(fit, "ada/little", "main")
    assert "gains.png" in staged.files() and pictures_are_there(staged.folder / "README.md") == ["gains.png"]
    assert "# little\n" in (staged.folder / "README.md").read_text()
    without = stage(fit, "ada/little", "main", leave_out=("gains.png",))
    assert "gains.png" not in without.files() and pictures_are_there(without.folder / "README.md") == []


def test_the_card_of_a_comparison_has_its_pictures_and_its_verdict(tmp_path):
    run = make_run(tmp_path / "words", {"models": {"bert": "runs/bert/model"}, "data": {"train": "train.tsv"},
                                        "labels": [10, "all"]}, {}, {"examples": {"train": 54, "test": 40}})
    found = [row for size, gain in (("10", 0.0), ("all", 0.2)) for row in rows(
        {**ARMS, "bert, pretrained": [0.5 + gain, 0.53 + gain, 0.54 + gain]}, size=size)]
    write_results(run, Results("words", "accuracy", found, [], "labels"))
    path = regenerate(run)
    card = path.read_text()
    assert pictures_are_there(path) == ["learning-curves.png", "gains.png"]
    assert "**Pretraining helped bert (+20.3" in card.split("## Results")[0]
    assert "A comparison of models: 3 arms, baselines among them, each on the same data, over 3 seeds." in card
    assert "* train: `train.tsv`" in card and "library_name" not in card


def test_the_card_of_a_gpt_of_series_is_one_of_series(tmp_path):
    run = make_run(tmp_path / "chaos", {"block_size": 8, "corpus": {"sources": ["python-docs"]},
                                        "series": {"sources": ["generator:noisy-sines:60"]}}, {"loss": 2.5})
    (run / "metrics.jsonl").write_text('{"step": 2, "eval_loss": 2.5, "eval_perplexity": 12.2, "eval_accuracy": 0.5, '
                                       '"eval_count": 40}\n')
    small.GPT2LMHeadModel(small.gpt_config(30)).save_pretrained(run / "model")
    card = ModelCard.load(regenerate(run))
    assert card.data.pipeline_tag == "time-series-forecasting" and card.data.library_name == "pretraining-toolkit"
    # Once python-docs, which the configuration names where no text is read.
    assert {found.dataset_type for found in card.data.eval_results} == {"generator-noisy-sines-60"}
    assert "continue time series, value by value" in card.text and "sample_paths(model, bins, values)" in card.text
    assert "| `generator:noisy-sines:60` | none needed (it is generated) |" in card.text


def test_a_forecaster_stands_beside_the_naive_rule(tmp_path):
    run = make_run(tmp_path / "tides", {"models": {"small": {}}, "data": {"path": "data/tides.csv"}}, {})
    errors = {"repeat-last": [0.5], "small-random": [0.4, 0.42, 0.44], "small-masked-patches": [0.3, 0.31, 0.33]}
    write_results(run, Results("tides", "mse", [
        Row("tides", arm, seed, {"mse": value}, size="8", model="small" if arm.startswith("small") else "",
            start=arm.removeprefix("small-"), reference="small-random" if arm.endswith("patches") else "",
            run=f"{arm}/8/seed-{seed}", test_examples=100) for arm, values in errors.items()
        for seed, value in enumerate(values)], [], "horizon"))
    fit = run / "small-masked-patches/8/seed-0"
    SeriesForForecasting(SeriesConfig(backbone_config=small.bert_config(10), context_length=32, horizon=8,
                                      patch_length=8)).save_pretrained(fit / "model")
    write_json(fit / "result.json", {"mse": 0.3, "mae": 0.4})
    card = regenerate(fit).read_text()
    assert "**8 rows ahead its test MSE is 0.3, the naive rule's 0.5. Pretraining helped" in card
    assert "name: mse; seed 0; mean of 3 seeds 0.3133 ± 0.0379 (95 %, Student's t)" in card.replace("\n        ", " ")
    whole = regenerate(run).read_text()
    assert "**8 rows ahead small-masked-patches errs least (test MSE 0.313; the naive rule 0.5)." in whole
    rows_left = [{**row, "size": "16"} for row in read_json(run / "rows.json")["rows"]]
    write_json(run / "rows.json", {**read_json(run / "rows.json"), "rows": rows_left})
    assert "# tides/small-masked-patches/8/seed-0" in regenerate(fit).read_text()  # its horizon was given up since
