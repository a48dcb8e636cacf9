"""Sequence to sequence from the recipe to the file of answers: the default, arms, resuming, a joined BERT and GPT."""

import io
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import compare_seq2seq
import finetune_seq2seq
import pandas as pd
import pytest
import small
import torch
from accelerate import Accelerator
from huggingface_hub import ModelCard
from transformers import AutoModelForSeq2SeqLM

import toolkit
from toolkit.data.pairs import pair_files
from toolkit.data.pairs.batches import PairBatches, TokenIds
from toolkit.data.pairs.pair_files import ComparedPairsSection, PairsSection, load_pairs
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.errors import Diverged, UserError
from toolkit.experiments import seq2seq
from toolkit.experiments.seq2seq import arms_of, training_of
from toolkit.experiments.settings import CompareSeq2SeqConfig, FinetuneSeq2SeqConfig, Seq2SeqModelSection
from toolkit.inference.predict import predict
from toolkit.inference.settings import PredictConfig
from toolkit.publishing.card import regenerate
from toolkit.publishing.staging import stage
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.run.files import read_json
from toolkit.run.model_card import CardConfig
from toolkit.run.results import read_results
from toolkit.tasks.seq2seq import Seq2Seq, answers, scores
from toolkit.tasks.settings import DecodingConfig, Seq2SeqTrainingConfig
from toolkit.tokenization.load import load_tokenizer
from toolkit.training.impl.precision import exact

GRU = {"architecture": "gru", "embedding_size": 8, "hidden_size": 12}


def pairs_of(directory) -> PairsSection:
    """Sixty little sentences and the same backwards, letter by letter."""
    sources = [f"{a} {b}" for a in ("red", "blue", "old", "new", "wet", "dry") for b in
               ("cat", "dog", "hat", "box", "cup", "sun", "sea", "hen", "ant", "bee")]
    file = directory / "pairs.tsv"
    file.write_text("source\ttarget\n" + "".join(f"{text}\t{text[::-1]}\n" for text in sources))
    return PairsSection(train=[str(file)], validation_share=0.1, max_source_length=16, max_target_length=16)


def settings_of(directory, cls=FinetuneSeq2SeqConfig, **options):
    training = Seq2SeqTrainingConfig(max_steps=6, max_minutes=None, batch_size=8, eval_steps=3, save_steps=2,
                                     decoding=DecodingConfig(max_new_tokens=12))
    values = {"model": Seq2SeqModelSection(**GRU), "training": training, "tokenizer": "tokenizers/characters.yaml",
              "data": pairs_of(directory), "output_dir": str(directory / "run")}
    return cls(**{**values, **options})


