"""The card of every kind of run: read by huggingface_hub, true to the run's files, and its code runs."""

import contextlib
import dataclasses
import io
import json
import re
import shutil
import time

import card as card_recipe
import finetune_series
import finetune_text
import numpy as np
import pretrain_bert
import pretrain_gpt
import pytest
import small
import yaml
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

import toolkit.publishing.card
from toolkit.data.series.splits import SeriesDataSection
from toolkit.data.stores.bert_batches import MaskingConfig
from toolkit.data.text.corpus import CorpusConfig
from toolkit.data.text.labelled import TextDataSection
from toolkit.errors import UserError
from toolkit.models.series.patches import SeriesConfig, SeriesForForecasting
from toolkit.models.small.linear import DLinear, DLinearConfig
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.publishing.card import CardConfig, LiveCard, regenerate, text
from toolkit.publishing.card_facts import Facts
from toolkit.report.sections.pieces import with_minus
from toolkit.run.directory import Run
from toolkit.run.files import read_json, write_json
from toolkit.tasks.classification import FineTuningConfig
from toolkit.tasks.pretraining import PretrainingConfig
from toolkit.training.impl.distributed import make_accelerator

STATED = CardConfig(license="cc-by-4.0", language=["eo"], speakers="a random generator", written="just now",
                    author="Ada", limits="It knows no word of any language.")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs, made by the recipes in seconds: bert, gpt; text and series, which are fine-tuned from them."""
    root = tmp_path_factory.mktemp("cards")
    with contextlib.chdir(root):
        accelerator = make_accelerator()
        source = str(small.write_corpus(root / "private/corpus"))
        training = dict(max_steps=6, batch_size=8, logging_steps=1, eval_steps=3, save_steps=0)
        common = dict(data_dir=str(root / "private/data"), corpus=CorpusConfig(
            sources=[source], validation_share=0.2, min_characters=20))
        pretrain_bert.pretrain_bert(pretrain_bert.PretrainBertConfig(
            output_dir="runs/bert", tokenizer=small.write_spec(root / "specs", "wordpiece"), eval_rows=16,
            masking=MaskingConfig(max_seq_length=40), card=dataclasses.replace(
                STATED, source_licenses={source: "CC0-1.0"}),
            training=PretrainingConfig(**training, emissions=True, country="NOR"), **common), accelerator)
        pretrain_gpt.pretrain_gpt(pretrain_gpt.PretrainGptConfig(
            output_dir="runs/gpt", tokenizer=small.write_spec(root / "specs", "bytes"), block_size=32,
            training=PretrainingConfig(**training), **common), accelerator)
        rng = np.random.default_rng(0)
        for name in ("train", "test"):
            words = [" ".join(rng.choice(["fola", "dake", "mi"], 5)) + [" sun", " moon"][row % 2] for row in range(24)]
            (root / f"{name}.tsv").write_text("text\tlabel\n" + "".join(
                f"{line}\t{['day', 'night'][row % 2]}\n" for row, line in enumerate(words)))
        models = {"bert": "runs/bert/model"}
        tuning = FineTuningConfig(max_steps=6, batch_size=8, learning_rate=1e-3, logging_steps=1, eval_steps=3)
        finetune_text.finetune_text(finetune_text.FinetuneTextConfig(
            output_dir="runs/text", models=models, seeds=2, training=tuning, data=TextDataSection(
                train="train.tsv", test="test.tsv", max_length=16)), accelerator)
        finetune_series.finetune_series(finetune_series.FinetuneSeriesConfig(
            output_dir="runs/series", models=models, seeds=1, training=tuning,
            data=SeriesDataSection(train_per_class=4, test_per_class=4)), accelerator)
    return root / "runs"


@pytest.fixture
def here(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    return runs


def run_code(directory, monkeypatch) -> str:
    """Run the card's block of code where it says it may be run; returns what it prints."""
    code = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(), re.DOTALL)
    assert len(code) == 1 and len([line for line in code[0].splitlines() if line]) <= 7
    out = io.StringIO()
    with monkeypatch.context() as context, contextlib.redirect_stdout(out):
        context.chdir(directory)
        exec(compile(code[0], "README.md", "exec"), {})
    return out.getvalue()


