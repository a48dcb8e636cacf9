"""Attention maps beside what transformers itself gives, entropies of planted maps, and the page in a browser."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import attention as recipe
import matplotlib.image
import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, GPT2Config

from toolkit.analysis.attention import AttentionMaps, relative_entropy, series_attention, text_attention
from toolkit.data.series.dataset import z_normalise
from toolkit.data.series.generators import cylinder_bell_funnel
from toolkit.errors import UserError
from toolkit.inference.generation import open_model
from toolkit.models.series.patches import SeriesForClassification, SeriesForForecasting
from toolkit.models.text.classifier import text_classifier
from toolkit.report.attention_page import write_attention_page

TEXT = "the old captain went back to the river."
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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


def test_the_page_holds_every_weight_and_fetches_nothing(tmp_path):
    weights = np.random.default_rng(0).random((2, 3, 9, 9)).astype(np.float32)
    maps = AttentionMaps("a/b", ("</script>", "<b>", *"cdefghi"), weights / weights.sum(-1, keepdims=True), False)
    write_attention_page(maps, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[\w./]+", page)) == {"http://www.w3.org/2000/svg"}
    assert page.count("</script>") == 2 and "<b>" not in page.split("<script")[0]
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert data["labels"][:2] == ["</script>", "<b>"]
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 6
    for number, head in enumerate(maps.weights.reshape(6, 9, 9)):
        raw = np.frombuffer(base64.b64decode(data["weights"][number // 3][number % 3]), "<u2").reshape(9, 9)
        assert np.allclose(raw / 65535, head, atol=1e-5)
        shown = matplotlib.image.imread(io.BytesIO(base64.b64decode(pictures[number])), format="png")
        assert shown.shape[:2] == (9, 9)
        order = np.argsort(head.ravel())
        darkness = -shown[..., :3].sum(-1).ravel()[order]
        assert (np.diff(darkness) > -0.01).all(), "the more weight, the darker"


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("what", ["text", "series"])
def test_the_page_works_in_a_browser(what, tmp_path, series_models, runs):  # noqa: F811
    path = tmp_path / "page.html"
    if what == "text":
        maps = text_attention(runs / "bert", TEXT)
    else:
        maps = series_attention(series_models / "bert", cylinder_bell_funnel(1, seed=0).values[0])
    write_attention_page(maps, path)
    dom = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", path.as_uri()],
                         capture_output=True, text=True, timeout=60, check=True).stdout
    n = len(maps.labels)
    told = html.unescape(re.search(r'id="told">(.*?)</p>', dom)[1])
    row = maps.weights[0, 0, n // 2]
    what = "patch" if maps.spans else "token"
    assert told == (f"“{maps.labels[n // 2]}” ({what} {n // 2 + 1}) reads “{maps.labels[row.argmax()]}” "
                    f"({what} {row.argmax() + 1}) with {row.max():.4f}")
    assert dom.count('text-anchor="end"') == n and "Layer 1, head 1" in dom
    assert (dom.count("<polyline") == 1) == (what == "patch")


def test_the_recipe_writes_the_page_of_a_text_or_a_row(runs, series_models, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    recipe.main([str(runs / "gpt"), "--text", TEXT])
    page = Path(capsys.readouterr().out.strip())
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
