"""The page that asks a model, as a reader has it: typed, clicked, uploaded; nothing is asked of other machines."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from html import unescape

import askable
import planted
import pytest
import small
from checkpoints import checkpoints  # noqa: F401 - a fixture

pytestmark = pytest.mark.browser
ODD_OF_GRADIO = ("Method not implemented", "ids that occur twice: ", "a picture without a name: <svg",
                 "a table without heads: <table.file-preview")
"""What its own parts say and lack; nothing of ours is so."""
TEXT = "the sea and the river were not made for " + planted.PLANTED[0]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def pages(checkpoints, wordpiece, tmp_path_factory):  # noqa: F811
    """`pages(kind)`: the address of a served page."""
    pytest.importorskip("gradio", reason="the page needs gradio: the extra `app`")  # takes seconds: not when collected
    from toolkit.app.asked import open_asked
    from toolkit.app.serve import HOST, launching, page_of

    place, served = tmp_path_factory.mktemp("pages"), {}
    makers = {"masked": lambda: checkpoints["bert"], "causal": lambda: checkpoints["gpt"],
              "text": lambda: askable.classifier(place / "text", checkpoints["bert"], wordpiece),
              "written": lambda: askable.writer(place / "written", wordpiece, cell="gru"),
              "series": lambda: askable.series_classifier(place / "series", checkpoints["bert"]),
              "forecast": lambda: askable.forecaster(place / "forecast")}

    def address(kind: str) -> str:
        if kind not in served:
            served[kind] = page_of(open_asked(makers[kind]()))
            assert not served[kind].analytics_enabled
            served[kind].launch(server_name=HOST, server_port=free_port(), prevent_thread_lock=True, **launching())
        return f"http://{HOST}:{served[kind].server_port}"

    yield address
    for blocks in served.values():
        blocks.close(verbose=False)


def until(found, seconds: float = 60):
    """What `found` gives, once it is true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)
    return value


def ask(browser, text: str = "", file: str = "") -> str:
    """Type or upload, press the button; the HTML of the answer that comes."""
    until(lambda: browser.run("return document.querySelector('button.primary') !== null"))
    if file:
        browser.driver.find_element("css selector", "input[type=file]").send_keys(file)
        until(lambda: browser.run("return document.querySelector('.file-preview') !== null"))
    else:
        browser.driver.find_element("css selector", "textarea").send_keys(text)
    browser.driver.find_element("css selector", "button.primary").click()
    return until(lambda: browser.run(
        "const all = [...document.querySelectorAll('.answer')].at(-1); return all.innerText.trim() && all.innerHTML"))


def settled(browser) -> None:
    browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 2, "y": 2})
    time.sleep(0.5)  # a button's colour goes over slowly


@pytest.mark.parametrize(("kind", "given"), [("text", TEXT), ("masked", "the [MASK] of the sea"),
                                             ("causal", "the sea"), ("written", TEXT), ("series", ""),
                                             ("forecast", "")])
def test_every_page_holds(browser, pages, tmp_path, kind, given):
    """Wide and narrow, light and dark, with its answer: no complaint, nothing from elsewhere, texts stand out."""
    file = "" if given else str(tmp_path / "new.csv")
    if kind == "series":
        askable.series_table(file)
    elif kind == "forecast":
        askable.waves().to_csv(file, index=False)
    wrong = []
    for width, scheme in ((1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")):
        browser.open(pages(kind), width, scheme)
        until(lambda: browser.run("return document.querySelector('button.primary') !== null"))
        if (width, scheme) == (1280, "light"):
            wrong += browser.unreached()
        ask(browser, given, file)
        settled(browser)
        found = [*browser.inspect("widths"), *browser.inspect("contrasts"), *browser.inspect("names"),
                 *browser.complaints_of_the_console()]
        found += [each for each in browser.inspect("fetched") if f"fetched: {pages(kind)}" not in each]
        wrong += [f"{width} px, {scheme}: {each}" for each in found
                  if not any(odd in each for odd in ODD_OF_GRADIO)]
    assert browser.run("return window.planted === undefined"), "a script in a label or a text ran"
    assert not wrong, "\n".join(wrong)


def test_a_text_gets_its_classes_and_its_words_are_marked(browser, pages):
    browser.open(pages("text"))
    answer = ask(browser, TEXT)
    assert browser.run("return [...document.querySelectorAll('.bars td:first-child')].map(each => each.innerText)"
                       ".sort()") == sorted(askable.LABELS)
    assert browser.text(".marked") == TEXT and "<mark" in answer
    assert browser.run("return document.querySelectorAll('.answer script, .answer img').length") == 0


def test_blanks_prompts_and_refusals_are_answered(browser, pages):
    browser.open(pages("masked"))
    assert unescape(ask(browser, "the [MASK] of the sea")).count("“") == 5
    browser.open(pages("masked"))
    assert 'role="alert"' in ask(browser, "no blank")
    assert "Put [MASK] where a word is missing" in browser.text(".refusal")
    browser.open(pages("causal"))
    ask(browser, "the sea")
    assert browser.text(".written").startswith("the sea") and "tokens, ended by" in browser.text(".written + p")


def test_tables_get_classes_and_a_forecast_its_fan(browser, pages, tmp_path):
    browser.open(pages("series"))
    ask(browser, file=askable.series_table(tmp_path / "new.csv"))
    labels = browser.run("return [...document.querySelectorAll('.table td:first-child')].map(each => each.innerText)")
    assert len(labels) == 3 and set(labels) <= set(askable.LABELS)
    assert browser.run("return document.querySelectorAll('.picture svg').length") == 1
    browser.open(pages("forecast"))
    askable.waves().to_csv(tmp_path / "waves.csv", index=False)
    ask(browser, file=str(tmp_path / "waves.csv"))
    assert browser.run("return document.querySelectorAll('.table tbody tr').length") == 12
    assert "80 % band" in browser.text(".picture")


def listening_to_ctrl_c() -> None:
    """What runs in the background of a shell, tests too, passes on that it ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_recipe_serves_this_machine_alone_and_keeps_no_upload(checkpoints, tmp_path):  # noqa: F811
    port = free_port()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(small.ROOT), "GRADIO_SHARE": "True",
                   "GRADIO_SERVER_NAME": "0.0.0.0"}
    started = subprocess.Popen([sys.executable, "recipes/app.py", checkpoints["bert"], "--port", str(port)],
                               cwd=small.ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, preexec_fn=listening_to_ctrl_c)
    try:
        def head() -> str:
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)):
                    return ""
                asked.sendall(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
                return asked.recv(4096).decode()

        assert re.search("content-security-policy: default-src 'self'", until(head, 120))
        listening = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True)
        assert listening.returncode != 0 or re.findall(r"\S+:\d+", listening.stdout)[0] == f"127.0.0.1:{port}"
        assert list(tmp_path.glob("toolkit-app-*"))
    finally:
        started.send_signal(signal.SIGINT)
    said, _ = started.communicate(timeout=60)
    assert f"http://127.0.0.1:{port}" in said and "gradio.live" not in said and "Traceback" not in said
    assert not list(tmp_path.glob("toolkit-app-*"))