def test_a_run_answers_its_test_set_and_files_alike(tmp_path):
    settings = settings_of(tmp_path)
    result = finetune_seq2seq.finetune_seq2seq(settings, Accelerator(cpu=True))
    assert result["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert 0 <= result["exact_match"]["mean"] <= 1 and result["copy"]["exact_match"] == 0
    answers = read_json(tmp_path / "run/seed-0/predictions.json", list)
    assert len(answers) == result["test_examples"] == 5
    model = tmp_path / "run/seed-0"
    assert toolkit.translate(model, [row["source"] for row in answers]) == [row["prediction"] for row in answers]
    assert toolkit.translate(model, [answers[0]["source"]], num_beams=3)
    file = tmp_path / "ask.csv"
    file.write_text("text,prediction\n" + "".join(f"{row['source']},{number}\n" for number, row in enumerate(answers)))
    table = predict(PredictConfig(str(model), str(file)))
    assert list(table) == ["prediction", "text", "input_prediction"]
    assert table["prediction"].tolist() == [row["prediction"] for row in answers]


def test_what_is_said_of_a_run(tmp_path, monkeypatch):
    """Its page, its card and what would be pushed: scores with their signature, answers, where it looked; the code of
    the card writes what `translate` writes; the target's tokenizer goes along.
    """
    monkeypatch.chdir(tmp_path)
    training = Seq2SeqTrainingConfig(max_steps=6, max_minutes=None, batch_size=8, eval_steps=3, save_steps=0,
                                     decoding=DecodingConfig(max_new_tokens=12))
    spec = shutil.copy(small.ROOT / "tokenizers/characters.yaml", "letters.yaml")
    settings = settings_of(Path(), training=training, model=Seq2SeqModelSection("transformer-tiny"), tokenizer=spec,
                           target_tokenizer=spec, card=CardConfig(language=["de", "en"]), output_dir="run")
    finetune_seq2seq.finetune_seq2seq(settings, Accelerator(cpu=True))
    page = write_report("run").read_text(encoding="utf-8")
    for said in ("Scores on the test set", "By length of the source", "Where it looked", "What it writes",
                 "nrefs:1|case:mixed", "copy of the source", "make predict MODEL=run/seed-0", "‹end›"):
        assert said in page, said
    regenerate("run/seed-0")
    card = ModelCard.load("run/seed-0/README.md")
    assert card.data.pipeline_tag == "translation" and "widget" not in card.data.to_dict()  # texts of somebody's own
    found = {result.metric_type: result for result in card.data.eval_results}
    answers = read_json(tmp_path / "run/seed-0/predictions.json", list)
    whole = scores([row["prediction"] for row in answers], [row["target"] for row in answers])
    assert found["chrf"].metric_value == pytest.approx(whole["chrf"], rel=1e-3)
    assert "nrefs:1|case:mixed" in found["bleu"].metric_name and "95 % over 5 test pairs" in found["bleu"].metric_name
    assert "## Three answers" in card.content and "by copying the source" in card.content
    code = re.search(r"```python\n(.*?)```", card.content, re.DOTALL)[1].replace("A text.", answers[0]["source"])
    staged = stage(Path("run/seed-0"), "you/writer", "main")
    assert "target_tokenizer/tokenizer.json" in staged.files() and "alignments.json" not in staged.files()
    assert "Three answers" not in (staged.folder / "README.md").read_text(encoding="utf-8")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code.replace('"./model"', repr(str(staged.folder))), {})
    assert printed.getvalue().strip() == answers[0]["prediction"]


class Broken(Exception):
    pass


@pytest.mark.parametrize("architecture", ["gru", "transformer-tiny"])
def test_broken_off_and_resumed_is_unbroken(tmp_path, monkeypatch, architecture):
    """To the bit, with dropout, after a checkpoint and before the next."""
    model, run = Seq2SeqModelSection(**{**GRU, "architecture": architecture}), "run/seed-0"
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    finetune_seq2seq.finetune_seq2seq(settings_of(tmp_path / "whole", model=model), Accelerator(cpu=True))
    learn, calls = Seq2Seq.losses, []

    def losses(self, *args):
        calls.append(1)
        if len(calls) == 7:  # the first micro-batch is computed once more than it is learned
            raise Broken
        return learn(self, *args)

    broken = settings_of(tmp_path / "broken", model=model)
    with monkeypatch.context() as patched, pytest.raises(Broken):
        patched.setattr(Seq2Seq, "losses", losses)
        finetune_seq2seq.finetune_seq2seq(broken, Accelerator(cpu=True))
    assert (tmp_path / "broken" / run / "checkpoints/step-00000004").is_dir()
    finetune_seq2seq.finetune_seq2seq(broken, Accelerator(cpu=True))
    for file in ("model/model.safetensors", "predictions.json"):
        assert (tmp_path / "broken" / run / file).read_bytes() == (tmp_path / "whole" / run / file).read_bytes(), file
    assert small.records(tmp_path / "broken" / run) == small.records(tmp_path / "whole" / run)


def test_arms_are_compared_by_length(tmp_path, monkeypatch):
    told, of = [], seq2seq.tokenizers_of
    monkeypatch.setattr(seq2seq, "tokenizers_of", lambda *args: told.append(1) or of(*args))
    arms = {"attention": {"attention": "dot"}, "none": {"attention": "none"}}
    settings = settings_of(tmp_path, CompareSeq2SeqConfig, arms=arms, seeds=2)
    result = compare_seq2seq.compare_seq2seq(settings, Accelerator(cpu=True))
    found = result["sets"][""]
    assert set(found["arms"]) == set(arms) and len(result["verdicts"]) == 1
    assert found["arms"]["none"]["parameters"] < found["arms"]["attention"]["parameters"]
    assert all(arm["tokens_per_second"]["n"] == 2 for arm in found["arms"].values())
    assert result["verdicts"][0].startswith("attention beside none: exact match ")
    rows = read_results(tmp_path / "run").rows
    assert all(sum(group["pairs"] for group in row.by_length) == row.test_examples == 5 for row in rows)
    assert len(told) == 1, "tokenised again for another arm or seed"
    rows = pd.DataFrame([vars(row) for row in rows])
    assert rows["seed"].tolist() == [0, 1, 0, 1] and set(rows["reference"]) == {"none", ""}


