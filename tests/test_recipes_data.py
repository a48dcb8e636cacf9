"""The recipes about data: tokenizers trained and compared, batches shown, the bench."""

import json
from pathlib import Path

import numpy as np
import pytest
import small
from small import run_recipe, write_config

from toolkit.data.bert import IGNORED, BertBatches, MaskingConfig
from toolkit.data.corpus import CorpusConfig
from toolkit.data.prepare import prepare
from toolkit.tokenization import load_tokenizer
from toolkit.tokenizer_evaluation import evaluate_tokenizer, sample_paragraphs

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
