"""The fine-tuning recipes, nano GPT and what the demo adds, on models and data small enough for seconds."""

import json
import math

import finetune_series
import finetune_text
import nano_gpt
import numpy as np
import predict
import pytest
import small
import torch
from checkpoints import QUICK
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from toolkit import config
from toolkit.baselines.classical import logistic_on_values, majority, tfidf_logistic
from toolkit.baselines.compressors import compressor_bits_per_byte, primed_xz_bits_per_byte
from toolkit.data.series.splits import SeriesDataSection, load_splits
from toolkit.data.series.tables import SeriesTable
from toolkit.data.stores.sorting import SortingBatches, all_inputs, held_out, with_answers
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText, split_off
from toolkit.data.text.labelled import TextDataSection, read_table
from toolkit.errors import UserError
from toolkit.experiments.fine_tuning import arms_table
from toolkit.inference.generation import continue_text, fill_mask
from toolkit.metrics.intervals import paired_difference
from toolkit.models.load import load_checkpoint_tokenizer
from toolkit.models.presets import count_parameters
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.classifier import text_classifier
from toolkit.tasks.classification import FineTuningConfig


@pytest.fixture(scope="module")
def tables(texts, tmp_path_factory):
    """Two classes told apart by one word."""
    folder = tmp_path_factory.mktemp("tables")
    random = np.random.default_rng(0)
    for name, rows in (("train", 60), ("test", 31)):
        lines = ["text\tlabel"]
        for row in range(rows):
            words = random.choice(["river", "garden", "window", "letter"], 6).tolist() + [["winter", "summer"][row % 2]]
            lines.append(" ".join(words) + "\t" + ["cold", "warm"][row % 2])
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def text_settings(checkpoints, tables, output, **data):
    return finetune_text.FinetuneTextConfig(
        output_dir=str(output), models=checkpoints, seeds=2, training=FineTuningConfig(**QUICK),
        data=TextDataSection(train=str(tables / "train.tsv"), test=str(tables / "test.tsv"),
                                           max_length=32, **data))


def test_finetune_text_gives_every_arm_on_every_seed(checkpoints, tables, tmp_path, accelerator):
    settings = text_settings(checkpoints, tables, tmp_path / "run", shots=10)
    result = finetune_text.finetune_text(settings, accelerator)
    assert json.loads((tmp_path / "run/result.json").read_text()) == result
    for model in ("bert", "gpt"):
        for arm in ("pretrained", "random"):
            entry = result[model][arm]
            assert len(entry["values"]) == 2 and math.isclose(entry["mean"], np.mean(entry["values"]))
            of_seed = json.loads((tmp_path / f"run/{model}-{arm}/seed-1/result.json").read_text())
            right = np.mean(np.asarray(of_seed["predictions"]) == np.asarray(result["references"]))
            assert math.isclose(of_seed["accuracy"], right) and math.isclose(entry["values"][1], right)
        gain = paired_difference([100 * value for value in result[model]["pretrained"]["values"]],
                                 [100 * value for value in result[model]["random"]["values"]])
        assert math.isclose(result[model]["gain_points"]["mean"], gain.mean)
    assert result["tfidf"]["mean"] == 1.0  # one word tells the classes apart
    assert math.isclose(result["majority"]["mean"], 16 / 31)
    table = arms_table(result, ["bert", "gpt"])
    assert "tfidf" in table and "100.0" in table and "pretraining" in table
    # The first seed's pretrained model stays and works on its own; the others were for the comparison alone.
    kept = tmp_path / "run/bert-pretrained/seed-0/model"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(kept), AutoTokenizer.from_pretrained(kept)
    assert model.config.id2label == {0: "cold", 1: "warm"} and tokenizer.is_fast
    assert not (tmp_path / "run/bert-random/seed-0/model").exists()
    # Finished: not trained again.
    assert finetune_text.finetune_text(settings, accelerator) == result


def test_a_finished_arm_is_not_trained_again(checkpoints, tables, tmp_path, accelerator):
    settings = text_settings({"bert": checkpoints["bert"]}, tables, tmp_path / "run")
    finetune_text.finetune_text(settings, accelerator)
    (tmp_path / "run/result.json").unlink()
    arm = tmp_path / "run/bert-pretrained/seed-0/result.json"
    planted = json.loads(arm.read_text()) | {"accuracy": 0.123}
    arm.write_text(json.dumps(planted))
    assert finetune_text.finetune_text(settings, accelerator)["bert"]["pretrained"]["values"][0] == 0.123


