"""Every spec in tokenizers/ trains, loads with plain transformers, and loses nothing it promises to keep."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from toolkit.data.stores.prepare import prepare_tokenizer
from toolkit.data.text.corpus import CorpusConfig, prepare_corpus
from toolkit.errors import UserError
from toolkit.run.files import read_json
from toolkit.tokenization.load import fingerprint, load_tokenizer, ordinary_ids, plain_backend, word_joints
from toolkit.tokenization.train import PRE_TOKENIZERS, TrainingSample, read_spec, special_tokens, train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted({path.stem for path in (ROOT / "tokenizers").glob("*.yaml")} - {"series-bins"})  # test_series_bins.py
TEXT = st.text(st.characters(codec="utf-8"), max_size=200)


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_trains_and_loads_as_a_fast_tokenizer(train_spec, name):
    spec = read_spec(ROOT / f"tokenizers/{name}.yaml")
    directory = train_spec(name).name_or_path
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.is_fast
    assert dict(tokenizer.special_tokens_map) == special_tokens(spec)
    assert len(set(tokenizer.all_special_ids)) == len(set(special_tokens(spec).values()))
    assert tokenizer.model_max_length == spec.model_max_length
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


@pytest.fixture(scope="module")
def plain_bytes(train_spec):
    return train_spec("bytes")


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_byte_level_round_trips_are_exact(byte_level_bpe, plain_bytes, text):
    for tokenizer in (byte_level_bpe, plain_bytes):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert len(ids) == len(text.encode()), "a token a byte"


@pytest.fixture(scope="module")
def lossless(train_spec) -> list:
    return [train_spec(name) for name in ("bpe-8k", "unigram-8k", "characters")]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("thewas   .,?!\n\"'12"), max_size=80))
def test_what_the_alphabet_knows_comes_back_exactly(lossless, text):
    """Blanks in any number and place, line ends, punctuation: BPE, Unigram and characters add and lose nothing."""
    for tokenizer in lossless:
        known = "".join(char for char in text if tokenizer.unk_token_id not in tokenizer(char)["input_ids"])
        assert tokenizer.decode(tokenizer(known)["input_ids"]) == known


@pytest.mark.parametrize("name", ["byte-level-bpe-4k", "bpe-8k", "unigram-8k", "bytes", "characters"])
def test_round_trip_of_training_text(train_spec, texts, name):
    tokenizer = train_spec(name)
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_characters_are_one_token_each_and_unknown_ones_are_marked(characters):
    assert characters("The man.")["input_ids"] == [characters.convert_tokens_to_ids(char) for char in "The man."]
    assert characters("a☃b")["input_ids"][1] == characters.unk_token_id


# --- what a spec says ---------------------------------------------------------------------------------------------


def trained(tmp_path: Path, texts: list[str], **spec):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    train_tokenizer(read_spec(path), texts, str(path), progress=False).save_pretrained(tmp_path / "made")
    return AutoTokenizer.from_pretrained(tmp_path / "made")


SIZES = {"wordpiece": 150, "bpe": 150, "unigram": 150, "byte-level-bpe": 400, "byte": None, "character": 100}


@pytest.mark.parametrize("algorithm", PRE_TOKENIZERS)
def test_digits_specials_and_case_are_as_the_spec_says(tmp_path, texts, algorithm):
    texts = [text.replace("the", "1234 5678") for text in texts] * 2
    options = {"algorithm": algorithm, **({"vocab_size": SIZES[algorithm]} if SIZES[algorithm] else {})}
    tokenizer = trained(tmp_path, texts, **options, split_digits=True, lowercase=True, special_tokens="bert",
                        additional_special_tokens=["<|user|>"])
    pieces = tokenizer.tokenize("Was 1234<|user|>5678")
    assert pieces.count("<|user|>") == 1
    digits = [piece.lstrip("Ġ▁#") for piece in pieces if any(map(str.isdigit, piece))]
    assert digits == list("12345678")
    assert tokenizer.tokenize("HOUSE") == tokenizer.tokenize("house")
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    pair = tokenizer("was", "his")
    assert [pair["input_ids"].count(token) for token in (cls, sep)] == [1, 2]
    assert pair["token_type_ids"][-1] == 1
    assert tokenizer.mask_token_id is not None
    assert "<|user|>" in tokenizer.all_special_tokens
    plain = trained(tmp_path, texts, **options, special_tokens="gpt")
    assert plain.eos_token == plain.bos_token == "<|endoftext|>"
    assert (plain.unk_token is None) == ("byte" in algorithm)
    assert len(plain("was")["input_ids"]) == len(plain("was", add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("specials", ["bert", "gpt"])
@pytest.mark.parametrize("algorithm", PRE_TOKENIZERS)
def test_a_text_that_spells_a_special_token_does_not_become_it(tmp_path, texts, algorithm, specials):
    texts = [f"{text} [SEP] and [MASK], <|endoftext|> or [CLS]" for text in texts]  # known letters, frequent words
    options = {"algorithm": algorithm, **({"vocab_size": SIZES[algorithm]} if SIZES[algorithm] else {})}
    tokenizer = trained(tmp_path, texts, **options, special_tokens=specials)
    backend = plain_backend(tokenizer)
    backend.encode_special_tokens = True
    found = set(backend.encode(texts[0], add_special_tokens=False).ids)
    assert not found & (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})
    assert tokenizer.all_special_ids, "or there is nothing to be spelt"


def test_metaspace_alone_lets_punctuation_join_words(tmp_path, texts):
    """The default keeps marks apart; without that, "the." can be one token."""
    apart = trained(tmp_path, texts, algorithm="bpe", vocab_size=150)
    assert not [token for token in apart.get_vocab() if "." in token and len(token) > 1]
    together = trained(tmp_path, texts, algorithm="bpe", vocab_size=400, pre_tokenizer="metaspace")
    assert [token for token in together.get_vocab() if token.endswith(".") and len(token) > 3]


def test_normalizers(tmp_path, texts):
    ligature = trained(tmp_path, texts, algorithm="byte", normalizer="nfkc")
    assert ligature.decode(ligature("ﬁne")["input_ids"]) == "fine"
    composed = trained(tmp_path, texts, algorithm="byte", normalizer="nfc")
    assert composed.decode(composed("e\u0301")["input_ids"]) == "\u00e9"
    exact = trained(tmp_path, texts, algorithm="byte")
    assert exact.decode(exact("ﬁe\u0301")["input_ids"]) == "ﬁe\u0301"
    cleaned = trained(tmp_path, texts, algorithm="wordpiece", vocab_size=150, lowercase=True)
    assert cleaned.tokenize("Thé\x07 man") == cleaned.tokenize("the man")


def test_the_sample_keeps_within_its_bounds_and_does_not_depend_on_the_pass(tmp_path):
    (tmp_path / "spec.yaml").write_text("algorithm: byte\nmax_characters: 4000\nmax_characters_per_document: 100\n")
    spec = read_spec(tmp_path / "spec.yaml")
    texts = [f"{number:03} " * 50 for number in range(200)]  # 200 characters each, cut to 100
    sample = TrainingSample(texts, spec, total_characters=40_000)
    seen = list(sample)
    assert seen == list(sample)
    assert all(len(text) == 100 for text in seen)
    numbers = [int(text[:3]) for text in seen]
    assert 8 <= len(seen) <= 35, "a tenth of 200"
    assert max(numbers) > 120, "chosen from everywhere, not from the start"
    assert len(list(TrainingSample(texts, spec))) == 40, "of a corpus of unknown size, the first ones"
    assert "".join(TrainingSample(["a\n\nb\n\n\nc"], spec)) == "a\n\nb\n\n\nc"


def test_a_vocabulary_larger_than_the_corpus_can_give_is_refused_with_what_it_can(tmp_path, texts):
    for algorithm in ("wordpiece", "bpe", "byte-level-bpe", "unigram"):
        with pytest.raises(UserError, match=r"vocab_size is 50000, but the corpus gives only \d+ entries") as caught:
            trained(tmp_path, texts, algorithm=algorithm, vocab_size=50_000)
        assert "\n" not in str(caught.value)
        possible = int(re.search(r"Set vocab_size to (\d+) or less", str(caught.value))[1])
        assert len(trained(tmp_path, texts, algorithm=algorithm, vocab_size=possible)) == possible


def test_word_joints_find_the_pieces_of_words(train_spec):
    text = 'The window, "answered" 12 letters?!'
    for name in ("wordpiece-8k", "byte-level-bpe-4k", "bpe-8k", "unigram-8k", "bytes", "characters"):
        tokenizer = train_spec(name)
        first, last = word_joints(tokenizer)
        assert not first[tokenizer.all_special_ids].any()
        ids = np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"])
        joined = np.concatenate([[False], (first[ids[1:]] > 0) & (first[ids[1:]] == last[ids[:-1]])])
        words = [""]
        for token, goes_on in zip(tokenizer.convert_ids_to_tokens(ids), joined, strict=True):
            piece = token.removeprefix("##").strip("Ġ▁ ").lower()
            words = [*words[:-1], words[-1] + piece] if goes_on else [*words, piece]
        words = [word for word in words if word]
        known = [word for word in ("the", "window", "letters") if tokenizer.unk_token_id is None
                 or tokenizer.unk_token_id not in tokenizer(word)["input_ids"]]
        assert set(known) <= set(words), (name, words)
        if name != "wordpiece-8k" and "?" in words[-1]:
            assert words[-1] in ("?!", "?"), "marks join marks"


# --- training once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_training_again_in_another_process_gives_the_same_bytes(train_spec, texts, tmp_path, name):
    """Hash tables are seeded by the process: within one, a dependence on their order could hide."""
    first = Path(train_spec(name).name_or_path)
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    vocab_size = len(train_spec(name)) if name != "characters" else 1024
    code = ("import json, sys; from toolkit.tokenization.train import read_spec, train_tokenizer; "
            "spec = read_spec(sys.argv[1]); spec.vocab_size = int(sys.argv[2]); "
            "train_tokenizer(spec, json.load(open(sys.argv[3])), progress=False).save_pretrained(sys.argv[4])")
    subprocess.run([sys.executable, "-c", code, str(ROOT / f"tokenizers/{name}.yaml"), str(vocab_size),
                    str(tmp_path / "texts.json"), str(tmp_path / name)], check=True, timeout=120)
    assert (tmp_path / name / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert fingerprint(load_tokenizer(str(tmp_path / name))) == fingerprint(load_tokenizer(str(first)))


def test_the_fingerprint_is_of_the_tokenizer_not_of_how_it_was_called_last(train_spec):
    tokenizer = load_tokenizer(train_spec("wordpiece-8k").name_or_path)
    before = fingerprint(tokenizer)
    tokenizer(["the man", "a"], truncation=True, max_length=3, padding="max_length")
    assert fingerprint(tokenizer) == before


@pytest.fixture
def corpus(texts, tmp_path) -> Path:
    for number, text in enumerate(texts):
        path = tmp_path / f"library/{number:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    prepare_corpus(CorpusConfig([str(tmp_path / "library")], validation_share=0.2), tmp_path / "corpus", progress=False)
    return tmp_path / "corpus"


def test_a_trained_directory_is_kept_and_another_spec_or_corpus_under_it_is_refused(corpus, tmp_path):
    spec = tmp_path / "mine.yaml"
    spec.write_text("algorithm: byte-level-bpe\nvocab_size: 300\n")
    made = prepare_tokenizer(str(spec), corpus, tmp_path / "made", progress=False)
    assert len(made) == 300
    manifest = read_json(tmp_path / "made/manifest.json")
    assert manifest["spec"]["vocab_size"] == manifest["vocab_size"] == 300
    assert manifest["corpus"] == read_json(corpus / "manifest.json")["splits"]["train"]["sha256"]
    assert manifest["fingerprint"] == fingerprint(made)
    assert manifest["versions"]["tokenizers"] == tokenizers.__version__
    (corpus / "train.jsonl").rename(corpus / "away.jsonl")  # must not be read again
    again = prepare_tokenizer(str(spec), corpus, tmp_path / "made", progress=False)
    assert fingerprint(again) == fingerprint(made)
    assert len(prepare_tokenizer(str(tmp_path / "made"), corpus, tmp_path / "unused")) == 300
    assert not (tmp_path / "unused").exists()
    (corpus / "away.jsonl").rename(corpus / "train.jsonl")
    earlier = read_json(tmp_path / "made/manifest.json")
    for key in ("strip_accents", "max_merged_words"):  # which an earlier version's lack
        del earlier["spec"][key]
    (tmp_path / "made/manifest.json").write_text(json.dumps(earlier))
    assert len(prepare_tokenizer(str(spec), corpus, tmp_path / "made", progress=False)) == 300
    spec.write_text("algorithm: byte-level-bpe\nvocab_size: 301\n")
    with pytest.raises(UserError, match=r"made: was trained from another spec than .*mine\.yaml is now.*delete it"):
        prepare_tokenizer(str(spec), corpus, tmp_path / "made", progress=False)
    assert len(prepare_tokenizer(str(spec), corpus, tmp_path / "larger", vocab_size=310, progress=False)) == 310
    spec.write_text("algorithm: byte-level-bpe\nvocab_size: 300\n")
    facts = read_json(corpus / "manifest.json")
    facts["splits"]["train"]["sha256"] = "0" * 64
    (corpus / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"made: was trained from another corpus\. Choose another data_dir"):
        prepare_tokenizer(str(spec), corpus, tmp_path / "made", progress=False)


def test_a_tokenizer_never_sees_the_validation_text(corpus, tmp_path):
    """Characters that only validation documents have must be unknown to a tokenizer of characters."""
    validation = (corpus / "validation.jsonl").read_text(encoding="utf-8").replace("window", "w\u0131ndow")
    (corpus / "validation.jsonl").write_text(validation, encoding="utf-8")
    tokenizer = prepare_tokenizer(str(ROOT / "tokenizers/characters.yaml"), corpus, tmp_path / "made", progress=False)
    assert "\u0131" not in tokenizer.get_vocab()
    assert "w" in tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("text", "message"),
    [("algorithm: wordpeice\nvocab_size: 100", "'algorithm' is 'wordpeice'. Did you mean 'wordpiece'?"),
     ("algorithm: sentencepiece\nvocab_size: 100", "'algorithm' is 'sentencepiece'."),
     ("algorithm: wordpiece", "'vocab_size' is missing, which wordpiece needs"),
     ("algorithm: wordpiece\nvocab_size: lots", "'vocab_size' should be a whole number"),
     ("algorithm: wordpiece\nvocabsize: 100", "unknown key 'vocabsize'. Did you mean 'vocab_size'?"),
     ("algorithm: byte\nvocab_size: 300", "vocab_size is 300; byte with these special tokens needs exactly 257"),
     ("algorithm: byte-level-bpe\nvocab_size: 200", "vocab_size is 200; byte-level-bpe with these special tokens needs "
                                                    "at least 257"),
     ("algorithm: bpe\nvocab_size: 300\npre_tokenizer: bert", "pre_tokenizer is 'bert'; bpe takes metaspace")],
)
def test_a_wrong_spec_is_refused_by_file_and_key(tmp_path, text, message):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        prepare_tokenizer(str(tmp_path / "spec.yaml"), tmp_path / "corpus", tmp_path / "made")
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
        prepare_tokenizer(str(tmp_path / "nowhere.yaml"), tmp_path, tmp_path / "made")
    shutil.copytree(train_spec("characters").name_or_path, tmp_path / "torn")
    (tmp_path / "torn/tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="torn: no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path / "torn"))


def test_ordinary_ids_leave_a_gap_for_specials_anywhere(wordpiece):
    ids = ordinary_ids(wordpiece)
    assert len(ids) == len(wordpiece) - 5
    assert not np.isin(ids, wordpiece.all_special_ids).any()
