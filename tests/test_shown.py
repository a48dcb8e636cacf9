"""What people wrote is shown as they wrote it, whatever it is: over all of Unicode."""

import io
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser

import pytest
import small
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import BertForSequenceClassification, GPT2LMHeadModel

from toolkit.metrics.tabulate import table
from toolkit.models.text.bert import BertForPreTraining
from toolkit.shown import (
    Terminal,
    as_code,
    in_html,
    in_markdown,
    in_picture,
    in_script,
    on_terminal,
)

ANY = st.text(st.characters(exclude_categories=()), max_size=40)  # lone halves of characters among them
HARMFUL = ("\x1b[2J", "a\nb", "<!-- a", "</script><script>", "| a |", "$x_$", "_a", "`", "``` a", "## a", "[a](b)",
           "\u202eabc", "\u2028", "a\\|b", "می\u200cخواهم")


@pytest.fixture(scope="module")
def markdown():
    return pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")


def on_one_line(shown: str) -> bool:
    return len((shown + "x").splitlines()) == 1 and not any(
        unicodedata.category(character) in ("Cc", "Cs") for character in shown)


@given(ANY)
def test_every_way_of_showing_gives_one_line_without_control_characters(text):
    for show in (on_terminal, in_markdown, as_code, in_html, in_picture):
        assert on_one_line(show(text)), show.__name__
        show(text).encode()


@pytest.mark.parametrize("text", HARMFUL)
def test_harmful_ones(text):
    test_every_way_of_showing_gives_one_line_without_control_characters.hypothesis.inner_test(text)


def test_what_is_harmless_stays_as_it_is():
    for text in ("می\u200cخواهم", "naïve café", "饮食", "👩\u200d🔬", "tab-less, plain!"):
        assert on_terminal(text) == in_picture(text) == text
    assert on_terminal("a\x1b[31mb\nc") == r"a\x1b[31mb c"
    assert in_picture("_a") != "_a" and in_picture("_a").endswith("_a")
    assert len(in_picture("x" * 500)) == 80


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_comment(self, data):
        raise AssertionError("a comment")

    def handle_data(self, data):
        self.text += data


@given(ANY)
@example("\"><script>alert(1)</script>")
def test_in_html_it_is_text_and_nothing_but_text(text):
    parser = Text()
    parser.feed(f'<p title="{in_html(text)}">{in_html(text)}</p>')
    parser.close()
    assert parser.tags == [("p", {"title": on_terminal(text)})] and parser.text == on_terminal(text)


@given(st.lists(ANY))
@example(["</script>", "<!--", "]]>"])
def test_json_within_a_script_ends_no_script_and_reads_back(values):
    values = [value.encode("utf-8", "replace").decode() for value in values]
    written = in_script(json.dumps(values, ensure_ascii=False))
    assert "<" not in written and ">" not in written and json.loads(written) == values


@given(ANY)
@example("<!--")
@example("a|b")
@example("1. a")
@example("http://x.org <a@b.org>")
def test_in_markdown_it_is_text_and_nothing_but_text(markdown, text):
    shown = f"a {in_markdown(text)} b"
    tokens = markdown.parse(shown)
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in tokens[1].children} <= {"text", "text_special"}
    assert "".join(child.content for child in tokens[1].children) == f"a {on_terminal(text)} b"


@given(ANY)
@example("`")
@example("``a` ")
def test_a_code_span_is_one_and_holds_the_text(markdown, text):
    inline = markdown.parse(f"a {as_code(text)} b")[1].children
    assert [child.type for child in inline] == ["text", "code_inline", "text"]
    assert inline[1].content.strip() == on_terminal(text).strip()


@given(ANY)
@example("a|b")
@example("\\|")
@example("`|`")
def test_a_cell_of_a_table_is_one_cell(markdown, text):
    rows = [{"name": in_markdown(text), "n": 1}, {"name": as_code("b"), "n": 2}]
    tokens = markdown.parse(table(rows, markdown=True))
    cells = [tokens[place + 1] for place, token in enumerate(tokens) if token.type == "td_open"]
    assert len(cells) == 4
    written = "".join(child.content for child in cells[0].children)
    assert written.strip() == on_terminal(text).strip()
    assert len(table(rows).splitlines()) == 4