def test_the_same_seed_gives_the_same_result(checkpoints, tables, tmp_path, accelerator):
    results = [finetune_text.finetune_text(text_settings({"gpt": checkpoints["gpt"]}, tables, tmp_path / name),
                                           accelerator)["gpt"] for name in ("one", "two")]
    assert results[0]["pretrained"]["values"] == results[1]["pretrained"]["values"]
    assert results[0]["random"]["values"] == results[1]["random"]["values"]


def test_pretrained_starts_from_the_checkpoint_and_random_does_not(checkpoints, wordpiece):
    source = BertForPreTraining.from_pretrained(checkpoints["bert"])
    pretrained = text_classifier(checkpoints["bert"], ["a", "b"], wordpiece, pretrained=True)
    fresh = text_classifier(checkpoints["bert"], ["a", "b"], wordpiece, pretrained=False)
    for name, weight in source.bert.named_parameters():
        if "pooler" not in name:
            assert torch.equal(dict(pretrained.backbone.named_parameters())[name], weight)
    word = "embeddings.word_embeddings.weight"
    assert not torch.equal(dict(fresh.backbone.named_parameters())[word], dict(source.bert.named_parameters())[word])
    transformers_own = text_classifier(checkpoints["bert"], ["a", "b"], wordpiece, pretrained=True, pooling="cls")
    assert type(transformers_own) is BertForSequenceClassification
    for name, weight in source.bert.named_parameters():
        assert torch.equal(dict(transformers_own.bert.named_parameters())[name], weight)


def test_gpt_classifies_padded_rows_as_it_does_single_ones(checkpoints, tables):
    tokenizer = load_checkpoint_tokenizer(checkpoints["gpt"], 32)
    model = text_classifier(checkpoints["gpt"], ["cold", "warm"], tokenizer, True).eval()
    texts = ["river", "a letter from the garden in winter", "the window"]
    data = LabelledText(texts, np.zeros(3, int), ("cold", "warm"))
    batches = TextBatches(data, tokenizer, 32, 3, 0)
    together = batches.rows(np.arange(3))
    together.pop("labels")
    with torch.inference_mode():
        logits = model(**{key: torch.from_numpy(value) for key, value in together.items()}).logits
        for row in range(3):
            alone = batches.rows(np.asarray([row]))
            alone.pop("labels")
            single = model(**{key: torch.from_numpy(value) for key, value in alone.items()}).logits[0]
            torch.testing.assert_close(logits[row], single, rtol=1e-4, atol=1e-5)


def test_wrong_inputs_are_named(checkpoints, tables, tmp_path, accelerator, wordpiece):
    with pytest.raises(UserError, match="no checkpoint here"):
        load_checkpoint_tokenizer(str(tmp_path / "none"), 32)
    with pytest.raises(UserError, match=r"max_length is 65, but the model has 64 positions"):
        load_checkpoint_tokenizer(checkpoints["bert"], 65)
    model = BertForPreTraining(BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                          intermediate_size=64, max_position_embeddings=64))
    model.save_pretrained(tmp_path / "misfit")
    wordpiece.save_pretrained(tmp_path / "misfit")
    with pytest.raises(UserError, match="do not belong together"):
        load_checkpoint_tokenizer(str(tmp_path / "misfit"), 32)
    settings = text_settings(checkpoints, tables, tmp_path / "run", shots=1000)
    with pytest.raises(UserError, match=r"train.tsv has \d+ examples of class 'cold', fewer than data.shots = 1000"):
        finetune_text.finetune_text(settings, accelerator)
    settings = text_settings(checkpoints, tables, tmp_path / "run2", label_column="lable")
    with pytest.raises(UserError, match=r"train.tsv: has no column 'lable'.*Did you mean 'label'"):
        finetune_text.finetune_text(settings, accelerator)


def test_validation_is_cut_from_train_class_by_class(tables):
    train = read_table(tables / "train.tsv")
    kept, held = split_off(train, 0.1)
    assert len(kept) + len(held) == len(train) and np.bincount(held.labels).tolist() == [3, 3]
    assert not set(map(id, kept.texts)) & set(map(id, held.texts))


