"""The page of attention maps as a reader has it: long texts, every head, series and forecasts, by mouse and by keys."""

import numpy as np
import planted
import pytest

from toolkit.analysis.attention import Answer, AttentionMaps
from toolkit.report.attention_page import write_attention_page

pytestmark = pytest.mark.browser


def weights(layers: int, heads: int, length: int, causal: bool = False) -> np.ndarray:
    drawn = np.random.default_rng(0).random((layers, heads, length, length)).astype(np.float32) ** 4
    drawn = np.tril(drawn) if causal else drawn
    return drawn / drawn.sum(-1, keepdims=True)


def text_maps(length: int = 12, layers: int = 2, heads: int = 3, causal: bool = False, **more) -> AttentionMaps:
    labels = ("[CLS]", *planted.PLANTED, "漢字", "حسن", *(f"word{number}" for number in range(length)))[:length]
    return AttentionMaps("runs/a", labels, weights(layers, heads, length, causal), causal, special=frozenset({0}),
                         **more)


def series_maps(channels: int = 1, **more) -> AttentionMaps:
    spans = tuple((start, start + 16) for start in range(0, 89, 8))
    return AttentionMaps("runs/b", tuple(f"{start}–{stop - 1}" for start, stop in spans), weights(2, 2, len(spans)),
                         False, np.random.default_rng(1).normal(size=(channels, 104)).astype(np.float32), spans,
                         channels=(*planted.PLANTED, *"abcdefghijk")[:channels], **more)


def crossed_maps(layers: int = 2, heads: int = 3) -> AttentionMaps:
    """Five words written of eight that were read."""
    drawn = np.random.default_rng(2).random((layers, heads, 5, 8)).astype(np.float32) ** 4
    return AttentionMaps("runs/c", (*planted.PLANTED, "漢字", "حسن", *"abcdefgh")[:7] + ("‹end›",),
                         drawn / drawn.sum(-1, keepdims=True), False, answers=(Answer("written", "x"),),
                         special=frozenset({7}), readers=(planted.PLANTED[0], "der", "Hund", "läuft", "‹end›"),
                         unit="word")


CLASS = Answer("class", planted.PLANTED[0], ((planted.PLANTED[0], 0.7), (planted.PLANTED[1], 0.3)))
PAGES = {
    "text": lambda: text_maps(answers=(CLASS,)), "one head of one token": lambda: text_maps(1, 1, 1),
    "gpt": lambda: text_maps(9, causal=True, answers=(Answer("next token", "a", (("a", 0.2),), 8),)),
    "long": lambda: text_maps(160, 4, 4), "one long word": lambda: AttentionMaps(
        "c", ("x" * 300, "y"), weights(1, 1, 2), False),
    "crossed": crossed_maps, "crossed, one head": lambda: crossed_maps(1, 1),
    "series": lambda: series_maps(answers=(CLASS,)),
    "forecast": lambda: series_maps(3, forecast=np.zeros((3, 8), np.float32)), "many channels": lambda: series_maps(9)}


@pytest.mark.parametrize("kind", PAGES)
def test_every_page_holds(check_page, tmp_path, kind):
    write_attention_page(PAGES[kind](), tmp_path / "page.html")
    check_page(tmp_path / "page.html")


def told(browser) -> str:
    return browser.text("#told").replace("\u2068", "").replace("\u2069", "")


def says(maps: AttentionMaps, map_, reader: int, read: int) -> str:
    what = "patch" if maps.spans else "token"
    return (f"“{maps.labels[reader]}” ({what} {reader + 1}) reads “{maps.labels[read]}” ({what} {read + 1}) with "
            f"{map_[reader, read]:.4f}.")


