"""The page in the browser gives the answers of predict, generate and fill_mask, within bounds; a refusal is a line."""

import re
from html import unescape

import askable
import numpy as np
import planted
import pytest
from checkpoints import checkpoints  # noqa: F401 - a fixture

from toolkit.app import asked as limits
from toolkit.app.answering import answer_file, answer_masks, answer_prompt, answer_source, answer_text
from toolkit.app.asked import MOST_CHARACTERS, open_asked
from toolkit.errors import UserError
from toolkit.inference.generation import fill_masks, generate
from toolkit.inference.predict import predict
from toolkit.inference.settings import PredictConfig
from toolkit.inference.text_answers import answer_texts
from toolkit.inference.written_answers import translate
from toolkit.shown import on_one_line

TEXT = "the sea and the river were not made for this captain"


@pytest.fixture(scope="module")
def models(checkpoints, wordpiece, tmp_path_factory):  # noqa: F811
    """Kind → the opened model."""
    place = tmp_path_factory.mktemp("askable")
    made = {"masked": checkpoints["bert"], "causal": checkpoints["gpt"],
            "text": askable.classifier(place / "text", checkpoints["bert"], wordpiece),
            "pairs": askable.classifier(place / "pairs", checkpoints["bert"], wordpiece, True),
            "series": askable.series_classifier(place / "series", checkpoints["bert"]),
            "written": askable.writer(place / "written", wordpiece, cell="gru"),
            "no attention": askable.writer(place / "none", wordpiece, None, "gru"),
            "forecast": askable.forecaster(place / "forecast")}
    return {kind: open_asked(path) for kind, path in made.items()}


def shares(page: str) -> dict[str, float]:
    return {unescape(name): float(share) for name, share in re.findall(
        r'<td dir="auto">([^<]*)</td><td class="number">([\d.]+) %', page)}


def cells(page: str) -> list[list[str]]:
    """Of the last table, without its heads."""
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page.split("<tbody>")[-1])]


def test_every_kind_is_known(models):
    assert {kind: asked.kind for kind, asked in models.items()} == {
        "masked": "masked", "causal": "causal", "text": "text", "pairs": "text", "series": "series",
        "forecast": "forecast", "written": "written", "no attention": "written"}


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_is_that_of_predict(models, beams):
    page = answer_source(models["written"], TEXT, beams)
    written = translate(models["written"].directory, [TEXT], num_beams=beams)[0]
    assert f'answer-is" dir="auto">{written or "(nothing)"}<' in unescape(page)
    assert "Where it looked" in page and "<svg" in page and "‹end›" in page


def test_a_text_with_no_map_says_why(models):
    page = answer_source(models["no attention"], TEXT)
    assert "It has no attention" in page and "<svg" not in page
    page = answer_source(models["written"], TEXT + " sea" * 60)
    assert "1 of 1 texts have 40 tokens or more and are read up to there" in page and "<svg" not in page
    assert 'class="refusal"' in answer_source(models["written"], " ")


def test_classes_are_those_of_predict_and_labels_are_text(models):
    page = answer_text(models["text"], TEXT)
    answer = answer_texts(models["text"].directory, [TEXT]).iloc[0]
    assert shares(page) == {name: pytest.approx(100 * answer[f"p({name})"], abs=0.051)
                            for name in askable.LABELS}
    assert f'answer-is" dir="auto">{answer["label"]}<' in unescape(page)
    assert "Words that mattered" in page and not re.search(r"<(script|img|svg)", page)


def test_a_pair_is_asked_as_a_pair(models):
    page = answer_text(models["pairs"], TEXT, "the garden")
    answer = answer_texts(models["pairs"].directory, [TEXT], ["the garden"]).iloc[0]
    assert max(shares(page).values()) == pytest.approx(100 * max(answer[f"p({name})"] for name in askable.LABELS),
                                                       abs=0.051)
    assert page.count('class="marked"') == 2
    assert "second text: is empty" in answer_text(models["pairs"], TEXT, " ")