WHERE = {"bert": "bert", "gpt": "gpt", "text": "text/bert-pretrained/seed-0", "series": "series/bert-pretrained/seed-0"}


@pytest.mark.parametrize("kind", WHERE)
def test_huggingface_reads_the_metadata_and_the_results_come_back(here, kind):
    directory = here / WHERE[kind]
    card, metadata = ModelCard.load(directory / "README.md"), metadata_load(directory / "README.md")
    assert card.data.to_dict() == metadata
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == WHERE[kind] and results == card.data.eval_results
    measured = {result.metric_type: result.metric_value for result in results}
    result = read_json(directory / "result.json")
    expected = {"bert": ("mlm_loss", "nsp_accuracy"), "gpt": ("perplexity", "bits_per_byte")}.get(kind,
                                                                                               ("accuracy", "f1"))
    best = Facts.of(directory).evaluation | result
    assert {key: measured[key] for key in expected} == {key: pytest.approx(best[key], rel=1e-4) for key in expected}
    assert {result.dataset_split for result in results} == {"validation" if kind in ("bert", "gpt") else "test"}
    assert metadata["pipeline_tag"] == {"bert": "fill-mask", "gpt": "text-generation", "text": "text-classification",
                                        "series": "other"}[kind]
    assert metadata["library_name"] == ("transformers" if kind in ("bert", "gpt") else "pretraining-toolkit")
    assert metadata.get("language") == {"bert": ["eo"], "text": ["eo"]}.get(kind)  # of the model it started from
    assert metadata.get("license") == ("cc-by-4.0" if kind == "bert" else None)


@pytest.mark.parametrize("kind, said", [("bert", r"\S+ 0\.\d+\n"), ("gpt", "The"), ("text", "'label': '(day|night)'"),
                                        ("series", "cylinder|bell|funnel")])
def test_the_code_of_the_card_runs(here, kind, said, monkeypatch):
    assert re.search(said, run_code(here / WHERE[kind], monkeypatch))


def test_the_code_loads_from_the_hub_where_it_is_pushed_to(here):
    pushed = text(Facts.of(here / "gpt"), repository="ada/little-gpt")
    assert 'model="ada/little-gpt"' in pushed and "./model" not in pushed


def test_what_it_saw_is_told_and_what_is_not_known_is_said_to_be_so(here):
    card, manifest = (here / "bert/README.md").read_text(), read_json(here / "bert/manifest.json")
    corpus, tokens = manifest["data"]["corpus"], manifest["data"]["tokens"]
    assert re.search(r"\| `private/corpus` +\| CC0-1.0 +\| " + f"{corpus['splits']['train']['documents']} ", card)
    assert f"{tokens['train']:,} tokens" in card and f"Read: {corpus['counts']['read']:,} documents" in card
    assert "when the hash of its text says so (20 % are)" in card and "written: just now" in card
    bytes_a_token = corpus["splits"]["train"]["bytes"] / tokens["train"]
    assert f"Bytes of UTF-8 a token: {bytes_a_token:.2f} on the text" in card
    for stated in ("Language: eo. Written by: a random generator.", "It knows no word of any language.", "Author: Ada",
                   "masked words (Devlin et al. 2018) and next sentences", "optimiser: muon", "budget: 6 steps",
                   manifest["commit"], manifest["command"], f"parameters: {manifest['parameters']:,}",
                   "![Loss by step](curves.png)", "unigram entropy", "Nothing. `make probe-bias`"):
        assert stated in card, stated
    silent = (here / "gpt/README.md").read_text()
    for stated in ("| not stated |", "Language: not stated. Written by: not stated", "Licence of the model: not stated",
                   "When the text was written: not stated"):
        assert stated in silent, stated


