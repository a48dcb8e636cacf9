"""Attention maps and answers beside what others give, entropies of planted maps, and what is in the page."""

import base64
import json
import re
from pathlib import Path

import attention as recipe
import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, GPT2Config

from toolkit.analysis.attention import Answer, AttentionMaps, relative_entropy, series_attention, text_attention
from toolkit.data.series.dataset import z_normalise
from toolkit.data.series.generators import cylinder_bell_funnel
from toolkit.errors import UserError
from toolkit.inference.generation import fill_masks, open_model
from toolkit.inference.series_answers import answer_series
from toolkit.inference.text_answers import answer_texts
from toolkit.models.series.patches import SeriesForClassification, SeriesForForecasting
from toolkit.models.text.classifier import text_classifier
from toolkit.report.attention_page import write_attention_page

TEXT = "the old captain went back to the river."


@pytest.fixture(scope="module")
def series_models(tmp_path_factory):
    """A BERT over mixed channels, a GPT over independent ones and a forecaster, as saved."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("series")
    bert = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                      max_position_embeddings=20)
    gpt = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=20)
    names = ["a", "b", "c"]
    for name, kind, shape, labels, settings in (
            ("bert", SeriesForClassification, bert, names, {}),
            ("gpt", SeriesForClassification, gpt, names, {"num_channels": 2, "channels": "independent"}),
            ("forecaster", SeriesForForecasting, bert, (), {"context_length": 40, "horizon": 4})):
        kind.from_backbone(shape, labels, pretrained=False, patch_length=8, patch_stride=8, **settings
                           ).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_maps_of_a_text_are_those_of_transformers(runs, kind):  # noqa: F811
    maps = text_attention(runs / kind, TEXT)
    opened = open_model(runs / kind)
    batch = opened.tokenizer(TEXT, return_tensors="pt")
    plain = AutoModel.from_pretrained(runs / kind / "model", attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = plain(input_ids=batch["input_ids"], output_attentions=True).attentions
    assert np.allclose(maps.weights, torch.cat(expected).numpy(), atol=1e-6)
    assert maps.weights.shape == (2, 2, len(maps.labels), len(maps.labels)) and maps.is_causal == (kind == "gpt")
    assert np.allclose(maps.weights.sum(-1), 1, atol=1e-5)
    assert maps.is_causal == bool((np.triu(maps.weights, 1) == 0).all())
    if kind == "bert":
        assert maps.labels[0] == "[CLS]" and maps.labels[-1] == "[SEP]"
        pair = text_attention(runs / "bert", "the sea", "the river")
        assert pair.labels.count("[SEP]") == 2
    else:
        assert "".join(maps.labels).replace("␣", " ") == TEXT


def test_a_classifier_shows_the_heads_of_its_backbone(runs, tmp_path):  # noqa: F811
    opened = open_model(runs / "bert")
    text_classifier(str(runs / "bert/model"), ["no", "yes"], opened.tokenizer, pretrained=True).save_pretrained(
        tmp_path / "model")
    opened.tokenizer.save_pretrained(tmp_path / "model")
    assert np.allclose(text_attention(tmp_path / "model", TEXT).weights, text_attention(runs / "bert", TEXT).weights,
                       atol=1e-6)


def test_entropy_is_one_for_uniform_and_zero_for_one_alone():
    uniform = np.full((5, 5), 0.2)
    causal = np.tril(np.ones((5, 5))) / np.arange(1, 6)[:, None]
    one = np.eye(5)
    half = np.where(np.arange(5) < 2, 0.5, 0.0) * np.ones((5, 1))
    maps = AttentionMaps("m", tuple("abcde"), np.float32([[uniform, one, half]]), False)
    assert relative_entropy(maps) == pytest.approx(np.array([[1, 0, np.log(2) / np.log(5)]]), abs=1e-6)
    maps = AttentionMaps("m", tuple("abcde"), np.float32([[causal, one]]), True)
    assert relative_entropy(maps) == pytest.approx(np.array([[1, 0]]), abs=1e-6)
    assert np.isnan(relative_entropy(AttentionMaps("m", ("a",), np.ones((1, 2, 1, 1), np.float32), True))).all()


def test_maps_of_a_series_are_those_of_its_patches(series_models):
    data = cylinder_bell_funnel(1, seed=0)
    maps = series_attention(series_models / "bert", data.values[0])
    model = SeriesForClassification.from_pretrained(series_models / "bert", attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = model(torch.from_numpy(data.values[:1]), output_attentions=True).attentions
    assert np.allclose(maps.weights, torch.cat(expected).numpy(), atol=1e-6)
    assert maps.labels[:2] == ("0–7", "8–15") and maps.spans[-1][1] == data.values.shape[-1] and not maps.is_causal

    two = np.concatenate([data.values[0], data.values[1]])
    first, second = (series_attention(series_models / "gpt", two, channel=channel) for channel in (0, 1))
    assert first.is_causal and not np.allclose(first.weights, second.weights)
    assert np.array_equal(second.values, data.values[1])

    ahead = series_attention(series_models / "forecaster", data.values[0])
    assert ahead.labels[0] == f"{data.values.shape[-1] - 40}–{data.values.shape[-1] - 33}" and len(ahead.labels) == 5

    observed = np.ones_like(data.values[0], bool)
    observed[:, 16:40] = False
    gap = series_attention(series_models / "bert", np.where(observed, data.values[0], 0), observed)
    assert "16–23" not in gap.labels and len(gap.labels) == len(maps.labels) - 3
    assert np.allclose(gap.weights.sum(-1), 1, atol=1e-5), "what was not observed is read by none"


def test_what_cannot_be_shown_is_refused(runs, series_models, tmp_path):  # noqa: F811
    large = AttentionMaps("m", ("a",) * 500, np.broadcast_to(np.float32(0.002), (12, 12, 500, 500)), False)
    for call, said in (
            (lambda: text_attention(runs / "bert", "the " * 70), r"has \d+ tokens; the model has 64 positions"),
            (lambda: text_attention(series_models / "bert", TEXT), "is a toolkit-series, not a BERT"),
            (lambda: series_attention(runs / "bert", np.zeros((1, 64), np.float32)), "not a model of series"),
            (lambda: series_attention(series_models / "bert", np.zeros((1, 4), np.float32)), "shorter than one patch"),
            (lambda: series_attention(series_models / "bert", np.zeros((1, 900), np.float32)), "20 positions"),
            (lambda: series_attention(series_models / "bert", np.zeros((2, 64), np.float32)), "expected values"),
            (lambda: series_attention(series_models / "gpt", np.zeros((2, 64), np.float32), channel=2), "has 2"),
            (lambda: write_attention_page(large, tmp_path / "x.html"), "Shorten it to 166 tokens")):
        with pytest.raises(UserError, match=said):
            call()


def test_what_was_predicted_is_what_others_say_of_it(runs, series_models, tmp_path):  # noqa: F811
    opened = open_model(runs / "bert")
    masked = text_attention(runs / "bert", "the old [MASK] went to the [MASK] .")
    assert [answer.place for answer in masked.answers] == [
        place for place, label in enumerate(masked.labels) if label == "[MASK]"]
    fills = fill_masks(runs / "bert", ["the old [MASK] went to the [MASK] ."])[0]
    for answer, expected in zip(masked.answers, fills, strict=True):
        assert [name for name, _ in answer.likeliest] == [name for name, _ in expected]
        assert answer.said == expected[0][0]
        assert [share for _, share in answer.likeliest] == pytest.approx([share for _, share in expected], abs=1e-5)
    assert text_attention(runs / "bert", TEXT).answers == ()

    gpt = open_model(runs / "gpt")
    with torch.inference_mode():
        given = gpt.model(**gpt.tokenizer(TEXT, return_tensors="pt")).logits[0, -1].softmax(-1)
    (answer,) = text_attention(runs / "gpt", TEXT).answers
    assert answer.likeliest[0][1] == pytest.approx(given.max().item(), abs=1e-5) and answer.what == "next token"

    for pooling in ("layers", "cls"):
        torch.manual_seed(0)
        text_classifier(str(runs / "bert/model"), ["no", "yes"], opened.tokenizer, pretrained=True, pooling=pooling
                        ).save_pretrained(tmp_path / pooling)
        opened.tokenizer.save_pretrained(tmp_path / pooling)
        row = answer_texts(tmp_path / pooling, [TEXT]).iloc[0]
        (answer,) = text_attention(tmp_path / pooling, TEXT).answers
        assert answer.said == row["label"] and answer.place == (0 if pooling == "cls" else None)
        assert dict(answer.likeliest) == pytest.approx({"no": row["p(no)"], "yes": row["p(yes)"]}, abs=1e-5)

    values = cylinder_bell_funnel(1, seed=0).values[:1]
    row = answer_series(series_models / "bert", values).iloc[0]
    (answer,) = series_attention(series_models / "bert", z_normalise(values[0])).answers
    assert answer.said == row["label"] and dict(answer.likeliest)["c"] == pytest.approx(row["p(c)"], abs=1e-4)
    ahead = series_attention(series_models / "forecaster", values[0])
    model = SeriesForForecasting.from_pretrained(series_models / "forecaster").eval()
    with torch.inference_mode():
        expected = model(torch.from_numpy(values[:, :, -40:])).prediction[0].numpy()
    assert ahead.answers == () and np.allclose(ahead.forecast, expected, atol=1e-5)


def test_the_page_holds_every_weight_and_no_markup_of_a_label(tmp_path):
    weights = np.random.default_rng(0).random((2, 3, 9, 9)).astype(np.float32)
    maps = AttentionMaps("a/b", ("</script>", "<b>", *"cdefghi"), weights / weights.sum(-1, keepdims=True), False,
                         answers=(Answer("class", "<u>", (("<u>", 0.5), ("other", 0.25))),))
    write_attention_page(maps, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[\w./]+", page)) == {"http://www.w3.org/2000/svg"}
    assert page.count("</script>") == 2 and "<b>" not in page.split("<script")[0] and "<u>" not in page
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert data["labels"][:2] == ["</script>", "<b>"]
    for number, head in enumerate(maps.weights.reshape(6, 9, 9)):
        raw = np.frombuffer(base64.b64decode(data["weights"][number // 3][number % 3]), "<u2").reshape(9, 9)
        assert np.allclose(raw / 65535, head, atol=1e-5)
    assert "50.0 %" in page and "25.0 %" in page
    assert page.count("<canvas") == 8, "every head, and the mean of each layer"


def test_a_long_series_of_many_channels_makes_a_small_page(tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 40_000)).astype(np.float32)
    values[0, 12_345] = 99
    spans = tuple((start, start + 4000) for start in range(0, 40_000, 4000))
    maps = AttentionMaps("a", tuple(f"{start}–{stop - 1}" for start, stop in spans),
                         np.full((1, 1, 10, 10), 0.1, np.float32), False, values, spans,
                         channels=tuple(map(str, range(300))))
    write_attention_page(maps, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(page) < 400_000 and "293 more channels are not drawn" in page
    assert "308.6,2.0" in page, "the highest of all values is drawn"


def test_the_recipe_writes_the_page_of_a_text_or_a_row(runs, series_models, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    recipe.main([str(runs / "gpt"), "--text", TEXT])
    page = Path(re.search(r"^page: +(.+)$", capsys.readouterr().out, re.MULTILINE)[1])
    assert page.parent == Path("runs/attention") and str(runs) not in page.read_text(encoding="utf-8")
    data = cylinder_bell_funnel(2, seed=0)
    lines = ["\t".join([str(label + 1), *(f"{value:.6f}" for value in 5 + 3 * row[0])])
             for label, row in zip(data.labels, data.values, strict=True)]
    Path("CBF_TEST.tsv").write_text("\n".join(lines) + "\n")
    recipe.main([str(series_models / "bert"), "--series", "CBF_TEST.tsv", "--row", "3", "--output", "row.html"])
    found = json.loads(re.search(r'type="application/json">(.*?)</script>', Path("row.html").read_text("utf-8"))[1])
    maps = series_attention(series_models / "bert", z_normalise(data.values[3]))
    raw = np.frombuffer(base64.b64decode(found["weights"][0][0]), "<u2") / 65535
    assert np.allclose(raw, maps.weights[0, 0].ravel(), atol=1e-4)
    for arguments, said in (([], "either --text"), (["--text", "a", "--series", "b"], "either --text"),
                            (["--series", "CBF_TEST.tsv", "--row", "6"], "row is 6; CBF_TEST.tsv has 6 series")):
        with pytest.raises(UserError, match=said):
            recipe.main([str(series_models / "bert"), *arguments])
