"""One headless Chromium for all tests of pages, and what every page of ours must hold in it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WIDE, NARROW = 1280, 400
INSPECT = Path(__file__).with_name("inspect.js").read_text(encoding="utf-8")
MOST_TABS = 400


class Browser:
    """Chromium through selenium, with what the tests ask of it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page: str | Path, width: int = WIDE, scheme: str = "light") -> None:
        """A file or an address in a window of `width` pixels whose reader prefers light or dark."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                    {"features": [{"name": "prefers-color-scheme", "value": scheme},
                                                  {"name": "prefers-reduced-motion", "value": "reduce"}]})
        # A window that is not in front passes no focus on, and which one is differs from machine to machine.
        self.driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        self.driver.get_log("browser")  # what pages before this one said
        self.driver.get(page if isinstance(page, str) else page.resolve().as_uri())
        self.run("document.querySelectorAll('details').forEach(each => { each.open = true })")

    def run(self, script: str, *arguments: object) -> object:
        return self.driver.execute_script(script, *arguments)

    def inspect(self, question: str) -> list[str]:
        """The complaints of a function of inspect.js."""
        return self.run(f"{INSPECT}\nreturn {question}()")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                **({"text": text} if text and kind == "keyDown" else {})})

    def tab(self) -> None:
        self.press("Tab", 9)

    def enter(self) -> None:
        self.press("Enter", 13, "\r")

    def arrow(self, side: str) -> None:
        self.press(f"Arrow{side}", {"Left": 37, "Up": 38, "Right": 39, "Down": 40}[side])

    def text(self, selector: str) -> str:
        """What a reader sees of the first element."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def complaints_of_the_console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")
                if entry["level"] in ("SEVERE", "WARNING") and "favicon" not in entry["message"]]

    def unreached(self) -> list[str]:
        """Controls that Tab does not reach, and those that do not show that it did."""
        self.mark_what_can_be_clicked()
        self.run("document.activeElement?.blur(); window.scrollTo(0, 0); getSelection().empty()")
        self.run(f"{INSPECT}\nprepareTabs()")
        for _ in range(MOST_TABS):
            self.tab()
            if not self.run(f"{INSPECT}\nreturn noteFocus()"):
                return self.inspect("afterTabs")
        return [f"more than {MOST_TABS} stops of Tab"]

    def mark_what_can_be_clicked(self) -> None:
        """Elements that listen to clicks get the attribute data-clicked: no script can ask for its listeners."""
        command = self.driver.execute_cdp_cmd
        root = command("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        handle = command("DOM.resolveNode", {"nodeId": root})["object"]["objectId"]
        listeners = command("DOMDebugger.getEventListeners", {"objectId": handle, "depth": -1})["listeners"]
        nodes = [each["backendNodeId"] for each in listeners
                 if each["type"] in ("click", "mousedown", "pointerdown") and "backendNodeId" in each]
        ids = command("DOM.pushNodesByBackendIdsToFrontend", {"backendNodeIds": nodes})["nodeIds"] if nodes else []
        for node in ids:
            if node != root:
                command("DOM.setAttributeValue", {"nodeId": node, "name": "data-clicked", "value": ""})


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="pages are tested with selenium: the extra `browser`")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("pages are tested in Chromium: install chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--force-device-scale-factor=1"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="session")
def check_page(browser) -> Callable[[Path | str], None]:
    """`check_page(path)`: what holds for every page, wide and narrow, light and dark.

    No complaint of the console, nothing fetched, nothing wider than the window, text that can be read (4.5 : 1), names
    for what is seen and used, every control within reach of Tab with a visible focus; and of the labels with scripts in
    them that tests plant (`planted.PLANTED`), none ran.
    """

    def check(page: Path | str) -> None:
        wrong = []
        for width in (WIDE, NARROW):
            for scheme in ("light", "dark"):
                browser.open(page, width, scheme)
                found = [*browser.inspect("widths"), *browser.inspect("contrasts")]
                if (width, scheme) in ((WIDE, "light"), (NARROW, "dark")):
                    found += browser.unreached()
                if (width, scheme) == (WIDE, "light"):
                    found += [*browser.inspect("names"), *browser.inspect("fetched")]
                found += browser.complaints_of_the_console()
                wrong += [f"{width} px, {scheme}: {each}" for each in found]
        assert browser.run("return window.planted === undefined"), "a script in a label ran"
        assert not wrong, f"{page}:\n" + "\n".join(wrong)

    return check
