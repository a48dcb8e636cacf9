"""What a notebook shows of our objects: short as text, a table as HTML, and what people wrote is text in both."""

import html.parser
import importlib
from pathlib import Path

import numpy as np
import pytest
import small

from toolkit import views
from toolkit.analysis.attention import AttentionMaps
from toolkit.data.parts import Parts
from toolkit.data.series.dataset import SeriesBatches, SeriesDataset
from toolkit.data.series.windows import WindowBatches, standardised
from toolkit.data.stores.bert_batches import MaskingConfig
from toolkit.data.stores.prepare import PreparedData
from toolkit.data.tags.batches import TagBatches
from toolkit.data.tags.tagged import TaggedSentences, joined
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText
from toolkit.inference.conversation import Conversation
from toolkit.inference.generation import Continuation, open_model
from toolkit.models.text.bert import BertForPreTraining
from toolkit.report.runs import RunFacts
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.run.results import Results, Row, Verdict
from toolkit.tasks.masked_lm import BertPretraining
from toolkit.tokenization.measure import compare_tokenizers

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


def texts(count: int, classes: int = 40) -> LabelledText:
    return LabelledText([HOSTILE + "a long text " * 50] * count, np.arange(count) % classes,
                        tuple(f"{HOSTILE}{number}" for number in range(classes)))


def tagged_batches(tokenizer) -> TagBatches:
    text, offsets = joined([HOSTILE, "a", "word"])
    sentences = TaggedSentences([text] * 9, [offsets] * 9, [[HOSTILE, "O", "O"]] * 9, [HOSTILE] * 9)
    return TagBatches(sentences, tokenizer, ["O", HOSTILE], 128, 4, 0)


def series(count: int = 30, name: str = HOSTILE) -> SeriesDataset:
    values = np.random.default_rng(0).normal(size=(count, 2, 50)).astype(np.float32)
    observed = np.ones(values.shape, bool)
    observed[::2, :, 40:], values[::2, :, 40:] = False, 0
    return SeriesDataset(values, np.arange(count) % 2, (name, "other"), observed, 12.5)


def results(arms: int = 60, seeds: int = 3) -> Results:
    rows = [Row(HOSTILE, f"{HOSTILE} {arm}", seed, {"accuracy": 0.5 + 0.01 * seed}, size="400", model=HOSTILE)
            for arm in range(arms) for seed in range(seeds)]
    return Results(HOSTILE, "accuracy", rows, [Verdict(f"{HOSTILE} 1", f"{HOSTILE}: +1.0 ± 0.1: real", size="400")],
                   "labels")


@pytest.fixture(scope="module")
def objects(wordpiece, byte_level_bpe, bert_store, checkpoints, tmp_path_factory) -> list:
    """One of each class at least, large, and with names that want to be markup."""
    forecast = standardised([np.random.default_rng(0).normal(size=(3, 400))] * 30, (HOSTILE, "b", "c"), [0.7, 0.8, 1.0],
                            names=[f"{HOSTILE}{number}" for number in range(30)])
    prepared = PreparedData(wordpiece, bert_store, bert_store, {})
    model = BertForPreTraining(small.bert_config(len(wordpiece)))
    run = Run(tmp_path_factory.mktemp("run"))
    write_json(run.result_path, {"loss": 1.5, "predictions": list(range(9000)), "name": HOSTILE * 100,
                                 "bert": {"pretrained": {"mean": 0.5, "ci95": None, "n": 1, "values": [0.5]}}})
    maps = AttentionMaps(HOSTILE, tuple(f"{HOSTILE}{place}" for place in range(300)),
                         np.full((6, 16, 300, 300), 1 / 300, np.float32), False)
    gpt = open_model(checkpoints["gpt"])
    return [texts(4000), Parts(texts(4000), texts(10), texts(90)), Parts(series(), series(), series()),
            TextBatches(texts(40), wordpiece, 32, 8, 0), tagged_batches(wordpiece), series(),
            SeriesBatches(series(), 8, 0), forecast, WindowBatches(forecast, "train", 20, 10), bert_store, prepared,
            BertPretraining(model, prepared, MaskingConfig(max_seq_length=32), 8, 0, 8), run, run.result(), results(),
            maps, gpt,
            RunFacts(Path(HOSTILE), HOSTILE * 90, HOSTILE, "damaged", HOSTILE * 900, figures={HOSTILE: 1.5}),
            Conversation(gpt, 10), Continuation(HOSTILE, HOSTILE * 200, 7, "length"),
            compare_tokenizers({HOSTILE: wordpiece, "bytes": byte_level_bpe}, ["Some words, and others."])]


