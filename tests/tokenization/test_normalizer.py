"""What carries meaning is kept: vowel marks, joiners, the blank of a mask; what falls together is told, or refused."""

import itertools
import json
import random

import numpy as np
import pytest
from transformers import AutoTokenizer

from toolkit.data.stores.prepare import prepare
from toolkit.data.text.corpus import CorpusConfig
from toolkit.data.text.examples import LabelledText, spread
from toolkit.errors import UserError
from toolkit.tokenization.load import load_tokenizer, save_tokenizer
from toolkit.tokenization.measure import check_unknown, unknown_characters
from toolkit.tokenization.normalizer import Normalizer, count_words, fallen_together
from toolkit.tokenization.train import TokenizerSpec, read_spec, train_tokenizer

HINDI = "सुख सूख सख दिन दीन कुत्ता कत्ता में मैं पानी पेनी".split()
PERSIAN = ["می\u200cخواهم", "کتاب\u200cها", "کتابها", "خانه", "شهر", "بزرگ"]
VIETNAMESE = "má mà mả mã mạ ma bàn bán bạn".split()
ENGLISH = "the red gate was mended in the morning a café".split()


def texts_of(words: list[str], seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [". ".join(" ".join(draw.choices(words, k=7)) for _ in range(12)) + "." for _ in range(60)]


def trained(tmp_path, words: list[str], told: list[str] | None = None, **spec):
    path = tmp_path / "spec.yaml"
    values = {"algorithm": "wordpiece", "vocab_size": 40, "min_frequency": 1, **spec}
    path.write_text("\n".join(f"{key}: {str(value).lower() if isinstance(value, bool) else value}"
                              for key, value in values.items()))
    return train_tokenizer(read_spec(path), texts_of(words), "spec.yaml", progress=False,
                           note=(told if told is not None else []).append)


@pytest.mark.parametrize("words", [HINDI, VIETNAMESE, PERSIAN], ids=["Hindi", "Vietnamese", "Persian"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_words_that_differ_in_marks_or_joiners_stay_apart(tmp_path, words, lowercase):
    told: list[str] = []
    tokenizer = trained(tmp_path, words, told, lowercase=lowercase, vocab_size=36)
    assert len(tokenizer) == 36
    ids = {word: tuple(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words}
    assert all(ids[one] != ids[other] for one, other in itertools.combinations(words, 2))
    assert unknown_characters(tokenizer, words).lost == 0
    assert [line.startswith("spec.yaml: accents are kept") for line in told] == ([True] if lowercase and words !=
                                                                                   PERSIAN else [])


def test_accents_go_where_the_spec_says_so_and_few_words_fall_together(tmp_path):
    told: list[str] = []
    words = [*ENGLISH, "gâte"] + ENGLISH * 20
    tokenizer = trained(tmp_path, words, told, lowercase=True)
    assert tokenizer.tokenize("Gâte café") == tokenizer.tokenize("gate cafe")
    assert len(told) == 1
    assert "words equal to others ('gâte' and 'gate')" in told[0]
    kept = trained(tmp_path, words, told, lowercase=True, strip_accents=False)
    assert kept.tokenize("Café") == kept.tokenize("café") != kept.tokenize("cafe")
    assert len(told) == 1, "nothing fell together"
    bare = trained(tmp_path, words, lowercase=False, strip_accents=True)
    assert bare.tokenize("café") == bare.tokenize("cafe")


def test_too_many_words_that_fall_together_are_refused_unless_the_spec_allows_them(tmp_path):
    with pytest.raises(UserError, match=r"^spec\.yaml: normalising makes \d\d\.\d% of the corpus' words equal to "
                                        r"others \(.*'.*' and '.*'.*\); max_merged_words is 0\.02\. Set strip_accents "
                                        r"to false, or max_merged_words to more than 0\.\d+ where that is meant\.$"):
        trained(tmp_path, HINDI, lowercase=True, strip_accents=True)
    with pytest.raises(UserError, match=r"Set normalizer to none or nfc, or max_merged_words"):
        trained(tmp_path, ["ﬁne", "fine", "of", "on"], algorithm="bpe", vocab_size=12, normalizer="nfkc")
    told: list[str] = []
    allowed = trained(tmp_path, HINDI, told, lowercase=True, strip_accents=True, max_merged_words=1, vocab_size=26)
    assert allowed.tokenize("सुख") == allowed.tokenize("सूख")
    assert "equal to others" in told[0]


def test_words_that_fall_together_are_counted_beyond_their_case():
    words = count_words(["The the THE café Café cafe résumé, resume! naïve"])
    share, pairs = fallen_together(words, Normalizer("bert", True, True))
    assert share == pytest.approx(2 / 9), "one cafe of three, one resume of two"
    assert pairs == [("cafe", "café"), ("résumé", "resume")]
    assert fallen_together(words, Normalizer("bert", True, False)) == (0, [])
    assert fallen_together(words, Normalizer("none", False, False)) == (0, [])


@pytest.mark.parametrize("size", [30, 41, 60])
def test_wordpiece_has_as_many_entries_as_the_spec_says(tmp_path, size):
    tokenizer = trained(tmp_path, HINDI, vocab_size=size)
    assert len(tokenizer) == size
    assert tokenizer.get_vocab().keys() >= {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))


def test_an_alphabet_that_does_not_fit_loses_its_rarest_characters_which_is_counted(tmp_path):
    tokenizer = trained(tmp_path, HINDI, vocab_size=16)
    assert len(tokenizer) == 16
    assert unknown_characters(tokenizer, HINDI).share > 0.05
    with pytest.raises(UserError, match=r"^here: \d\d\.\d+% of the characters .* WordPiece needs blanks .* algorithm "
                                        r"unigram or byte-level-bpe, .* larger vocab_size, or set the\.limit higher"):
        check_unknown(tokenizer, HINDI, "here", 0.05, "the.limit")
    told: list[str] = []
    check_unknown(tokenizer, HINDI, "here", 1.0, "the.limit", told.append)
    assert told and told[0].startswith("here: ")


def test_what_is_unknown_is_counted_in_characters(tmp_path):
    """In tokens, one in three would be unknown; it is a word of 120 letters, as Thai's sentences are."""
    tokenizer = trained(tmp_path, ENGLISH)
    found = unknown_characters(tokenizer, ["the gate " + 120 * "a"])
    assert (found.characters, found.lost, found.share) == (127, 120, 120 / 127)
    assert found.examples == (120 * "a",)
    assert unknown_characters(tokenizer, ["the [SEP]"]).characters == 8, "text, not a control token"


def test_a_script_without_blanks_is_refused_for_wordpiece_and_known_to_unigram(tmp_path, capsys):
    draw = random.Random(0)
    words = "วันนี้ อากาศ ดีมาก เรา ไป เดินเล่น กัน เถอะ คุณ จะ มา ด้วย ไหม".split()
    lines = [json.dumps({"text": " ".join("".join(draw.choices(words, k=40)) for _ in range(3))}) for _ in range(80)]
    (tmp_path / "thai.jsonl").write_text("\n".join(lines))
    config = CorpusConfig([str(tmp_path / "thai.jsonl")], language="th", validation_share=0.2)
    for algorithm in ("wordpiece", "unigram"):
        (tmp_path / f"{algorithm}.yaml").write_text(f"algorithm: {algorithm}\nvocab_size: 120\nlowercase: true\n")
    with pytest.raises(UserError, match=r"wordpiece\.yaml: \d+\.\d+% of the characters .*'.*…'.*, more than 5\.0%\. "
                                        r".*algorithm unigram.*corpus\.max_unknown"):
        prepare(config, str(tmp_path / "wordpiece.yaml"), tmp_path / "data", end_documents=False, progress=False)
    assert not (tmp_path / "data/wordpiece/tokenizer").exists()
    data = prepare(config, str(tmp_path / "unigram.yaml"), tmp_path / "data", end_documents=True, progress=False)
    assert data.train.manifest["unknown"] == 0
    config.max_unknown = 1.0  # may be changed without preparing anything again
    prepare(config, str(tmp_path / "wordpiece.yaml"), tmp_path / "data", end_documents=False, progress=False)
    assert "unknown to the tokenizer" in capsys.readouterr().out
    config.max_unknown = 0.05
    with pytest.raises(UserError, match=r"made: \d+\.\d+% of the characters"):
        (tmp_path / "made").symlink_to(tmp_path / "data/wordpiece/tokenizer")
        prepare(config, str(tmp_path / "made"), tmp_path / "data", end_documents=False, progress=False)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "byte-level-bpe"])
def test_a_mask_takes_the_blank_before_it_as_the_word_does_that_it_stands_for(tmp_path, algorithm):
    tokenizer = trained(tmp_path, ENGLISH, algorithm=algorithm, special_tokens="bert",
                        vocab_size=275 if "byte" in algorithm else 30)
    save_tokenizer(tokenizer, tmp_path / "saved")
    for loaded in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        def ids(text, loaded=loaded):
            return loaded(text, add_special_tokens=False)["input_ids"]

        assert ids("mended the [MASK] gate") == [*ids("mended the"), loaded.mask_token_id, *ids(" gate")]
        assert ids("the [MASK] [MASK]") == [*ids("the"), *[loaded.mask_token_id] * 2]
        assert ids("the[MASK]") == [*ids("the"), loaded.mask_token_id]
        assert loaded.decode(ids("the red gate")) == "the red gate"


def test_a_saved_tokenizer_tells_the_positions_of_the_model_and_a_class_that_transformers_4_knows(tmp_path):
    tokenizer = trained(tmp_path, ENGLISH, additional_special_tokens="['<user>']")
    save_tokenizer(tokenizer, tmp_path / "saved", positions=64)
    assert tokenizer.model_max_length == 512
    config = (tmp_path / "saved/tokenizer_config.json").read_text()
    assert '"PreTrainedTokenizerFast"' in config and "extra_special_tokens" not in config
    loaded = load_tokenizer(str(tmp_path / "saved"))
    assert loaded.model_max_length == 64
    assert len(loaded("gate " * 100, truncation=True)["input_ids"]) == 64
    assert loaded("the", "gate")["token_type_ids"][-1] == 1
    assert "<user>" in loaded.all_special_tokens
    save_tokenizer(loaded, tmp_path / "again", positions=1024)
    assert load_tokenizer(str(tmp_path / "again")).model_max_length == 64, "the smaller of both"


def test_the_defaults_of_what_earlier_specs_lack_are_what_they_were():
    spec = TokenizerSpec("wordpiece")
    assert (spec.strip_accents, spec.max_merged_words) == (None, 0.02)
    assert Normalizer("bert", True, True).built().__getstate__() == b'{"type":"BertNormalizer","clean_text":true,' \
        b'"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}'


def test_labelled_texts_are_looked_at_from_everywhere_in_the_file():
    data = LabelledText([f"text {number}" for number in range(10)], np.zeros(10, int), ("a",),
                        [f"second {number}" for number in range(10)])
    assert spread(data, 5) == [*[f"text {number}" for number in (0, 2, 4, 6, 8)],
                               *[f"second {number}" for number in (0, 2, 4, 6, 8)]]
    assert len(spread(data, 2000)) == 20