# --- on a terminal -------------------------------------------------------------------------------------------------

SAYS = "lamp \x1b[31mred\x1b[2J\x1b]0;own\x07\r\x9b1m\u202e\ud800 \tend\n"
PRINTS = """
import sys
from tqdm import tqdm
from toolkit import cli
from toolkit.shown import tell
def main(argv):
    text = sys.argv[1].encode().decode("unicode_escape")
    print(text, end="")
    sys.stdout.writelines([text])
    tell(text)
    print(text, file=sys.stderr, end="")
    for _ in tqdm(range(2), desc="bar", mininterval=0, ncols=60, nrows=24): pass
cli.run(main)
"""


def said_on_a_terminal(*command: str) -> tuple[int, bytes]:
    """Exit status, and all that a command writes to the terminal it runs on."""
    pid, descriptor = pty.fork()
    if not pid:
        os.execv(command[0], command)
    said = b""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # how Linux says that the other side has ended
            part = b""
        if not part:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said
        said += part


def test_long_lines_break_at_blanks_and_nothing_else_does(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((20, 24)))
    kept = io.StringIO()
    stream = Terminal(kept, breaks=True)
    print("  a line of words that is longer than twenty\nand /a/path/that/no/blank/is/in.json", file=stream)
    assert kept.getvalue() == ("  a line of words\n  that is longer\n  than twenty\n"
                               "and\n/a/path/that/no/blank/is/in.json\n")
    for text in ("a\ttable of words that are data\n", "the", " words of a model as they come, one by one", "\n", "\n"):
        kept.seek(0)
        kept.truncate()
        assert stream.write(text) == len(text) and kept.getvalue() == text


@given(ANY)
def test_a_terminal_gets_lines_and_tabs_and_nothing_else_that_steers(text):
    for steered in (False, True):
        kept = io.StringIO()
        stream = Terminal(kept, steered)
        assert stream.write(text) == len(text)
        kept.getvalue().encode()
        steering = {character for character in kept.getvalue() if unicodedata.category(character) in ("Cc", "Cs")}
        assert steering <= ({"\n", "\t", "\r", "\x1b"} if steered else {"\n", "\t"})
        assert not re.search(r"\x1b(?!\[[\d;]*[AKm])", kept.getvalue())
        if all(character in "\n\t" or character.isprintable() for character in text):
            assert kept.getvalue() == text


def test_a_whole_process_on_a_terminal_and_in_a_pipe(tmp_path):
    """A bar still draws; a pipe gets every byte as it is: there it is data."""
    command = (sys.executable, "-c", PRINTS, SAYS.replace("\ud800", "").encode("unicode_escape").decode())
    code, said = said_on_a_terminal(*command)
    assert code == 0 and said.count(b"lamp ") == 4 and b"bar: 100%" in said and b"\rbar" in said
    assert said.count(b"\\x1b[2J") == 4 and b"\x1b[2J" not in said and b"\x1b]" not in said and b"\x07" not in said
    assert said.count(b"\x1b[31m") <= 1  # on standard error, where libraries colour
    piped = subprocess.run(command, capture_output=True, check=True)
    assert piped.stdout == 2 * SAYS.replace("\ud800", "").encode()


@pytest.mark.parametrize("recipe, options", [
    ("generate", ["--prompt", "the gate", "--max_new_tokens", "8"]), ("chat", []), ("predict", ["texts.csv"])])