class Tags(html.parser.HTMLParser):
    """Collects which tags there are, and that each is closed in its turn."""

    def __init__(self, text: str):
        super().__init__()
        self.names, self.open, self.text = set(), [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes) -> None:
        self.names.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_is_shown_is_short_and_people_s_words_are_text(objects):
    for found in objects:
        plain, page = repr(found), Tags(found._repr_html_())
        assert 10 < len(plain) <= views.LONGEST, (type(found), len(plain))
        assert len(found._repr_html_()) < 40_000, type(found)
        assert page.names <= {"p", "strong", "br", "table", "thead", "tbody", "tr", "th", "td", "caption", "div"}
        assert "\x1b" not in plain + page.text and "\u202e" not in plain + page.text
        if type(found) in (LabelledText, SeriesDataset, Results, AttentionMaps, Continuation):
            assert "<script>" in page.text  # as words


def test_every_class_that_is_shown_is_tried_here(objects):
    for path in (small.ROOT / "toolkit").rglob("*.py"):
        if "(Viewed" in path.read_text(encoding="utf-8") or "(ViewedTask" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(path.relative_to(small.ROOT).with_suffix("").parts))
    tried = {base for found in objects for base in type(found).__mro__}

    def below(cls: type) -> set[type]:
        return {cls}.union(*map(below, cls.__subclasses__()))

    assert not {cls for cls in below(views.Viewed) - tried if "_shown" in vars(cls)}


def test_an_arm_table_reads_as_a_table():
    found = results(arms=2)
    assert repr(found).splitlines()[1].split() == ["labels", "arm", "accuracy", "in", "percent", "seeds", "verdict"]
    assert repr(found).splitlines()[-1].split("  ")[-1] == "+1.0 ± 0.1: real"
    assert repr(found).splitlines()[-1].split()[-8:-4] == ["51.0", "±", "2.5", "3"]
    page = Tags(found._repr_html_())
    assert "accuracy in percentseedsverdict" in page.text and "51.0 ± 2.5" in page.text


def test_parts_are_a_tuple_and_say_what_they_hold():
    parts = Parts(texts(90, 3), texts(10, 3), texts(5, 3))
    train, validation, test = parts
    assert (train, validation, test) == tuple(parts) and parts.test is test
    lines = repr(parts).splitlines()
    assert lines[2].split()[:2] == ["train", "90"] and lines[4].split()[:2] == ["test", "5"]


def test_a_result_is_still_a_dict(tmp_path):
    run = Run(tmp_path / "run")
    run.hold()
    result = run.finish({"loss": 1.5, "predictions": list(range(1000))})
    assert result == {"loss": 1.5, "predictions": list(range(1000))} == run.result()
    assert "1,000 values" in repr(result) and "999" not in repr(result)


def test_numbers_and_long_things():
    assert views.shown(-1234.5678) == "−1235" and views.shown(12345) == "12,345" and views.shown(None) == "–"
    assert views.shown(float("nan")) == "–" and views.shown(list(range(9))) == "0, 1, 2, 3, 4, 5, … (9)"
    long = views.View("x" * 5000, {"y": "z" * 5000}, ["a"], [["b" * 500]] * 500, "n" * 500)
    assert len(views.as_text(long)) <= views.LONGEST and "… and 488 more" in views.as_text(long)
    assert Path("a<b").name in Tags(views.as_html(views.View("a<b"))).text