def test_energy_and_emissions_are_told_with_how_they_were_found(here):
    card, used = (here / "bert/README.md").read_text(), read_json(here / "bert/emissions.json")
    assert used["method"] in card and "g CO₂ equivalent, at the mix of electricity of Norway" in card
    stated = metadata_load(here / "bert/README.md")["co2_eq_emissions"]
    assert stated["emissions"] == pytest.approx(1000 * used["emissions_kg"], rel=1e-3)
    assert stated["geographical_location"] == "Norway" and stated["training_type"] == "pre-training"
    assert "energy: not measured" in (here / "text/README.md").read_text()
    assert "co2_eq_emissions" not in metadata_load(here / "series/README.md")


def test_no_card_names_a_path_of_this_machine(here):
    cards = list(here.rglob("README.md"))
    assert len(cards) == 6
    for card in cards:
        assert str(here.parent) not in card.read_text() and "/tmp" not in card.read_text(), card


def test_results_stand_beside_baselines_with_intervals(here):
    result = read_json(here / "text/result.json")
    row = f"{100 * result['tfidf']['mean']:.1f}"
    assert "tfidf" not in (here / "bert/README.md").read_text()  # a run changes no other run's card
    regenerate(here / "bert")
    for directory in ("text", "text/bert-pretrained/seed-0", "bert"):  # of the model that was fine-tuned, too
        card = (here / directory / "README.md").read_text()
        assert re.search(rf"\| tfidf +\| {re.escape(row)}", card), directory
        assert with_minus(result["bert"]["verdict"]) in card, directory
    own = read_json(here / "text/bert-pretrained/seed-0/result.json")
    assert re.search(rf"accuracy on test +\| {100 * own['accuracy']:.1f} % \(95 %: [\d.]+ – [\d.]+, of 24 examples\)",
                     (here / "text/bert-pretrained/seed-0/README.md").read_text())
    assert "next sentence or not" in (here / "bert/README.md").read_text()


def test_what_the_probe_of_bias_found_is_shown(here, tmp_path):
    shutil.copytree(here / "bert", tmp_path / "run")
    write_json(tmp_path / "run/bias.json", {
        "method": "pseudo-log-likelihood", "can_show": "This.", "cannot_show": "That.", "categories": {
            "gender (he / she)": {"prefers_a": 0.625, "low": 0.3, "high": 0.86, "n": 8, "mean_difference": 0.5,
                                  "ci95": 0.25},
            "none left": {"prefers_a": None, "low": None, "high": None, "n": 0, "mean_difference": 0.0, "ci95": None}}})
    regenerate(tmp_path / "run")
    card = (tmp_path / "run/README.md").read_text()
    assert re.search(r"gender \(he / she\) +\| 8 +\| 62 % \(95 %: 30 – 86\) +\| \+0\.50 ± 0\.25", card)
    assert "It cannot show: That." in card


