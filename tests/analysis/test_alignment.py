"""Where an encoder–decoder looks: what its own layers gave, its pieces joined to words; and the pictures of it."""

import askable
import attention as recipe
import numpy as np
import pytest
import torch

from toolkit.analysis.alignment import END, NoAttention, text_alignment
from toolkit.errors import UserError
from toolkit.inference.written_answers import open_writer
from toolkit.report.attention_page import write_attention_page
from toolkit.report.figures.seq2seq import alignment_figure

SOURCE, TARGET = "the captain of the sea", "unbelievable rivers"


@pytest.fixture(scope="module")
def writers(wordpiece, byte_level_bpe, tmp_path_factory):
    place = tmp_path_factory.mktemp("writers")
    return {"transformer": askable.writer(place / "transformer", wordpiece),
            "gru": askable.writer(place / "gru", byte_level_bpe, cell="gru"),
            "own target": askable.writer(place / "own", wordpiece, cell="lstm", own_target=True),
            "none": askable.writer(place / "none", wordpiece, None, "gru")}


def own_attention(writer, source: str, target: str) -> tuple[list[str], list[str], np.ndarray]:
    """Tokens of both sides, and (layers, heads, T, S) as the model itself gives it."""
    pairs = writer.batches([source], [target])
    writer.model.set_attn_implementation("eager")
    with torch.inference_mode():
        given = writer.model(torch.from_numpy(pairs.sources[0])[None],
                             labels=torch.from_numpy(pairs.targets[0])[None], output_attentions=True)
    return (writer.source.convert_ids_to_tokens(pairs.sources[0]), writer.target.convert_ids_to_tokens(
        pairs.targets[0]), torch.cat(given.cross_attentions).numpy())


@pytest.mark.parametrize("kind", ["transformer", "gru", "own target"])
def test_pieces_of_a_word_are_joined(writers, kind):
    """Weights on the pieces of a source word are added, those of a target word averaged; a row is still one."""
    maps = text_alignment(writers[kind], SOURCE, TARGET)
    assert maps.labels == (*SOURCE.split(), END) and maps.readers == (*TARGET.split(), END)
    assert maps.unit == "word" and maps.answers[0].what == "given"
    np.testing.assert_allclose(maps.weights.sum(-1), 1, atol=1e-5)
    read, written, weights = own_attention(open_writer(writers[kind]), SOURCE, TARGET)
    assert len(written) > 3 and maps.weights.shape == (*weights.shape[:2], 3, 6)

    def words(tokens):
        starts = [not token.startswith("##") if kind != "gru" else token.startswith("Ġ") or not place
                  for place, token in enumerate(tokens)]
        return np.cumsum([start or place == len(tokens) - 1 for place, start in enumerate(starts)]) - 1

    rows, columns = words(written), words(read)
    expected = np.stack([weights[:, :, rows == word].mean(2) for word in range(3)], 2)
    expected = np.stack([expected[..., columns == word].sum(-1) for word in range(6)], -1)
    np.testing.assert_allclose(maps.weights, expected, atol=1e-5)


def test_without_a_target_it_writes_its_own(writers):
    writer = open_writer(writers["transformer"])
    kept = writer.model.config._attn_implementation
    maps = text_alignment(writer, SOURCE)
    assert maps.answers[0].what == "written" and maps.answers[0].said == (writer.write([SOURCE])[0] or "nothing")
    assert writer.model.config._attn_implementation == kept
    again = text_alignment(writer, SOURCE, maps.answers[0].said)
    assert again.labels == maps.labels
    html = maps._repr_html_()
    assert "transformer" in html and f"<th scope=\"row\">{maps.readers[0]}" in html


def test_letters_are_a_map_of_letters(tmp_path):
    from toolkit.tokenization.train import read_spec, train_tokenizer

    spec = "tokenizers/characters.yaml"
    letters = train_tokenizer(read_spec(spec), ["the sea 0123"] * 4, spec, False, ["the sea"], lambda line: None)
    maps = text_alignment(askable.writer(tmp_path / "letters", letters, cell="gru"), "the sea", "012")
    assert maps.unit == "character"
    assert maps.labels == (*"the␣sea", END) and maps.readers == ("0", "1", "2", END)


def test_what_cannot_be_shown_is_said(writers, tmp_path):
    with pytest.raises(NoAttention, match="has no attention: all that its decoder knows"):
        text_alignment(writers["none"], SOURCE)
    with pytest.raises(UserError, match="text: is empty"):
        text_alignment(writers["gru"], " ")
    with pytest.raises(UserError, match="text: has 40 tokens or more"):
        text_alignment(writers["gru"], "the sea " * 40)
    with pytest.raises(UserError, match="target: has .* tokens, and .* has positions for 40"):
        text_alignment(writers["transformer"], SOURCE, "the sea " * 40)
    with pytest.raises(UserError, match="does not turn one text"):
        recipe_of_a_bert(tmp_path)


def recipe_of_a_bert(place):
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
                         intermediate_size=4)).save_pretrained(place / "bert")
    text_alignment(str(place / "bert"), SOURCE)


def test_the_recipe_writes_the_page(writers, tmp_path, capsys):
    page = tmp_path / "page.html"
    recipe.main(["--model", writers["transformer"], "--text", SOURCE, "--target", TARGET, "--output", str(page)])
    text = page.read_text(encoding="utf-8")
    assert f"page:  {page}\n" in capsys.readouterr().out
    assert '<p class="soft small side">Given</p>' in text and "4 layers of 4 heads" in text
    assert '<option value="mean">mean over layers</option>' in text
    write_attention_page(text_alignment(writers["gru"], SOURCE), page)  # of one head there is no choice
    assert "All heads" not in page.read_text(encoding="utf-8")


def test_the_picture_is_of_the_weights():
    weights = np.array([[0.7, 0.2, 0.1], [0.0, 0.1, 0.9]])
    figure = alignment_figure(("a", "$b_1$", "‹end›"), ("x", "y"), weights, "Where")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "$b_1$", "‹end›"]
    np.testing.assert_allclose(axes.collections[0].get_array().ravel(), np.sqrt(weights / 0.9).ravel())
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines] == [(0, 0), (2, 1)]
    with pytest.raises(ValueError, match=r"weights are \(2, 3\), of 3 target and 2 source"):
        alignment_figure(("x", "y"), ("a", "b", "c"), weights)
