"""The recipes about data: tokenizers trained and compared, batches shown, the bench."""

import json
from pathlib import Path

import numpy as np
import pytest
import show_batch
import small
from small import run_recipe, write_config
from transformers import BertModel

from toolkit import config
from toolkit.data.batches import IGNORED
from toolkit.data.series.dataset import SeriesBatches
from toolkit.data.series.splits import SeriesDataSection, load_splits
from toolkit.data.stores.bert_batches import BertBatches, MaskingConfig
from toolkit.data.stores.prepare import prepare
from toolkit.data.text.corpus import CorpusConfig
from toolkit.errors import UserError
from toolkit.tokenization.load import load_tokenizer
from toolkit.tokenization.measure import evaluate_tokenizer, sample_paragraphs

CORPUS = {"validation_share": 0.2, "min_characters": 20}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("recipes-data")
    small.write_corpus(root / "corpus")
    for kind in ("wordpiece", "bytes"):
        small.write_spec(root / "specs", kind)
    (root / "specs/plain-bytes.yaml").write_text("algorithm: byte\n")
    return root


# --- measures ---------------------------------------------------------------------------------------------------------


def test_measures_are_what_counting_by_hand_gives(train_spec):
    tokenizer = train_spec("characters")
    text = "the man, ☃ 12"
    found = evaluate_tokenizer(tokenizer, [text])
    assert found["bytes_per_token"] == len(text.encode()) / len(text)
    assert found["tokens_per_word"] == (3 + 3 + 2) / 3, "the, man and 12"
    assert found["whole_words"] == 0
    unknown = tokenizer(text)["input_ids"].count(tokenizer.unk_token_id)
    assert unknown >= 1
    assert found["unknown_rate"] == unknown / len(text)
    assert found["round_trip"] == 0
    ordinary = len(tokenizer) - 2
    known = {token for token in tokenizer(text)["input_ids"] if token != tokenizer.unk_token_id}
    assert found["vocabulary_used"] == pytest.approx(len(known) / ordinary)
    assert found["megabytes_per_second"] > 0


@pytest.mark.parametrize("name", ["wordpiece-8k", "byte-level-bpe-4k", "bpe-8k", "unigram-8k"])
def test_fertility_and_whole_words_agree_with_tokenising_word_by_word(train_spec, name):
    """Words after blanks, as the tokenizer sees them in a text; no marks, which would stick to some."""
    tokenizer = train_spec(name)
    words = "the man was there with a letter from his village and answered the captain".split()
    found = evaluate_tokenizer(tokenizer, [" ".join(words)])
    pieces = [tokenizer.tokenize(word if number == 0 or name.startswith("word") else f" {word}")
              for number, word in enumerate(words)]
    alone = [sum(piece not in ("Ġ", "▁") for piece in word) for word in pieces]  # a blank alone is part of no word
    assert found["tokens_per_word"] == pytest.approx(sum(alone) / len(words))
    assert found["whole_words"] == pytest.approx(np.mean([count == 1 for count in alone]))
    assert 0 < found["whole_words"] < 1


def test_round_trips_are_told_from_losses(train_spec):
    paragraphs = ["The man was there.", "the man"]
    assert evaluate_tokenizer(train_spec("bpe-8k"), paragraphs)["round_trip"] == 1
    assert evaluate_tokenizer(train_spec("wordpiece-8k"), paragraphs)["round_trip"] == 0.5, "lower case alone survives"


def test_samples_come_from_all_texts():
    texts = [f"{letter * 50}\n\n{letter * 50}" for letter in "abcd"]
    sample = sample_paragraphs(texts, 100)
    assert {paragraph[0] for paragraph in sample} == set("abcd")
    assert sum(map(len, sample)) <= 100


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_train_tokenizer_leaves_a_directory_that_loads(root):
    path = write_config(root / "tokenizer.yaml", {
        "data_dir": str(root / "tokenizer-data"), "tokenizer": str(root / "specs/bytes.yaml"),
        "corpus": {"sources": [str(root / "corpus")], **CORPUS}})
    done = run_recipe("train_tokenizer", ["--config", str(path)], root / "train-tokenizer")
    assert done.code == 0, done.err
    assert len(load_tokenizer(str(root / "tokenizer-data/bytes/tokenizer"))) == 300
    assert "300 tokens in" in done.out


