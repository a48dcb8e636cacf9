"""The pages say what is there: every command parses, and those that need nothing but a checkout are really run.

Pages are README.md, recipes/README.md and docs/. Of their fenced blocks `yaml` ones are files, named by the comment in
their first line; `sh` and `python` ones are run in the page's order, in one directory that looks like a checkout in
which `make demo` has run (with small models). A comment on the line before a block changes that:

    <!-- slow -->                   run by `make test-slow` alone, training for two steps where it names no budget

`make test-slow` also runs every file with the command that uses it, without the options that keep it short here.
    <!-- needs: data -->            only parsed; also: time, network, gpu, cluster
    <!-- tested by tests/x.py -->   run by that test
"""

import functools
import importlib
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import small

from toolkit import config
from toolkit.errors import UserError
from toolkit.remedy import command_in

PAGES = sorted(path.relative_to(small.ROOT).as_posix() for path in (
    small.ROOT / "README.md", small.ROOT / "recipes/README.md", *small.ROOT.glob("docs/**/*.md")))
MARKS = r"slow|needs: (?:data|time|network|gpu|cluster)|tested by [\w./, -]+"
MAKE = ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/installed"]  # which is no concern of these tests
OTHER_PROGRAMS = {  # options and keys in the text that are not ours, each of the program named
    "--help": "every recipe", "--max_restarts": "accelerate", "--multi_gpu": "accelerate",
    "--num_processes": "accelerate", "--machine_rank": "accelerate", "--main_process_ip": "accelerate",
    "--cpu": "accelerate", "--real_data": "nanoGPT",
    "--requirement": "pip-audit", "--no": "pip-audit", "--disable": "pip-audit"}
WITHOUT_OPTIONS = ("demo",)
RECIPES = [path.stem for path in sorted(small.ROOT.glob("recipes/*.py"))
           if "config.parse(" in path.read_text(encoding="utf-8")]


@dataclass
class Block:
    line: int
    kind: str
    mark: str
    text: str