def test_answers_are_drawn_by_a_seed(tmp_path):
    """The same seed draws the same, another another; the likeliest alone are the greedy ones."""
    settings = settings_of(tmp_path)
    finetune_seq2seq.finetune_seq2seq(settings, Accelerator(cpu=True))
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run/seed-0/model").eval()
    tokenizer, accelerator = load_tokenizer(str(tmp_path / "run/seed-0/model")), Accelerator(cpu=True)
    texts, ids = ["red cat", "wet sea", "old ant"] * 3, TokenIds.of(tokenizer, "it")
    pairs = PairBatches(TextPairs(texts, [""] * 9, [""] * 9), tokenizer, tokenizer, (ids, ids), (16, 16), 8, 0)

    def ask(**options) -> list[str]:
        decoding = DecodingConfig(max_new_tokens=12, **options)
        return answers(model, pairs, tokenizer, decoding, accelerator, exact(accelerator.device), 4)

    before = torch.random.get_rng_state()
    drawn = ask(temperature=1.0)
    assert drawn == ask(temperature=1.0) != ask(temperature=1.0, seed=1) and len(set(drawn)) > 3
    assert ask(temperature=1.0, top_p=1e-6) == ask(temperature=1e-4) == ask()
    assert torch.equal(before, torch.random.get_rng_state())
    assert ask(num_beams=2 * len(tokenizer)) == ask(num_beams=2 * len(tokenizer))  # wider than the vocabulary


@pytest.mark.parametrize(("options", "words"), [
    ({"num_beams": 0}, "decoding.num_beams is 0; it must be at least 1"),
    ({"max_new_tokens": 0}, "max_new_tokens is 0"), ({"top_p": 0.0}, "top_p is 0.0"),
    ({"length_penalty": float("nan")}, "length_penalty is nan"),
    ({"temperature": 1.0, "num_beams": 4}, "beams look for the likeliest answer, a temperature draws one")])
def test_decoding_that_makes_no_sense_is_refused(tmp_path, options, words):
    training = Seq2SeqTrainingConfig(max_steps=2, max_minutes=None, decoding=DecodingConfig(**options))
    with pytest.raises(UserError, match=words):
        finetune_seq2seq.finetune_seq2seq(settings_of(tmp_path, training=training), Accelerator(cpu=True))


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    arms = {"attention": {}, "none": {"attention": "none", "training": {"learning_rate": 0.01}}}
    settings = settings_of(tmp_path, CompareSeq2SeqConfig, arms=arms, dry_run=True)
    assert compare_seq2seq.compare_seq2seq(settings, Accelerator(cpu=True)) is None
    assert "none, 3 fits, each of them" in capsys.readouterr().out and not (tmp_path / "run").exists()