def test_tokenizers_are_compared_specs_sizes_and_directories(root, train_spec):
    existing = train_spec("wordpiece-8k").name_or_path
    path = write_config(root / "evaluate.yaml", {
        "output_dir": str(root / "evaluated"), "data_dir": str(root / "evaluate-data"),
        "corpus": {"sources": [str(root / "corpus")], **CORPUS}, "second_sources": [str(small.ROOT / "README.md")],
        "tokenizers": [str(root / "specs/bytes.yaml"), str(root / "specs/plain-bytes.yaml"), existing],
        "vocab_sizes": [270, 290, 60_000], "characters": 5000})
    done = run_recipe("evaluate_tokenizers", ["--config", str(path)], root / "evaluate")
    assert done.code == 0, done.err
    assert "left out: " in done.out and "vocab_size is 60000, but the corpus gives only" in done.out
    rows = json.loads((root / "evaluated/tokenizers.json").read_text())["rows"]
    assert [(row["tokenizer"], row["vocab_size"], row["text"]) for row in rows] == [
        (name, size, text) for name, size in (("bytes", 270), ("bytes", 290), ("plain-bytes", 257), (existing, 150))
        for text in ("held-out", "second")]
    by_size = {row["vocab_size"]: row["bytes_per_token"] for row in rows if row["text"] == "held-out"}
    assert by_size[257] == 1 < by_size[270] < by_size[290]
    assert (root / "evaluated/bytes-per-token.png").stat().st_size > 5000
    assert (root / "evaluated/tokenizers.md").read_text().count("\n") == 2 + len(rows)
    assert "held-out text" in done.out
    wrong = run_recipe("evaluate_tokenizers", ["--config", str(path), "--tokenizers", "[nowhere]", "--output_dir",
                                               str(root / "wrong")], root / "evaluate")
    assert wrong.code == 2
    assert wrong.err.strip() == "error: nowhere: no such tokenizer directory or spec. The specs that ship are in " \
                                "tokenizers/*.yaml."


def pretraining(root: Path, family: str, **more) -> Path:
    return write_config(root / f"{family}.yaml", {
        "output_dir": str(root / family), "data_dir": str(root / "data"), "seed": 3,
        "model": {"preset": f"{family}-tiny"}, "training": {"batch_size": 8},
        "corpus": {"sources": [str(root / "corpus")], **CORPUS},
        "tokenizer": str(root / f"specs/{'wordpiece' if family == 'bert' else 'bytes'}.yaml"), **more})


def test_the_batch_that_is_shown_is_the_batch_that_is_trained_on(root):
    path = pretraining(root, "bert", masking={"max_seq_length": 32})
    done = run_recipe("show_batch", ["--step", "777", "--pretraining", str(path), "--rows", "3"], root / "show-bert")
    assert done.code == 0, done.err
    assert f"step 777 of {path}, 3 of 8 rows" in done.out
    data = prepare(CorpusConfig([str(root / "corpus")], **CORPUS), str(root / "specs/wordpiece.yaml"), root / "data",
                   end_documents=False, progress=False)
    batch = BertBatches(data.train, data.tokenizer, MaskingConfig(max_seq_length=32), 8, 3).batch(777, range(3))
    shown = done.out.split(" rows\n\n")[1].split("\n\n")
    assert len(shown) == 3
    for row, text in enumerate(shown):
        assert ("random B" in text) == bool(batch["next_sentence_label"][row])
        hidden = [data.tokenizer.convert_ids_to_tokens(int(label)) for label in batch["masked_labels"][row]
                  if label != IGNORED]
        brackets = [word.strip("[]=").split("←")[-1] for word in text.split() if word.startswith("[")
                    and word not in ("[CLS]", "[SEP]", "[UNK]")]
        assert sorted(brackets) == sorted(hidden)
        assert f"{len(hidden)} predicted" in text


def test_show_batch_of_a_gpt_and_its_mistakes(root):
    path = pretraining(root, "gpt", block_size=200, attention_within_documents=True)
    done = run_recipe("show_batch", ["--pretraining", str(path)], root / "show-gpt")
    assert done.code == 0, done.err
    rows = done.out.split("row ")[1:]
    assert len(rows) == 4
    for row in rows:
        count = int(row.split(" of ")[1].split()[0]) if " of " in row else 0
        assert row.count("┃") == count
        assert row.count("<|endoftext|>") - ("'<|endoftext|>'" in row) >= count - 1
    for arguments, message in ((["--step", "-1"], "step is -1; steps count from 0."),
                               (["--rows", "0"], "rows is 0; show at least 1."),
                               (["--pretraining", "gone.yaml"], "gone.yaml: no such config file")):
        wrong = run_recipe("show_batch", ["--pretraining", str(path), *arguments], root / "show-wrong")
        assert wrong.code == 2
        assert message in wrong.err
        assert "Traceback" not in wrong.err