def read(page: str) -> str:
    return (small.ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    found, lines = [], read(page).splitlines()
    start = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if start is None:
            start = number
            continue
        before = re.fullmatch(r"<!-- (.*) -->", lines[start - 1])
        mark = before[1] if before else ""
        assert re.fullmatch(MARKS, mark) or not mark, f"{page}:{start}: no such mark: {mark}"
        found.append(Block(start + 1, lines[start].strip("` "), mark, "\n".join(lines[start + 1:number])))
        start = None
    assert start is None, f"{page}:{start}: a block that does not end"
    return found


def commands(text: str) -> list[str]:
    """The commands of a shell block, one each, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    bare = [re.sub(r"(^|\s)#\s.*", "", line).strip() for line in lines]
    return [command.strip() for line in bare for command in line.split(" && ") if command.strip()]


def inline(page: str) -> list[str]:
    """What stands between single backquotes in the text, tables included."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def expand(command: str, directory: Path) -> list[str]:
    """What is really started: of `make`, the lines that it would run."""
    if not command.startswith("make"):
        return [command]
    done = subprocess.run([*MAKE, *shlex.split(command)[1:]], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return [line.strip() for line in done.stdout.replace("\\\n", " ").splitlines() if line.strip()]


def recipe_of(command: str) -> tuple[str, list[str]] | None:
    """Name and arguments of the recipe that a command starts, whichever way it does."""
    words = shlex.split(command)
    for place, word in enumerate(words):
        if match := re.fullmatch(r"recipes/(\w+)\.py", word):
            assert (small.ROOT / word).is_file(), f"{command}: there is no {word}"
            return match[1], words[place + 1:]
    return None


class Parsed(BaseException):
    """Raised where a recipe has parsed its arguments."""


def check_arguments(command: str, directory: Path, monkeypatch) -> None:
    """The recipe's own parser takes the arguments; its files are looked for in `directory`."""
    found = recipe_of(command)
    if found is None:
        return
    name, arguments = found
    if name in WITHOUT_OPTIONS:
        assert not arguments, command
        return
    with monkeypatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(config, "parse", parse_only)
        with pytest.raises(Parsed):
            importlib.import_module(name).main(arguments)


real_parse = config.parse


def parse_only(*arguments, **options):
    real_parse(*arguments, **options)
    raise Parsed


@functools.cache
def known_options() -> set[str]:
    """Every dotted key that some recipe takes, and its parts: `training`, `max_steps`, `training.max_steps`."""
    return set().union(*map(options_of, RECIPES))


def checkout(directory: Path) -> Path:
    """A directory in which the commands of a page find what they find in a checkout."""
    directory.mkdir()
    for name in ("recipes", "tokenizers", "tests", "toolkit", "docs", "Makefile", "README.md", ".venv"):
        os.symlink(small.ROOT / name, directory / name)
    return directory


def write_files(page: str, directory: Path) -> None:
    """The page's YAML blocks under the names that they bear."""
    for block in blocks(page):
        if block.kind == "yaml":
            name = re.match(r"# (\S+\.yaml)\b", block.text)
            assert name, f"{page}:{block.line}: begin with a comment that names the file, as in '# mine.yaml'"
            assert read(page).count(name[1]) > 1, f"{page}:{block.line}: no command uses {name[1]}"
            (directory / name[1]).write_text(block.text + "\n", encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page, tmp_path, monkeypatch):
    directory = checkout(tmp_path / "page")
    write_files(page, directory)
    written = [command for block in blocks(page) if block.kind == "sh" for command in commands(block.text)]
    named = [code for code in inline(page) if re.match(r"make( |$)|\.venv/bin/python recipes/", code)]
    named = set(named) - set(written)
    for command in dict.fromkeys([*written, *sorted(named)]):
        word = command.split()[1] if " " in command else ""
        assert not command.startswith("make ") or f"\n{word}:" in read("Makefile"), f"{page}: {command}: no such target"
        if command == f"make {word}" and command in named:
            continue  # the target's name: it may want more to be run
        for started in expand(command, directory):
            check_arguments(started, directory, monkeypatch)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_and_file_in_the_text_exists(page):
    options = known_options()
    sections = {key.split(".")[0] for key in options if "." in key}
    for code in inline(page):
        given = [] if re.match(r"make |train.py", code) else re.findall(r"(?:^| )(--[a-z]\w*(?:\.\w+)*)", code)
        for option in given:
            assert option in OTHER_PROGRAMS or option[2:] in options, f"{page}: `{code}`: there is no {option}"
        key = re.match(r"(\w+)\.([\w.]+)(?=: |$)", code)
        if key and key[1] in sections and key[2] not in ("py", "yaml"):
            assert key[0] in options, f"{page}: `{code}`: there is no such key"
    for path in re.findall(r"\b(?:recipes|tokenizers|tests|toolkit)/[\w./-]*[\w/]", read(page)):
        assert (small.ROOT / path).exists(), f"{page}: there is no {path}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (small.ROOT / page).parent / file if file else small.ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            names = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in names, f"{page}: {target} is none of {sorted(names)}"


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_blocks_name_are_there(page):
    for block in blocks(page):
        if block.mark.startswith("tested by "):
            for path in block.mark.removeprefix("tested by ").split(", "):
                assert (small.ROOT / path).is_file(), f"{page}:{block.line}: {path}"


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """What `make demo` leaves, of a small corpus and few steps: runs/demo/bert and runs/demo/gpt."""
    directory = checkout(tmp_path_factory.mktemp("docs") / "demo")
    small.write_corpus(directory / "corpus")
    letters = "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. "
    (directory / "corpus/letters.txt").write_text(20 * letters)  # or the pages' texts would be unknown words
    for kind, spec, extra in (("bert", "wordpiece", ["--eval_rows", "16"]), ("gpt", "bytes", [])):
        corpus = ["--corpus.sources", "corpus", "--corpus.validation_share", "0.2", "--corpus.min_characters", "20"]
        steps = ["--training.max_steps", "3", "--training.save_steps", "0", "--training.emissions", "false"]
        small.write_spec(directory, spec)
        tokenizer = ["--tokenizer", f"{spec}.yaml"]
        done = run_in(directory, f"pretrain_{kind}", [
            "--config", f"recipes/configs/demo/{kind}.yaml", *corpus, *tokenizer, *steps, *extra])
        assert done.code == 0, done.err
    return directory / "runs"


def shortened(command: str) -> str:
    """With a budget of two steps where the recipe trains and the command names none."""
    name, arguments = recipe_of(command)
    keys = options_of(name)
    given = {argument.removeprefix("--").partition("=")[0] for argument in arguments}
    short = [] if any(f"training.max_{unit}" in given for unit in ("steps", "tokens", "minutes")) else [
        ("training.max_steps", "2"), ("pretraining.max_steps", "2"), ("eval_rows", "16")]
    return command + "".join(f" --{key} {value}" for key, value in [*short, ("seeds", "1")]
                             if key in keys and key not in given)


@functools.cache
def options_of(recipe: str) -> set[str]:
    """Every dotted key that the recipe takes."""
    found = set()

    def note(kind, *_):
        found.update(config.all_keys(kind))
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "parse", note)
        with pytest.raises(Parsed):
            importlib.import_module(recipe).main([])
    return found


def run_in(directory: Path, recipe: str, arguments: list[str]) -> small.Finished:
    """`small.run_recipe`, from another working directory."""
    process = small.start_server().Process(target=_child, args=(directory, recipe, arguments))
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
        process.join()
    return small.Finished(process.exitcode, *((directory / f"{name}.txt").read_text() for name in ("out", "err")))


def _child(directory: Path, recipe: str, arguments: list[str]) -> None:
    os.chdir(directory)
    small._child(str(small.ROOT / f"recipes/{recipe}.py"), arguments, "out.txt", "err.txt", {}, None, directory)


def python_in(directory: Path, code: str) -> small.Finished:
    script = directory / "block.py"
    script.write_text(code, encoding="utf-8")
    process = small.start_server().Process(target=_python, args=(directory,))
    process.start()
    process.join(120)
    return small.Finished(process.exitcode, *((directory / f"{name}.txt").read_text() for name in ("out", "err")))


def _python(directory: Path) -> None:
    os.chdir(directory)
    small._child("block.py", [], "out.txt", "err.txt", {}, None, directory)


def follow(page: str, directory: Path, demo: Path, slow: bool) -> None:
    """Run the page's blocks; `slow` ones only if told so."""
    checkout(directory)
    shutil.copytree(demo, directory / "runs")
    write_files(page, directory)
    for block in blocks(page):
        if (block.mark and block.mark != "slow") or (block.mark == "slow" and not slow):
            continue
        where = f"{page}:{block.line}"
        if block.kind == "python":
            done = python_in(directory, block.text)
            assert done.code == 0, f"{where}:\n{done.err}"
        elif block.kind == "sh":
            for written in commands(block.text):
                for command in expand(written, directory):
                    short = block.mark == "slow" and command.startswith(".venv/bin/python recipes/")
                    run_command(shortened(command) if short else command, directory, f"{where}: {written}", short)
    if slow:
        for written in as_printed(page):
            for command in expand(written, directory):
                run_command(shortened(f"{command} --output_dir runs/as-printed/{recipe_of(command)[0]}"), directory,
                            f"{page}: {written}", True)


def as_printed(page: str) -> list[str]:
    """Of the commands that are run with a YAML file of the page and further options, those without the options."""
    names = {re.match(r"# (\S+)", block.text)[1] for block in blocks(page) if block.kind == "yaml"}
    found = [found[0] for block in blocks(page) if block.kind == "sh" and not block.mark for command in
             commands(block.text) if (found := re.match(r"make [\w-]+ CONFIG=(\S+)(?= ARGS=)", command)) and
             found[1] in names and "train-tokenizer" not in command]
    return list(dict.fromkeys(found))


def run_command(command: str, directory: Path, where: str, as_typed: bool = False) -> None:
    """as_typed: by a shell, where a recipe would be run in a process that has its libraries already."""
    if command.startswith(".venv/bin/python recipes/") and not as_typed:
        done = run_in(directory, *recipe_of(command))
        assert done.code == 0, f"{where}:\n{done.out}\n{done.err}"
        return
    environment = os.environ | {"PYTHONPATH": str(small.ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, shell=True, cwd=directory, env=environment, capture_output=True, text=True,
                          timeout=900 if as_typed else 300)
    assert done.returncode == 0, f"{where}:\n{done.stdout}\n{done.stderr}"


def is_run(block: Block, slow: bool) -> bool:
    return block.kind in ("sh", "python") and block.mark == ("slow" if slow else "")


@pytest.mark.parametrize("page", [page for page in PAGES if any(is_run(block, False) for block in blocks(page))])
def test_a_page_can_be_followed(page, tmp_path, demo):
    follow(page, tmp_path / "page", demo, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if as_printed(page)
                                  or any(is_run(block, True) for block in blocks(page))])
def test_a_page_can_be_followed_to_the_end(page, tmp_path, demo):
    follow(page, tmp_path / "page", demo, slow=True)


def test_pages_are_short():
    for page in set(PAGES) - {"docs/layout.md"}:  # the map: a line a module, whose number another test bounds
        assert len(read(page).splitlines()) <= 250, page


@pytest.mark.parametrize("config_file", sorted((small.ROOT / "recipes/configs").glob("*.yaml")),
                         ids=lambda path: path.stem)
def test_the_command_in_a_config_is_one(config_file, tmp_path, monkeypatch):
    """And its first line, where who opens it sees it."""
    first = config_file.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# {command_in(config_file)}"
    for started in expand(command_in(config_file), small.ROOT):
        check_arguments(started, checkout(tmp_path / "page"), monkeypatch)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_bare_recipe_starts_or_ends_in_a_command_that_would(recipe, tmp_path, monkeypatch):
    directory = checkout(tmp_path / "page")
    with monkeypatch.context() as patch:
        patch.setattr(config, "parse", parse_only)
        try:
            importlib.import_module(recipe).main([])
        except Parsed:
            return
        except UserError as error:
            command = re.search(r" For example: (.*)$", str(error))[1]
    started = [words for words in expand(command, directory) if recipe_of(words)]  # app's target installs first
    assert started
    for words in started:
        assert recipe_of(words)[0] == recipe
        check_arguments(words, directory, monkeypatch)


def test_every_config_that_makefile_and_recipes_name_exists():
    for document in ("Makefile", *(f"recipes/{path.name}" for path in small.ROOT.glob("recipes/*.py"))):
        for path in re.findall(r"recipes/configs/[\w./-]+\.yaml", read(document)):
            assert (small.ROOT / path).exists(), f"{document}: {path}"


def test_importing_tokenizers_from_the_root_gives_the_library():
    assert not list((small.ROOT / "tokenizers").rglob("*.py"))