def test_blanks_and_continuations_are_those_of_the_recipes(models):
    text = f"the {models['masked'].language.tokenizer.mask_token} of the garden"
    page, filled = answer_masks(models["masked"], text, 3), fill_masks(models["masked"].directory, [text], 3)[0][0]
    assert shares(page) == {f"“{token}”": pytest.approx(100 * share, abs=0.051) for token, share in filled}
    page = answer_prompt(models["causal"], "the sea", 8, 0.8, 2, 3)
    wanted = generate(models["causal"].directory, "the sea", max_new_tokens=8, num_return_sequences=2, seed=3)
    written = re.findall(r"</span>(.*?)</p>", page, re.DOTALL)
    assert [on_one_line(each.text) for each in wanted] == [on_one_line(unescape(text)) for text in written]


def test_classes_of_series_are_those_of_predict(models, tmp_path):
    file = askable.series_table(tmp_path / "new.csv")
    page, answer = answer_file(models["series"], file), predict(PredictConfig(models["series"].directory, file))
    assert [unescape(row[0]) for row in cells(page)] == list(answer["label"])
    assert np.allclose([[float(cell) for cell in row[1:3]] for row in cells(page)], answer.iloc[:, 1:3], atol=6e-4)
    assert "<svg" in page and str(tmp_path) not in page and "new.csv: 3 series" in page


def test_a_forecast_is_that_of_predict_with_its_fan(models, tmp_path):
    file = str(tmp_path / "new.csv")
    askable.waves().to_csv(file, index=False)
    page, answer = answer_file(models["forecast"], file), predict(PredictConfig(models["forecast"].directory, file))
    assert [row[0] for row in cells(page)] == [str(time) for time in answer["time"]]
    assert np.allclose([float(row[3].replace(",", "").replace("−", "-")) for row in cells(page)], answer["value"],
                       atol=6e-4)
    assert "80 % band" in page and planted.PLANTED[0] in unescape(page) and "<script" not in page


@pytest.mark.parametrize(("kind", "ask", "told"), [
    ("text", lambda asked, _: answer_text(asked, ""), "text: is empty"),
    ("text", lambda asked, _: answer_text(asked, None), "text: is empty"),
    ("text", lambda asked, _: answer_text(asked, "a" * (MOST_CHARACTERS + 1)), "this page takes 20,000"),
    ("masked", lambda asked, _: answer_masks(asked, "the sea"), "Put [MASK] where"),
    ("causal", lambda asked, _: answer_prompt(asked, "sea " * 200), "positions"),
    ("series", lambda asked, _: answer_file(asked, None), "Upload a table"),
    ("series", lambda asked, folder: answer_file(asked, folder("a.npz", b"")), "a.npz: this page reads"),
    ("series", lambda asked, folder: answer_file(asked, folder("a.csv.gz", b"")), "this page reads"),
    ("series", lambda asked, folder: answer_file(asked, folder("a.csv", b"a,b\n1,<b>\n")), "&lt;b&gt;"),
    ("series", lambda asked, folder: answer_file(asked, folder("large.csv", b"1" * 2001)), "this page takes"),
    ("forecast", lambda asked, folder: answer_file(asked, folder("a.csv", b"date,x\n")), "a.csv"),
    ("forecast", lambda asked, _: answer_file(asked, "/nowhere/a.csv"), "a.csv: is no longer there")])
def test_a_refusal_is_one_line_without_paths(models, tmp_path, monkeypatch, kind, ask, told):
    monkeypatch.setattr(limits, "MOST_BYTES", 2000)

    def written(name, content):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    page = ask(models[kind], written)
    assert page.startswith('<p class="refusal" role="alert"') and told in page and page.count("</p>") == 1
    assert str(tmp_path) not in page and models[kind].directory not in page.replace(models[kind].name, "")


def test_what_no_page_can_ask_is_refused_before_it_opens(tmp_path):
    with pytest.raises(UserError, match="no checkpoint here"):
        open_asked(str(tmp_path))
    with pytest.raises(UserError, match="no such directory"):
        open_asked("nobody/nothing")