def test_finetune_series_gives_every_arm(checkpoints, tmp_path, accelerator):
    settings = finetune_series.FinetuneSeriesConfig(
        output_dir=str(tmp_path / "run"), models=checkpoints, seeds=2, training=FineTuningConfig(**QUICK),
        data=SeriesDataSection(train_per_class=8, test_per_class=20))
    result = finetune_series.finetune_series(settings, accelerator)
    assert result["test_examples"] == 60 and math.isclose(result["majority"]["mean"], 1 / 3)
    assert result["logistic"]["mean"] > 0.5
    assert {len(result[model][arm]["values"]) for model in ("bert", "gpt") for arm in ("pretrained", "random")} == {2}
    assert (tmp_path / "run/bert-pretrained/seed-0/model/model.safetensors").exists()


def test_finetune_series_reads_unequal_series_with_gaps(checkpoints, tmp_path, accelerator, capsys):
    random = np.random.default_rng(0)
    for name, size in (("train", 20), ("test", 12)):
        rows = ["person,second,x,y,state"]
        for person in range(size):
            state = ["rest", "walk"][person % 2] if person else "fall"  # the only one of its class
            for t in range(random.integers(20, 40)):
                x, y = random.normal() + 3 * (state == "walk") * math.sin(t), random.normal()
                rows.append(f"{person},{t / 10},{x:.3f},{'' if t % 7 == 3 else round(y, 3)},{state}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    data = dict(train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"), series_column="person",
                time_column="second", label_column="state", sampling_rate=10)
    settings = finetune_series.FinetuneSeriesConfig(
        output_dir=str(tmp_path / "run"), models={"bert": checkpoints["bert"]}, seeds=1, patch_length=8,
        training=FineTuningConfig(**QUICK), data=SeriesDataSection(missing="mask", **data),
        baselines=["logistic", "dtw"])
    result = finetune_series.finetune_series(settings, accelerator)
    assert result["label_names"] == ["fall", "rest", "walk"] and result["test_examples"] == 12
    assert len(result["dtw"]["values"]) == len(result["logistic"]["values"]) == len(result["majority"]["values"]) == 1
    model = tmp_path / "run/bert-pretrained/seed-0/model"
    assert AutoConfig.from_pretrained(model).sampling_rate == 10
    answers = predict.predict(predict.PredictConfig(str(model), data["test"], data=SeriesTable(
        series_column="person", time_column="second", label_column="state"), sampling_rate=10))
    measured = np.load(model.parent / "outputs.npz")["test"]
    assert np.allclose(answers[["p(fall)", "p(rest)", "p(walk)"]], measured, atol=2e-2), "predict.py says the same"
    told = capsys.readouterr().out
    assert "values are missing" in told and "padded on the right" in told
    assert "1 classes of one example keep it in training: fall" in told
    settings.data.missing, settings.output_dir = "refuse", str(tmp_path / "other")
    with pytest.raises(UserError, match="train.csv, line 5, column 'y': .*set data.missing to mask"):
        finetune_series.finetune_series(settings, accelerator)
    settings.data.missing = "mask"
    for length, message in ((0, "patch_length is 0; give at least 1"), (100, "shorter than one patch of 100 values")):
        settings.patch_length, settings.dry_run = length, True
        with pytest.raises(UserError, match=message):
            finetune_series.finetune_series(settings, accelerator)


def test_series_splits_share_no_series():
    train, validation, test = load_splits(SeriesDataSection(test_per_class=30), seed=3)
    rows = [{series.tobytes() for series in part.values} for part in (train, validation, test)]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])
    again = load_splits(SeriesDataSection(test_per_class=30), seed=4)[0]
    assert not np.array_equal(train.values, again.values)