def test_a_run_that_has_not_ended_says_so_above_everything(here, tmp_path):
    shutil.copytree(here / "bert", tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    regenerate(tmp_path / "run")
    card = ModelCard.load(tmp_path / "run/README.md").text
    assert re.match(r"\s*# \S+\n\n> \*\*This run has not ended\.\*\* It has come to step 6\.", card)
    shutil.copytree(here / "text", tmp_path / "text")
    for file in (tmp_path / "text/result.json", tmp_path / "text/bert-random/seed-1/result.json"):
        file.unlink()
    assert "> **This run has not ended.** 3 of its fits have ended." in regenerate(tmp_path / "text").read_text()


def test_licence_and_language_may_be_stated_after_the_run(here, tmp_path):
    shutil.copytree(here / "gpt", tmp_path / "run")
    before = read_json(tmp_path / "run/result.json")
    settings = pretrain_gpt.PretrainGptConfig(**{
        **vars(pretrain_gpt.config.from_dict(pretrain_gpt.PretrainGptConfig,
                                             yaml.safe_load((tmp_path / "run/config.yaml").read_text()))),
        "output_dir": str(tmp_path / "run"), "card": CardConfig(license="mit")})
    (tmp_path / "run/config.yaml").write_text((tmp_path / "run/config.yaml").read_text().replace(
        "output_dir: runs/gpt", f"output_dir: {tmp_path / 'run'}"))
    assert pretrain_gpt.pretrain_gpt(settings, make_accelerator()) == before  # the same command: only the card is new
    assert metadata_load(tmp_path / "run/README.md")["license"] == "mit"
    card_recipe.main([str(tmp_path / "run"), "--card.language", "en", "--card.author", "Ada"])
    metadata = metadata_load(tmp_path / "run/README.md")
    assert metadata["license"] == "mit" and metadata["language"] == ["en"]
    assert "Author: Ada" in (tmp_path / "run/README.md").read_text()


@pytest.mark.parametrize("stated, message", [
    ({"license": "Apache 2.0"}, r"card\.license is 'Apache 2\.0', which the hub does not take\. .*apache-2\.0"),
    ({"language": ["english"]}, r"card\.language is 'english'"), ({"datasets": ["a b"]}, r"card\.datasets is 'a b'"),
    ({"base_model": "runs/demo/bert/model"}, r"card\.base_model is 'runs/demo/bert/model'.*owner/name")])
def test_what_the_hub_would_not_take_is_refused_at_the_start(tmp_path, stated, message):
    settings = pretrain_gpt.PretrainGptConfig(output_dir=str(tmp_path / "run"), data_dir=str(tmp_path / "data"),
                                              card=CardConfig(**stated))
    with pytest.raises(UserError, match=message):
        pretrain_gpt.pretrain_gpt(settings, make_accelerator())
    assert not (tmp_path / "run").exists()


def test_a_directory_of_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is no run directory \(neither it nor one above it has a config\.yaml"):
        regenerate(tmp_path)


def test_a_readme_of_somebody_else_is_left_alone(here, tmp_path):
    """A project may well have a config.yaml, a manifest.json, and folders below it."""
    for name, content in (("README.md", "# Mine"), ("config.yaml", "a: 1"), ("manifest.json", "{}")):
        (tmp_path / name).write_text(content)
    with pytest.warns(UserWarning, match="README.md: was not written by this toolkit, and is left alone"):
        toolkit.publishing.card.refresh(tmp_path / "runs/one")
    assert (tmp_path / "README.md").read_text() == "# Mine"


@pytest.mark.parametrize("model, said", [
    (lambda: SeriesForForecasting(SeriesConfig(backbone_config=small.bert_config(10), num_channels=2, context_length=32,
                                               horizon=8, patch_length=8)), "tensor"),
    (lambda: DLinear(DLinearConfig(num_channels=2, context_length=32, horizon=8)), "tensor"),
    (lambda: RecurrentForClassification(RecurrentConfig(id2label={0: "up", 1: "down"})), "up|down")])
def test_any_model_of_ours_gets_a_card_whose_code_runs(tmp_path, monkeypatch, model, said):
    model = model()
    model.save_pretrained(tmp_path / "run/model")
    (tmp_path / "run/config.yaml").write_text("data: {path: /home/jane/heart.csv}\nseed: 0\n")
    write_json(tmp_path / "run/manifest.json", {})
    write_json(tmp_path / "run/result.json", {"mse": 0.25, "mae": 0.5})
    card = regenerate(tmp_path / "run").read_text()
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card and "0.25" in card
    assert "jane" not in card and "heart.csv" in card and "Stochastic" not in card
    assert re.search(said, run_code(tmp_path / "run", monkeypatch))


def test_forecasts_that_started_from_a_model_stand_beside_baselines_on_its_card(here, tmp_path):
    """Not those of other models; small errors keep three digits."""
    for name in ("bert", "gpt"):
        shutil.copytree(here / name, tmp_path / "runs" / name)
    place = tmp_path / "runs/tides"
    place.mkdir()
    models = {"bert": str(tmp_path / "runs/bert/model"), "gpt": str(tmp_path / "runs/gpt/model")}
    (place / "config.yaml").write_text(yaml.safe_dump({"name": "tides", "models": models}, sort_keys=False))
    write_json(place / "manifest.json", {})

    def entry(mse, half=None):
        deviation = 0 if half is None else half * 3**0.5 / 4.302653  # Student's t of two degrees of freedom
        values = [mse] if half is None else [mse - deviation, mse, mse + deviation]
        return {"seeds": len(values), "test_windows": 1234, "mse": mse, "mse_ci95": half, "mse_values": values}

    write_json(tmp_path / "runs/tides.json", {
        "seasonal-naive": {"96": entry(0.5)}, "nlinear": {"96": entry(0.03, 0.00125)}, "bert-pretrained":
        {"96": {**entry(0.00254, 0.0001), "verdict": "bert-pretrained over bert-random: real"}},
        "gpt-pretrained": {"96": {**entry(0.004, 0.0002), "verdict": "gpt-pretrained over gpt-random: hurts"}}})
    card = regenerate(tmp_path / "runs/bert").read_text()
    shown = card.split("in `tides` as `bert`")[1].split("## Limits")[0]
    assert re.findall(r"^\| (\S+) +\| (\d.*?) +\| (\d) +\|$", shown, re.MULTILINE) == [
        ("seasonal-naive", "0.50000", "1"), ("nlinear", "0.03000 ± 0.00125", "3"),
        ("bert-pretrained", "0.00254 ± 0.00010", "3")]
    assert "windows: 1,234 at 96" in shown and "bert-random: real" in shown and "gpt" not in shown
    assert "gpt-random: hurts" in regenerate(place).read_text()


# --- while a run goes on -------------------------------------------------------------------------------------------


def test_each_evaluation_writes_the_card_and_a_failure_stops_nothing(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 7\n")
    write_json(tmp_path / "run/manifest.json", {})
    data = small.small_data(tmp_path, "bytes")
    monkeypatch.setattr(toolkit.publishing.card, "LARGEST_SHARE", 100.0)
    seen = []
    task, regenerated = small.gpt_task(data), toolkit.publishing.card.regenerate

    def look(directory, *rest):
        seen.append(regenerated(directory, *rest).read_text())
        if len(seen) == 2:
            raise RuntimeError("no ink")

    monkeypatch.setattr(toolkit.publishing.card, "regenerate", look)
    settings = small.loop.TrainingConfig(max_steps=6, batch_size=8, logging_steps=2, eval_steps=2, save_steps=0)
    with pytest.warns(UserWarning, match="README.md could not be written: no ink"):
        run = Run(tmp_path / "run", observers=[LiveCard()])
        assert small.loop.train(task, settings, small.loop.ImplConfig(dtype="fp32"), run, make_accelerator(),
                                7)["steps"] == 6
    assert [re.search(r"come to step (\d)", card)[1] for card in seen] == ["2", "4", "6"]
    assert json.dumps(small.records(tmp_path / "run"))  # and the figures are all there


def test_cards_take_no_more_than_a_hundredth_of_the_time(tmp_path, monkeypatch):
    now, drawn = [0.0], []

    def slow(directory):
        drawn.append(now[0])
        now[0] += 0.5

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(toolkit.publishing.card, "refresh", slow)
    live = LiveCard()
    for _ in range(200):
        live(tmp_path)
        now[0] += 1
    assert len(drawn) == 5 and drawn[1] >= 50
    (tmp_path / "config.yaml").write_text("seed: 7\n")
    (tmp_path / "manifest.json").write_text("{}")
    live(tmp_path / "arm/seed-0", finished=True)
    assert len(drawn) == 5, "of many short fits each would draw what the last one draws"
    live(tmp_path, finished=True)
    assert len(drawn) == 6