def test_built_in_sets_have_tokenizers_of_their_own(tmp_path, monkeypatch):
    """Dates in words and digits, letters as letters; arms may have training of their own."""
    monkeypatch.setattr(pair_files, "BUILT_IN", {name: lambda count, split, make=make: make(count // 100, split)
                                                 for name, make in pair_files.BUILT_IN.items()})
    monkeypatch.setitem(seq2seq.TOKENIZERS, "dates", "characters")  # so few give no vocabulary
    arms = {"attention": {"training": {"max_steps": 2}}, "none": {"attention": "none"}}
    settings = settings_of(tmp_path, CompareSeq2SeqConfig, arms=arms, seeds=1, data=ComparedPairsSection(),
                           tokenizer="")
    result = compare_seq2seq.compare_seq2seq(settings, Accelerator(cpu=True))
    assert list(result["sets"]) == ["dates", "reversal"] and result["metric"] == "exact_match"
    rows = read_results(tmp_path / "run").rows
    assert [(row.set, row.arm) for row in rows] == [(name, arm) for name in ("dates", "reversal") for arm in arms]
    assert not any(row.reference for row in rows), "what trains otherwise is no reference"
    assert len(small.records(tmp_path / "run/dates/attention/seed-0")) < len(
        small.records(tmp_path / "run/dates/none/seed-0"))
    tokenizers = [set(load_tokenizer(str(tmp_path / f"run/{name}/tokenizer-0")).get_vocab()) for name in result["sets"]]
    assert "7" in tokenizers[0] and "7" not in tokenizers[1]


def test_few_pairs_get_as_many_tokens_as_they_give(tmp_path, capsys):
    """Where nobody chose a tokenizer; one that was named is as large as it says, or refused."""
    settings = settings_of(tmp_path, tokenizer="", dry_run=True)
    finetune_seq2seq.finetune_seq2seq(settings, Accelerator(cpu=True))
    given = re.search(r"the pairs give (\d+) tokens, fewer than tokenizers/bpe-8k.yaml has", capsys.readouterr().out)
    assert given and 30 < int(given[1]) < 300
    chosen = settings_of(tmp_path, tokenizer="tokenizers/bpe-8k.yaml", dry_run=True)
    with pytest.raises(UserError, match=f"vocab_size is 8192, but the corpus gives only {given[1]} entries"):
        finetune_seq2seq.finetune_seq2seq(chosen, Accelerator(cpu=True))


def test_bert_and_gpt_are_joined_beside_random_weights(tmp_path, checkpoints):
    model = Seq2SeqModelSection("bert-gpt", encoder=checkpoints["bert"], decoder=checkpoints["gpt"])
    arms = {"pretrained": {"pretrained": True}, "random": {"pretrained": False}}
    settings = settings_of(tmp_path, CompareSeq2SeqConfig, arms=arms, seeds=1, model=model)
    for key, value, words in (("max_source_length", 65, "model.encoder.*reads 64 tokens at most.*Lower data.max_sou"),
                              ("max_new_tokens", 65, "model.decoder.*writes 64 tokens at most.*Lower|lower training")):
        section = settings.data if key == "max_source_length" else settings.training.decoding
        kept = getattr(section, key)
        setattr(section, key, value)
        with pytest.raises(UserError, match=words):
            training_of(arms_of(settings, arms)["random"], seq2seq.Tokenised(
                settings, load_pairs(settings.data), Run(tmp_path / "none"), Accelerator(cpu=True)), 0)
        setattr(section, key, kept)
    result = compare_seq2seq.compare_seq2seq(settings, Accelerator(cpu=True))
    assert [row.reference for row in read_results(tmp_path / "run").rows] == ["random", ""]
    assert result["verdicts"][0].startswith("pretrained beside random: ")
    rows = read_json(tmp_path / "run/pretrained/seed-0/predictions.json", list)
    assert toolkit.translate(tmp_path / "run/pretrained/seed-0", [row["source"] for row in rows]) == [
        row["prediction"] for row in rows]


def test_a_loss_that_is_no_number_ends_the_run_in_a_line(tmp_path, monkeypatch):
    learn = Seq2Seq.losses
    monkeypatch.setattr(Seq2Seq, "losses", lambda self, *args: {
        name: loss * float("nan") for name, loss in learn(self, *args).items()})
    with pytest.raises(Diverged, match="gru, seed 0: the loss or gradient of step 0 is no finite number"):
        finetune_seq2seq.finetune_seq2seq(settings_of(tmp_path), Accelerator(cpu=True))


def test_targets_longer_than_training_has_are_scored(tmp_path):
    """Of validation and test they stay; a Transformer has places for them."""
    file = tmp_path / "long.tsv"
    file.write_text("source\ttarget\n" + "red cat\t" + "tac der " * 6 + "\n")
    settings = settings_of(tmp_path, model=Seq2SeqModelSection("transformer-micro"))
    settings.data.test = [str(file)]
    result = finetune_seq2seq.finetune_seq2seq(settings, Accelerator(cpu=True))
    assert result["test_examples"] == 1 and result["loss"]["mean"] > 0


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match=r"model.encoder is empty; with model.architecture bert-gpt"):
        finetune_seq2seq.finetune_seq2seq(settings_of(tmp_path, model=Seq2SeqModelSection("bert-gpt")),
                                          Accelerator(cpu=True))