def test_it_opens_where_the_answer_was_read(browser, tmp_path):
    answered = text_maps(answers=(Answer("[MASK], token 6", "sea", (("sea", 0.9),), 5),))
    write_attention_page(answered, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    mean = answered.weights[-1].mean(0)
    assert told(browser).startswith(says(answered, mean, 5, mean[5].argmax()))
    assert browser.text("#section-2") == "Layer 2, mean over heads"
    plain = text_maps()
    plain.weights[:, :, :, 4] += 5
    plain.weights[:, :, :, 0] += 50  # read most, but no word
    write_attention_page(AttentionMaps(plain.name, plain.labels, plain.weights / plain.weights.sum(-1, keepdims=True),
                                       False, special=plain.special), tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    assert told(browser).startswith(f"“{plain.labels[4]}” (token 5) reads")


def test_what_is_drawn_is_what_was_measured(browser, tmp_path):
    maps = text_maps()
    write_attention_page(maps, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    for layer in range(2):
        shown = [*maps.weights[layer], maps.weights[layer].mean(0)]
        for place, map_ in enumerate(shown):
            pixels = np.array(browser.run("""
                const row = document.querySelectorAll('#heads tr')[arguments[0] + 1]
                const canvas = row.querySelectorAll('canvas')[arguments[1]]
                return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]""",
                                          layer, place)).reshape(12, 12, 4)
            order = np.argsort(map_.ravel())
            assert (np.diff(-pixels[..., :3].sum(-1).ravel()[order]) >= 0).all(), "the more weight, the darker"


def test_every_head_is_within_reach_of_keys(browser, tmp_path):
    maps = text_maps()
    write_attention_page(maps, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    focused = "return document.activeElement.closest(arguments[0]) !== null"
    for _ in range(30):
        browser.tab()
        if browser.run(focused, "#tokens"):
            break
    before = told(browser)
    browser.arrow("Right")
    assert told(browser) != before
    for _ in range(30):
        browser.tab()
        if browser.run(focused, "#heads"):
            break
    browser.arrow("Up")
    browser.arrow("Left")
    assert browser.text("#section-1") == "Layer 1, head 3"
    reader = browser.run("return [...document.querySelectorAll('#tokens span')].findIndex(each => each.tabIndex === 0)")
    browser.run("document.querySelectorAll('#tokens span')[7].focus()")
    assert told(browser).startswith(says(maps, maps.weights[0, 2], 7, maps.weights[0, 2, 7].argmax())) and reader >= 0
    browser.run("document.querySelector('[name=side][value=read]').click()")
    assert f"“{maps.labels[7]}” (token 8) is read most by: “{maps.labels[maps.weights[0, 2, :, 7].argmax()]}”" \
        in told(browser)
    browser.run("document.getElementById('map').focus()")
    browser.arrow("Down")
    found = int(maps.weights[0, 2, :, 7].argmax())
    assert told(browser).startswith(says(maps, maps.weights[0, 2], min(11, found + 1), 7))


def test_tokens_wrap_and_a_patch_is_marked_on_the_series(browser, tmp_path):
    write_attention_page(text_maps(160, 1, 1), tmp_path / "page.html")
    browser.open(tmp_path / "page.html", 400)
    tops = browser.run("return [...document.querySelectorAll('#tokens span')].map(each => each.offsetTop)")
    assert len(set(tops)) > 10
    ticks = browser.run("return [...document.querySelectorAll('#ticks span')].map(each => each.textContent)")
    assert len(set(ticks)) == 5, "small weights take more digits"
    maps = series_maps()
    write_attention_page(maps, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.run("document.querySelectorAll('.patch')[3].dispatchEvent(new MouseEvent('mouseenter'))")
    read = "return ['x', 'width'].map(name => document.querySelector(arguments[0]).getAttribute(name))"
    band, patch = (browser.run(read, each) for each in (".reader", ".patch.on"))
    assert band == patch and told(browser).startswith(f"“{maps.labels[3]}” (patch 4) reads")


def test_a_target_reads_its_source(browser, tmp_path):
    """Choosing on one side shades the other; the mean over layers and heads first; by keys, too."""
    maps = crossed_maps()
    write_attention_page(maps, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    mean = maps.weights.mean((0, 1))

    def says_so(map_, row: int, column: int) -> str:
        return (f"“{maps.readers[row]}” (word {row + 1}) reads “{maps.labels[column]}” (word {column + 1}) with "
                f"{map_[row, column]:.4f}.")

    assert browser.text("#section-1") == "Mean over layers, mean over heads"
    assert told(browser).startswith(says_so(mean, 0, mean[0].argmax()))
    pixels = browser.run("""const image = document.querySelector('#map image').getAttribute('href')
        return new Promise(done => { const read = new Image(); read.onload = () => done([read.width, read.height])
        read.src = image })""")
    assert pixels == [8, 5]
    shares = "return [...document.querySelectorAll(arguments[0])].map(each => +each.style.getPropertyValue('--share'))"
    browser.run("document.querySelectorAll('#readers span')[3].dispatchEvent(new MouseEvent('mouseenter'))")
    assert told(browser).startswith(says_so(mean, 3, mean[3].argmax()))
    np.testing.assert_allclose(browser.run(shares, "#tokens span"), np.sqrt(mean[3] / mean.max()), atol=2e-3)
    assert not any(browser.run(shares, "#readers span"))
    browser.run("document.querySelectorAll('#tokens span')[5].focus()")
    assert f"“{maps.labels[5]}” (word 6) is read most by: “{maps.readers[mean[:, 5].argmax()]}”" in told(browser)
    np.testing.assert_allclose(browser.run(shares, "#readers span"), np.sqrt(mean[:, 5] / mean.max()), atol=2e-3)
    browser.arrow("Right")
    assert f"“{maps.labels[6]}” (word 7) is read most by" in told(browser)
    browser.run("""for (const [list, value] of [['layer', '1'], ['head', '2']]) {
        document.getElementById(list).value = value
        document.getElementById(list).dispatchEvent(new Event('change')) }""")
    assert browser.text("#section-1") == "Layer 2, head 3"
    browser.run("document.getElementById('map').focus()")
    for _ in range(9):
        browser.arrow("Down")
        browser.arrow("Right")
    assert told(browser).startswith(says_so(maps.weights[1, 2], 4, 7)), "the frame stays inside"
