"""README says what is there: its file map, its commands and its targets."""

import re
import subprocess

import small

README = (small.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_file_map_names_every_module_and_no_other():
    block = README.split("```\ntoolkit/\n")[1].split("```")[0]
    named, folder = set(), ""
    for line in block.splitlines():
        if match := re.match(r"(  |    )(\w+(?:/|\.py))\s*", line):
            depth, name = len(match[1]), match[2]
            if name.endswith("/"):
                folder = name
            else:
                named.add((folder if depth == 4 else "") + name)
    present = {str(path.relative_to(small.ROOT / "toolkit")) for path in (small.ROOT / "toolkit").rglob("*.py")
               if path.name != "__init__.py"}
    assert named == present


def test_every_make_target_in_the_documents_exists():
    targets = set(re.findall(r"^([a-z-]+):", (small.ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "recipes/README.md"):
        used = set(re.findall(r"(?:^|`)make ([a-z-]+)", (small.ROOT / document).read_text(encoding="utf-8"),
                              re.MULTILINE))
        assert used and used <= targets, used - targets


def test_every_config_in_the_documents_exists():
    for document in ("README.md", "recipes/README.md", "Makefile", *map(str, small.ROOT.glob("recipes/*.py"))):
        for path in re.findall(r"recipes/configs/[\w./-]+\.yaml", (small.ROOT / document).read_text(encoding="utf-8")):
            assert (small.ROOT / path).exists(), path


def test_make_alone_lists_every_public_target():
    listed = subprocess.run(["make"], cwd=small.ROOT, capture_output=True, text=True, check=True).stdout
    assert {"demo", "test", "pretrain-bert", "nano-gpt", "clean"} <= {line.split()[0] for line in listed.splitlines()}


def test_importing_tokenizers_from_the_root_gives_the_library():
    assert not list((small.ROOT / "tokenizers").rglob("*.py"))