def test_tokens_labels_and_texts_of_a_stranger(recipe, options, checkpoints, tmp_path):
    """Streamed, in a table, and in turn."""
    kind = "bert" if recipe == "predict" else "gpt"
    model = tmp_path / "model"
    shutil.copytree(checkpoints[kind], model)
    hostile = "\x1b[2J\x1b]0;own\x07"
    if kind == "bert":
        labels = {0: f"a{hostile}", 1: f"b{hostile}"}
        BertForSequenceClassification.from_pretrained(model, id2label=labels, label2id={
            label: number for number, label in labels.items()}).save_pretrained(model)
        (tmp_path / "texts.csv").write_text(f"text\nthe gate {hostile}\n")
    else:
        gpt = GPT2LMHeadModel.from_pretrained(model)
        tokenizer = json.loads((model / "tokenizer.json").read_text())
        escape = tokenizer["model"]["vocab"]["ě"]  # byte-level BPE's letter for the escape character
        with torch.no_grad():  # which it says again and again
            gpt.transformer.ln_f.weight.zero_()
            gpt.transformer.ln_f.bias.copy_(100 * gpt.transformer.wte.weight[escape])
        gpt.save_pretrained(model)
    shell = f"cd {tmp_path} && {'echo hello | ' if recipe == 'chat' else ''}{sys.executable} {small.ROOT}/recipes/" \
            f"{recipe}.py model {shlex.join(options)}"
    code, said = said_on_a_terminal("/bin/sh", "-c", shell)
    assert code == 0 and b"\\x1b" in said, said
    assert b"\x1b" not in said and b"\x07" not in said


HOSTILE = "\x1b[2J\x1b]0;own\x07"


def on_a_terminal(tmp_path, recipe: str, *options: str) -> tuple[int, bytes]:
    shell = f"cd {tmp_path} && {sys.executable} {small.ROOT}/recipes/{recipe}.py {shlex.join(options)}"
    code, said = said_on_a_terminal("/bin/sh", "-c", shell)
    assert b"\x1b[2J" not in said and b"\x1b]" not in said and b"\x07" not in said, said
    return code, said


def test_blanks_of_a_stranger(checkpoints, tmp_path):
    """A text, and the token that its model likes best."""
    model = tmp_path / "model"
    shutil.copytree(checkpoints["bert"], model)
    bert = BertForPreTraining.from_pretrained(model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    token = max(vocabulary, key=vocabulary.get)
    with torch.no_grad():
        bert.cls.predictions.bias[vocabulary[token]] = 100
    bert.save_pretrained(model)
    vocabulary[f"a{HOSTILE}"] = vocabulary.pop(token)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    code, said = on_a_terminal(tmp_path, "fill_mask", "model", "--text", f"the {HOSTILE} [MASK]")
    assert code == 0 and said.count(rb"\x1b[2J\x1b]0;own\x07") == 2, said


def test_a_batch_of_a_stranger(tmp_path):
    (tmp_path / "corpus").mkdir()
    for number in range(6):
        (tmp_path / f"corpus/{number}.txt").write_text(f"The {number}th gate {HOSTILE} was open. " * 20)
    (tmp_path / "bytes.yaml").write_text("algorithm: byte\n")
    (tmp_path / "gpt.yaml").write_text(
        "output_dir: run\ndata_dir: data\ntokenizer: bytes.yaml\nblock_size: 64\n"
        "corpus: {sources: [corpus], validation_share: 0.4}\ntraining: {max_steps: 5, batch_size: 2}\n")
    code, said = on_a_terminal(tmp_path, "show_batch", "--pretraining", "gpt.yaml")
    assert code == 0 and rb"\x1b[2J\x1b]0;own\x07" in said, said


@pytest.mark.parametrize("options", [
    ["--config", "bad.yaml"], ["--config", "key.yaml"], ["--config", f"{HOSTILE}.yaml"], [f"--{HOSTILE}", "1"],
    ["--seed", HOSTILE], ["a", HOSTILE]])
def test_errors_of_a_configuration_of_a_stranger(tmp_path, options):
    (tmp_path / "key.yaml").write_text(f"seed: 3\n{json.dumps(HOSTILE)}: 4\n")
    (tmp_path / "bad.yaml").write_bytes(f"a: [1\n{HOSTILE}: 4\n".encode())
    code, said = on_a_terminal(tmp_path, "generate", *options)
    assert code == 2 and said.startswith(b"error: ") and b"Traceback" not in said, said
    assert len(said.strip().splitlines()) <= 4, "one line, which a narrow terminal breaks at blanks"
