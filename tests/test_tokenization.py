"""Every spec in tokenizers/ trains, loads with plain transformers, and loses nothing it promises to keep."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from toolkit.errors import UserError
from toolkit.tokenization import (
    fingerprint,
    load_tokenizer,
    ordinary_ids,
    prepare_tokenizer,
    read_spec,
    texts_in_paragraphs,
    token_byte_lengths,
    train_tokenizer,
)

ROOT = Path(__file__).resolve().parents[1]
SPECS = sorted(path.stem for path in (ROOT / "tokenizers").glob("*.yaml"))
SPECIAL = {
    "wordpiece": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                  "mask_token": "[MASK]"},
    "byte-level-bpe": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "character": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"},
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=200)


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_trains_and_loads_as_a_fast_tokenizer(train_spec, name):
    spec = read_spec(ROOT / f"tokenizers/{name}.yaml")
    directory = train_spec(name).name_or_path
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.is_fast
    assert dict(tokenizer.special_tokens_map) == SPECIAL[spec.algorithm]
    assert sorted(tokenizer.all_special_ids) == list(range(len(set(SPECIAL[spec.algorithm].values()))))
    assert tokenizer.model_max_length == spec.model_max_length
    assert len(tokenizer) <= spec.vocab_size
    assert {"token_type_ids"} & set(tokenizer.model_input_names) == (
        {"token_type_ids"} if spec.algorithm == "wordpiece" else set())
    assert set(ordinary_ids(tokenizer)) == set(range(len(tokenizer))) - set(tokenizer.all_special_ids)
    text = "He was not at the window."
    assert "".join(tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]).split()).lower() == (
        "".join(text.split()).lower())


def test_the_directory_loads_where_this_package_is_absent(train_spec):
    """In a process of its own, far from the repository: transformers alone must know what to do."""
    code = ("import sys; from transformers import AutoTokenizer; t = AutoTokenizer.from_pretrained(sys.argv[1]); "
            "assert 'toolkit' not in sys.modules; print(t.is_fast, t('the man')['input_ids'])")
    directory = train_spec("wordpiece-8k").name_or_path
    done = subprocess.run([sys.executable, "-c", code, directory], cwd="/", text=True, capture_output=True,
                          timeout=120, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"True {load_tokenizer(directory)('the man')['input_ids']}"


def test_the_data_folder_does_not_shadow_the_library(repository):
    """`tokenizers/` in the checkout and the library of that name: from the root, the library must win."""
    assert not list((repository / "tokenizers").rglob("*.py"))
    code = "import tokenizers; tokenizers.Tokenizer; print(tokenizers.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, text=True, capture_output=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert "site-packages" in done.stdout


# --- WordPiece -----------------------------------------------------------------------------------------------------


def test_wordpiece_pairs_follow_berts_template(wordpiece):
    a, b = (wordpiece(text, add_special_tokens=False)["input_ids"] for text in ("the old man", "a river"))
    assert a
    assert b
    cls, sep = wordpiece.cls_token_id, wordpiece.sep_token_id
    single, pair = wordpiece("the old man"), wordpiece("the old man", "a river")
    assert single["input_ids"] == [cls, *a, sep]
    assert single["token_type_ids"] == [0] * (len(a) + 2)
    assert pair["input_ids"] == [cls, *a, sep, *b, sep]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert pair["attention_mask"] == [1] * (len(a) + len(b) + 3)
    batch = wordpiece(["the", "the old man"], padding=True)
    assert batch["input_ids"][0][3:] == [wordpiece.pad_token_id] * (len(a) - 1)
    assert wordpiece("the " * 1000, truncation=True)["input_ids"][-1] == sep
    assert len(wordpiece("the " * 1000, truncation=True)["input_ids"]) == 512


def test_wordpiece_is_uncased_and_knows_its_training_words(wordpiece, texts):
    assert wordpiece.tokenize("The RIVER") == wordpiece.tokenize("the river")
    words = set(" ".join(texts).lower().replace(".", " ").replace("?", " ").replace("!", " ").split())
    assert len(words) > 50
    assert wordpiece.unk_token_id not in wordpiece(" ".join(words))["input_ids"]


# --- what GPT reads keeps everything ------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_byte_level_bpe_round_trip_is_exact(byte_level_bpe, text):
    ids = byte_level_bpe(text)["input_ids"]
    assert byte_level_bpe.decode(ids) == text
    assert token_byte_lengths(byte_level_bpe)[ids].sum() == len(text.encode())


def test_round_trip_of_training_text_and_its_bytes(byte_level_bpe, characters, texts):
    for tokenizer in (byte_level_bpe, characters):
        lengths = token_byte_lengths(tokenizer)
        assert lengths.shape == (len(tokenizer),)
        assert not lengths[tokenizer.all_special_ids].any()
        assert (lengths[ordinary_ids(tokenizer)] > 0).all()
        for text in texts:
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert lengths[ids].sum() == len(text.encode())


def test_characters_are_one_token_each_and_unknown_ones_are_marked(characters):
    assert characters("The man.")["input_ids"] == [characters.convert_tokens_to_ids(char) for char in "The man."]
    assert characters("a☃b")["input_ids"][1] == characters.unk_token_id


def test_character_lengths_are_utf8_bytes(tmp_path):
    text = "aéß語🙂\n"
    tokenizer = train_tokenizer(read_spec(ROOT / "tokenizers/characters.yaml"), [text], progress=False)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert token_byte_lengths(tokenizer)[ids].tolist() == [1, 2, 2, 3, 4, 1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=30), max_size=4))
def test_paragraphs_are_pieces_of_the_text_and_lose_nothing_a_tokenizer_must_know(texts):
    assert "".join(texts_in_paragraphs(texts)) == "".join(texts)


# --- training once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_training_again_gives_the_same_bytes(train_spec, texts, tmp_path, name):
    first = Path(train_spec(name).name_or_path)
    again = prepare_tokenizer(str(ROOT / f"tokenizers/{name}.yaml"), texts_in_paragraphs(texts), tmp_path / name,
                              progress=False)
    assert (tmp_path / name / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert fingerprint(again) == fingerprint(load_tokenizer(str(first)))
    other = train_tokenizer(read_spec(ROOT / f"tokenizers/{name}.yaml"), ["other Text, 12"] * 3, progress=False)
    assert fingerprint(other) != fingerprint(again)


def test_the_fingerprint_is_of_the_tokenizer_not_of_how_it_was_called_last(train_spec):
    tokenizer = load_tokenizer(train_spec("wordpiece-8k").name_or_path)
    before = fingerprint(tokenizer)
    tokenizer(["the man", "a"], truncation=True, max_length=3, padding="max_length")
    assert fingerprint(tokenizer) == before


def test_a_trained_directory_is_kept_and_another_spec_under_it_is_refused(texts, tmp_path):
    spec = tmp_path / "mine.yaml"
    spec.write_text("algorithm: byte-level-bpe\nvocab_size: 300\n")
    made = prepare_tokenizer(str(spec), texts, tmp_path / "made", progress=False)
    assert len(made) == 300

    def must_not_be_read():
        raise AssertionError("trained again")
        yield

    again = prepare_tokenizer(str(spec), must_not_be_read(), tmp_path / "made", progress=False)
    assert fingerprint(again) == fingerprint(made)
    assert len(prepare_tokenizer(str(tmp_path / "made"), must_not_be_read(), tmp_path / "unused")) == 300
    assert not (tmp_path / "unused").exists()
    spec.write_text("algorithm: byte-level-bpe\nvocab_size: 301\n")
    with pytest.raises(UserError, match=r"made: was trained from another spec than .*mine\.yaml is now.*delete it"):
        prepare_tokenizer(str(spec), texts, tmp_path / "made", progress=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [("algorithm: wordpeice\nvocab_size: 100", "'algorithm' is 'wordpeice'. Did you mean 'wordpiece'?"),
     ("algorithm: sentencepiece-unigram\nvocab_size: 100", "'algorithm' is 'sentencepiece-unigram'."),
     ("algorithm: wordpiece", "'vocab_size' is missing"),
     ("algorithm: wordpiece\nvocab_size: lots", "'vocab_size' should be int"),
     ("algorithm: wordpiece\nvocabsize: 100", "unknown key 'vocabsize'. Did you mean 'vocab_size'?"),
     ("algorithm: character\nvocab_size: 100\nlowercase: true", "'lowercase' is for wordpiece")],
)
def test_a_wrong_spec_is_refused_by_file_and_key(tmp_path, text, message):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        prepare_tokenizer(str(tmp_path / "spec.yaml"), [], tmp_path / "made")
    assert str(caught.value).startswith(f"{tmp_path / 'spec.yaml'}: ")
    assert message in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_what_holds_no_tokenizer_is_refused_by_name(tmp_path, train_spec):
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    for name in (str(tmp_path / "nowhere"), "./nowhere", "nowhere"):
        with pytest.raises(UserError, match=r"nowhere: no such tokenizer directory or spec\..*tokenizers/"):
            load_tokenizer(name)
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such"):
        prepare_tokenizer(str(tmp_path / "nowhere.yaml"), [], tmp_path / "made")
    shutil.copytree(train_spec("characters").name_or_path, tmp_path / "torn")
    (tmp_path / "torn/tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="torn: no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path / "torn"))


def test_ordinary_ids_leave_a_gap_for_specials_anywhere(wordpiece):
    ids = ordinary_ids(wordpiece)
    assert len(ids) == len(wordpiece) - 5
    assert not np.isin(ids, wordpiece.all_special_ids).any()