def test_sorting_batches_hold_a_quarter_back():
    inputs = all_inputs()
    unseen = held_out(inputs)
    assert len(inputs) == 729 and 0.15 < unseen.mean() < 0.35
    batch = SortingBatches(64, 0).batch(5, range(64))
    assert batch["input_ids"].shape == (64, 11) == batch["labels"].shape
    seen = {tuple(row) for step in range(40)
            for row in SortingBatches(64, 0).batch(step, range(64))["input_ids"][:, :6]}
    assert not seen & {tuple(row) for row in inputs[unseen]} and len(seen) == (~unseen).sum()
    example = with_answers(np.asarray([[2, 0, 1, 1, 2, 0]]))
    assert example["input_ids"][0].tolist() == [2, 0, 1, 1, 2, 0, 0, 0, 1, 1, 2]
    assert example["labels"][0].tolist() == [-100] * 5 + [0, 0, 1, 1, 2, 2]


@pytest.mark.slow
def test_nano_gpt_learns_to_sort_every_input(tmp_path, accelerator):
    settings = nano_gpt.NanoGptConfig(output_dir=str(tmp_path / "run"))
    result = nano_gpt.nano_gpt(settings, accelerator)
    assert result["parameters"] == 85_584 == count_parameters("gpt-nano")
    assert result["exact"] == result["inputs"] == 729 and result["held_out_exact"] == result["held_out"] > 100


def test_baselines():
    train = LabelledText(["red apple", "red cherry", "blue sea", "blue sky"], np.asarray([0, 0, 1, 1]), ("r", "b"))
    test = LabelledText(["a red sea", "blue"], np.asarray([0, 1]), ("r", "b"))
    assert tfidf_logistic(train, test)[1] == 1
    assert majority(np.asarray([1, 1, 0]), np.asarray([1, 0, 0, 0])) == 0.25
    values = np.random.default_rng(0).normal(size=(60, 1, 5)).astype(np.float32)
    labels = (values[:, 0, 2] > 0).astype(int)
    assert (logistic_on_values(values[:40], labels[:40], values[40:]) == labels[40:]).mean() > 0.8


def test_compressors_know_what_they_have_read():
    text = np.random.default_rng(0).integers(97, 123, 20_000).astype(np.uint8).tobytes()
    alone = compressor_bits_per_byte(text)
    assert 4.6 < alone["xz"] < 5.5 and 4.6 < alone["gzip"] < 5.5  # log2(26) = 4.70
    assert primed_xz_bits_per_byte(text, text) < 0.1


def test_generation_and_fill_mask(checkpoints):
    answers = fill_mask(checkpoints["bert"], "the old [MASK] house", top_k=3)
    assert len(answers) == 3 and answers[0][1] >= answers[2][1] > 0
    sample = continue_text(checkpoints["gpt"], "The river", max_new_tokens=5)
    assert sample.startswith("The river") and sample == continue_text(checkpoints["gpt"], "The river", max_new_tokens=5)


def test_every_config_that_ships_is_valid():
    kinds = {"bert": "pretrain_bert.PretrainBertConfig", "gpt": "pretrain_gpt.PretrainGptConfig",
             "text": "finetune_text.FinetuneTextConfig", "compare": "compare_text.CompareTextConfig",
             "authorship": "finetune_text.FinetuneTextConfig",
             "transfer": "transfer.TransferConfig", "word": "word_vectors.WordVectorsConfig",
             "series": "finetune_series.FinetuneSeriesConfig", "gunpoint": "finetune_series.FinetuneSeriesConfig",
             "ucr": "compare_series.CompareSeriesConfig",
             "forda": "forda_lab.FordaLabConfig",
             "forecast": "forecast.ForecastRecipeConfig", "etth1": "forecast.ForecastRecipeConfig",
             "shakespeare": "shakespeare_char.ShakespeareCharConfig", "sweep": "sweep.SweepConfig",
             "tokenizer": "train_tokenizer.TrainTokenizerConfig",
             "multi30k": "finetune_seq2seq.FinetuneSeq2SeqConfig",
             **dict.fromkeys(("compare-seq2seq", "compare-multi30k", "compare-fra-eng", "compare-bert-gpt"),
                             "compare_seq2seq.CompareSeq2SeqConfig"),
             "evaluate": "evaluate_tokenizers.EvaluateTokenizersConfig"}
    files = sorted((small.ROOT / "recipes/configs").rglob("*.yaml"))
    assert len(files) >= 8
    for file in files:
        module, name = (kinds.get(file.stem) or kinds[file.stem.split("-")[0]]).split(".")
        config.from_dict(getattr(__import__(module), name), config.read_yaml(file), str(file))
