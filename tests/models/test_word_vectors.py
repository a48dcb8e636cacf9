"""Word vectors as a capability of their own: neighbours, analogies, the word2vec format, the recipe."""

import json
import sys

import numpy as np
import pytest
import small
from small import run_recipe, write_config

from toolkit.errors import UserError
from toolkit.models.initialisation import InitialValues, initialise
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.word_vectors import WordVectors, averaged, load_word2vec, save_word2vec, train_word_vectors

ROYAL = WordVectors(["man", "woman", "king", "queen", "sea"],
                    np.asarray([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1], [-1, 0.1, 0]], np.float32))


def test_neighbours_and_analogies():
    assert [word for word, _ in ROYAL.nearest("queen", 2)] == ["woman", "king"]
    assert ROYAL.nearest("man", 1)[0][1] == pytest.approx(1 / np.sqrt(2))
    assert ROYAL.analogy("man", "woman", "king")[0][0] == "queen"
    with pytest.raises(UserError, match="'prince' has no vector"):
        ROYAL.nearest("prince")


def test_gensim_reads_what_is_saved_and_so_do_we(tmp_path):
    save_word2vec(tmp_path / "vectors.txt", ROYAL)
    again = load_word2vec(tmp_path / "vectors.txt")
    assert again.words == ROYAL.words and np.allclose(again.vectors, ROYAL.vectors, rtol=1e-5)
    gensim = pytest.importorskip("gensim.models")
    theirs = gensim.KeyedVectors.load_word2vec_format(tmp_path / "vectors.txt")
    assert theirs.index_to_key == ROYAL.words and np.allclose(theirs["king"], ROYAL.vectors[2])
    assert theirs.most_similar(positive=["woman", "king"], negative=["man"])[0][0] == "queen"


@pytest.mark.parametrize(("text", "line"), [("two words\n", 1), ("2 3\nsea 1 2 3\nking 1 2\n", 3),
                                            ("1 3\nsea 1 2 x\n", 2)])
def test_other_formats_are_refused_with_their_line(tmp_path, text, line):
    (tmp_path / "vectors.txt").write_text(text)
    with pytest.raises(UserError, match=f"vectors.txt, line {line}: not word2vec's text format"):
        load_word2vec(tmp_path / "vectors.txt")
    with pytest.raises(UserError, match="no such file.*make word-vectors"):
        load_word2vec(tmp_path / "absent.txt")


def test_averages_are_of_the_known_words(wordpiece):
    words = [word for word in wordpiece.get_vocab() if word.isalpha() and len(word) > 2][:2]
    vectors = WordVectors(words, np.asarray([[0, 3], [4, 3]], np.float32))
    found = averaged([f"{words[0]} {words[1]}", words[0], "!"], vectors, wordpiece)
    np.testing.assert_allclose(found, [[0.4, 0.8], [0, 1], [0, 0]], rtol=1e-6)


def bert_and_data(tmp_path):
    data = small.small_data(tmp_path, "wordpiece")
    return BertForPreTraining(small.bert_config(len(data.tokenizer))), data


def test_a_model_starts_from_a_file_of_vectors(tmp_path):
    model, data = bert_and_data(tmp_path)
    tokens = data.tokenizer.convert_ids_to_tokens(list(range(len(data.tokenizer))))
    vectors = np.random.default_rng(0).normal(size=(len(tokens) - 10, 32)).astype(np.float32)
    save_word2vec(tmp_path / "vectors.txt", WordVectors(tokens[10:], vectors))
    initialise(model, InitialValues(embeddings=str(tmp_path / "vectors.txt")), data.train, data.tokenizer)
    weight = model.get_input_embeddings().weight.detach().numpy()[10:]
    assert np.corrcoef(weight.ravel(), vectors.ravel())[0, 1] > 0.9999 and weight.std() == pytest.approx(0.1, rel=1e-3)
    for kept, width, message in ((tokens[10:], 16, "vectors of 16 numbers, but the model is 32 wide"),
                                 (["nothing", "known"], 32, "knows 0 of the tokenizer's")):
        save_word2vec(tmp_path / "other.txt", WordVectors(kept, np.ones((len(kept), width), np.float32)))
        with pytest.raises(UserError, match=message):
            initialise(model, InitialValues(embeddings=str(tmp_path / "other.txt")), data.train, data.tokenizer)


@pytest.mark.parametrize("method", ["skip-gram", "cbow"])
def test_predicted_vectors_bring_like_words_together(method):
    pytest.importorskip("gensim")
    from small import store_of
    rng = np.random.default_rng(0)
    words, contexts = 1 + np.arange(20).reshape(4, 5), 21 + np.arange(16).reshape(4, 4)
    kinds, many = rng.integers(4, size=60_000), rng.integers(4, size=(3, 60_000))
    ids = np.stack([contexts[kinds, many[0]], words[kinds, many[1]], contexts[kinds, many[2]],
                    *np.zeros((5, len(kinds)), int)], 1).ravel()
    ids[ids == words[0, 4]] = 0  # seen nowhere
    vectors = train_word_vectors(store_of(ids), 40, 16, method)
    assert (vectors[[words[0, 4], 37, 38, 39]] == 0).all()
    words = words[:, :4]
    vectors = vectors - vectors[:37].mean(0)
    unit = vectors[words.ravel()] / np.linalg.norm(vectors[words.ravel()], axis=1, keepdims=True)
    similarity, same = unit @ unit.T, np.kron(np.eye(4), np.ones((4, 4))) > 0
    assert similarity[same].mean() > similarity[~same].mean() + 0.3


def test_without_gensim_the_way_out_is_named(monkeypatch):
    from small import store_of
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(UserError, match="skip-gram need gensim: pip install gensim, or use ppmi-svd"):
        train_word_vectors(store_of([1, 2, 3]), 5, 2, "skip-gram")


def test_the_recipe_prints_neighbours_and_writes_vectors(tmp_path):
    config = write_config(tmp_path / "vectors.yaml", {
        "output_dir": str(tmp_path / "run"), "data_dir": str(tmp_path / "data"), "width": 16,
        "tokenizer": small.write_spec(tmp_path, "wordpiece"),
        "corpus": {"sources": [str(small.write_corpus(tmp_path / "corpus"))], "validation_share": 0.2,
                   "min_characters": 20}, "words": ["ba", "absent"], "analogies": ["ba be bi bo"]})
    done = run_recipe("word_vectors", ["--config", str(config)], tmp_path / "out")
    assert done.code == 0, done.err
    assert "ppmi-svd" in done.out and str(tmp_path / "run/ppmi-svd.txt") in done.out
    result = json.loads((tmp_path / "run/result.json").read_text())["ppmi-svd"]
    vectors = load_word2vec(tmp_path / "run/ppmi-svd.txt")
    assert len(vectors.words) == result["vectors"] > 100 and vectors.vectors.shape[1] == 16
    assert not {"[CLS]", "[MASK]"} & set(vectors.words)
    wrong = run_recipe("word_vectors", ["--config", str(config), "--methods", "[glove]"], tmp_path / "wrong")
    assert wrong.code == 2 and "unknown method 'glove'" in wrong.err