def test_show_batch_of_series_shows_what_training_draws(tmp_path, capsys):
    """Of unequal length, with a gap: the rows of the step, what of them was observed, in how many patches."""
    for split in ("train", "test"):
        rows = [f"{number},{time},{('low', 'high')[number % 2]},{'' if (number, time) == (3, 2) else time % 5}"
                for number in range(10) for time in range(16 if number == 3 else 24)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["id,time,label,value", *rows]), encoding="utf-8")
    BertModel(small.bert_config(50)).save_pretrained(tmp_path / "bert")
    path = write_config(tmp_path / "series.yaml", {
        "output_dir": str(tmp_path / "run"), "models": {"ours": str(tmp_path / "bert")}, "patch_length": 8,
        "data": {"train": str(tmp_path / "train.csv"), "validation": str(tmp_path / "test.csv"),
                 "test": str(tmp_path / "test.csv"), "series_column": "id", "time_column": "time", "missing": "mask"},
        "training": {"batch_size": 10}})
    show_batch.main(["--pretraining", str(path), "--step", "3", "--rows", "100"])
    shown = capsys.readouterr().out
    assert f"step 3 of {path}, 10 of 10 rows" in shown
    assert "train 10, validation 10, test 10 series; classes: high, low" in shown
    assert "ours: patches of 8 values, one every 4" in shown
    assert "batch: values 10 × 1 × 24 (series × channels × values), labels 10, observed 10 × 1 × 24" in shown

    train = load_splits(config.from_dict(SeriesDataSection, config.read_yaml(path)["data"]), 0)[0]
    batch = SeriesBatches(train, 10, 0).batch(3, range(10))
    rows = shown.split("\nrow ")[1:]
    for number, text in enumerate(rows):
        seen, values = batch["observed"][number, 0], batch["values"][number, 0]
        length, share, patches = (16, 94, 4) if seen.sum() < 24 else (24, 100, 5)
        assert text.startswith(f"{number}: class {train.label_names[batch['labels'][number]]}; {length} values, "
                               f"{share} % observed; patches with values: {patches} of 5\n")
        first = " ".join(f"{value:.2f}" if there else "–" for value, there in zip(values[:8], seen[:8], strict=True))
        assert text.split("┃ ")[1].strip() == f"{first} … {length - 8} more"
    assert sum("16 values" in text for text in rows) == sum(" – " in text for text in rows) == 1


def test_show_batch_of_series_in_bins_and_of_a_config_without_batches(tmp_path, capsys):
    (tmp_path / "bins.yaml").write_text("algorithm: series-bins\ncontext_length: 20\nhorizon: 4\nvocab_size: 64\n")
    path = write_config(tmp_path / "gpt.yaml", {
        "output_dir": str(tmp_path / "gpt"), "data_dir": str(tmp_path / "data"), "block_size": 60,
        "tokenizer": str(tmp_path / "bins.yaml"), "series": {"sources": ["generator:noisy-sines:40"]},
        "attention_within_documents": True, "training": {"batch_size": 4}})
    show_batch.main(["--pretraining", str(path), "--rows", "2"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ┃ ")]
    assert sum(line.startswith("  ┃ <end>") for line in lines) >= 4
    whole = [line for line in lines if "<end>" in line and line.endswith("… 16 more")]
    assert whole and all(len(line.split()) == 2 + 8 + 3 for line in whole), "24 values, of which 8 are shown"
    path = write_config(tmp_path / "text.yaml", {"output_dir": "x", "models": {"a": "b"}, "data": {"train": "z.tsv"}})
    with pytest.raises(UserError, match=r"text\.yaml: names models to fine-tune, but nothing of series"):
        show_batch.main(["--pretraining", str(path)])


@pytest.mark.slow
def test_the_bench_reports_every_ratio(tmp_path):
    import bench_data

    small.write_corpus(tmp_path / "corpus", documents=400)
    bench_data.main(["--corpus.sources", str(tmp_path / "corpus"), "--corpus.min_characters", "20", "--tokenizer",
                     small.write_spec(tmp_path, "wordpiece"), "--output_dir", str(tmp_path / "bench"), "--copies", "3",
                     "--rounds", "1", "--characters", "100000", "--reference_tokens", "20000"])
    found = json.loads((tmp_path / "bench/bench.json").read_text())
    for key in ("store_peak_rss_mb", "store_peak_rss_mb_10x", "tokens_per_s_over_bare", "pairs_over_reference",
                "batches_over_training", "seek_seconds"):
        assert 0 < found[key] < 100_000
    assert found["pairs_over_reference"] > 5
    assert found["share_masked"] == pytest.approx([0.8, 0.8], abs=0.05)
