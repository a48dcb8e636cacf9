"""The grid of an experiment: finished cells are kept, dry runs tell of the others and write nothing."""

import subprocess
from dataclasses import dataclass, field

import numpy as np
import pytest
import small
import yaml

from toolkit.experiments.grid import Cell, Grid, classified
from toolkit.publishing.card_facts import Facts
from toolkit.run.directory import Run, home
from toolkit.run.files import write_json
from toolkit.run.results import Verdict, read_results
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.observers.tracking import recorded


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator()


@dataclass
class Counted:
    """A fit that answers at once, and notes that it was asked."""

    asked: list = field(default_factory=list)

    def __call__(self, run, accelerator, seed, title):
        if run.result():
            return run.result()
        self.asked.append(title)
        return run.finish({"accuracy": 0.5, "predictions": [0, 1, seed], "validation": {"seconds": 2.0}})

    def tell(self, run, accelerator):
        self.asked.append(f"told of {run.directory.name}")


def cell(arm: str, seed: int, size: str = "40") -> Cell:
    return Cell(arm, seed, f"{arm}/{size}/seed-{seed}", size=size, reference="b" if arm == "a" else "")


def test_finished_cells_are_kept_and_rows_written(tmp_path, accelerator):
    fit, labels = Counted(), np.asarray([0, 1, 1])
    for _ in range(2):
        grid = Grid("e", Run(tmp_path), accelerator, sizes="labels")
        for arm in "ab":
            for seed in range(2):
                grid.fit(cell(arm, seed), fit, labels, parameters=7)
        grid.measure(Cell("majority", size="40"), lambda: {"accuracy": 0.25})
    assert fit.asked == [f"{arm}, 40 labels, seed {seed}" for arm in "ab" for seed in range(2)]
    grid.write([Verdict("a", "no better", size="40")])
    found = read_results(tmp_path)
    assert [row.metrics["accuracy"] for row in found.rows] == pytest.approx([2 / 3, 1, 2 / 3, 1, 0.25])
    first, last = found.rows[0], found.rows[-1]
    assert (first.run, first.reference, first.parameters, first.seconds, first.test_examples) == (
        "a/40/seed-0", "b", 7, 2.0, 3) and last.run == "" and last.seconds is None
    assert grid.rows[1].right.all() and found.rows[1].right is None


def test_a_dry_run_tells_of_what_is_not_finished_and_writes_nothing(tmp_path, accelerator, capsys):
    fit = Counted()
    Grid("e", Run(tmp_path), accelerator, sizes="labels").fit(cell("a", 0), fit)
    before = sorted(tmp_path.rglob("*"))

    def dry(arms: str) -> Grid:
        grid = Grid("e", Run(tmp_path, is_main=False), accelerator, sizes="labels", dry_run=True)
        for arm in arms:
            for seed in range(3):
                assert grid.fit(cell(arm, seed), fit) is None
            assert grid.measure(Cell("rule"), lambda: pytest.fail("was computed")) is None
        grid.tell()
        return grid

    fit.asked.clear()
    grid = dry("ab")
    out = capsys.readouterr().out
    assert "\na, 40 labels, 2 fits, each of them:" in out and "\nb, 40 labels, 3 fits, each of them:" in out
    assert fit.asked == ["told of seed-1", "told of seed-0"] and grid.rows == []
    assert sorted(tmp_path.rglob("*")) == before
    for seed in (1, 2):
        write_json(tmp_path / f"a/40/seed-{seed}/result.json", {})
    write_json(tmp_path / "a/40/seed-0/result.json", {})
    dry("a")
    assert "every fit is finished" in capsys.readouterr().out


def test_what_is_classified_once_is_kept(tmp_path):
    labels = np.asarray([0, 1])
    first = classified(Run(tmp_path / "rule"), lambda: np.asarray([0, 0]), labels)
    assert first["accuracy"] == 0.5 and first["predictions"] == [0, 0]
    assert classified(Run(tmp_path / "rule"), lambda: pytest.fail("was computed again"), labels) == first


# --- where fits lie ------------------------------------------------------------------------------------------------


def experiment(directory, **config):
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(directory / "manifest.json", {"commit": "abc"})
    return directory


@pytest.mark.parametrize("part", ["bert-pretrained/seed-0", "fits/a set/bert-pretrained/all/seed-0", "a/b/c/d/e/f/g"])
def test_a_fit_knows_its_experiment_however_deep_it_lies(tmp_path, part):
    """Trackers are told the configuration of the experiment."""
    place = experiment(tmp_path / "run", models={"bert": "x"}, training={"learning_rate": 0.25})
    (place / part).mkdir(parents=True)
    assert home(place / part) == place
    facts = recorded(place / part)
    assert facts["training"] == {"learning_rate": 0.25} and facts["run"]["commit"] == "abc"


@pytest.mark.parametrize(("part", "model", "random"), [
    ("bert-pretrained/seed-0", "bert", False), ("bert-random/seed-0", "bert", True),
    ("bert-large-tuned/40/seed-0", "bert-large", False), ("bert-pretrained-frozen/96/seed-0", "bert", False),
    ("bert-random-frozen/96/seed-0", "bert", True), ("bert-masked-patches/96/seed-0", "bert", True),
    ("bert-masked-patches/pretraining/seed-0", "bert", True), ("text-pretrained-frozen/96/seed-0", "text", False),
    ("fits/news/bert-random/all/seed-0", "bert", True), ("fits/bert-news/bert-large-pretrained/10/seed-0",
                                                         "bert-large", False), ("nlinear/96/seed-0", "", False)])
def test_a_fits_card_names_its_base_model(tmp_path, part, model, random):
    models = {"bert": "runs/bert/model", "bert-large": "ada/large"}
    place = experiment(tmp_path / "run", models=models, text_model="runs/text/model")
    (place / part).mkdir(parents=True)
    facts = Facts.of(place / part)
    assert (facts.model_name, facts.is_random) == (model, random)
    assert facts.base == (models | {"text": "runs/text/model", "": ""})[model]


# --- make compare-series -------------------------------------------------------------------------------------------


def test_what_make_compare_series_does_hangs_on_no_run_and_is_shown(tmp_path):
    def commands(*arguments: str) -> list[str]:
        done = subprocess.run(["make", "-n", "-f", str(small.ROOT / "Makefile"), "compare-series", *arguments],
                              cwd=tmp_path, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if "recipes/" in line or "--text_model" in line]

    (tmp_path / ".venv").mkdir()
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", ".venv/installed"):
        (tmp_path / name).touch()
    before = commands()
    (tmp_path / "runs/demo/bert/model").mkdir(parents=True)
    assert commands() == before and not any("text_model" in line for line in before)
    assert any("--text_model 'runs/demo/bert/model'" in line for line in commands("MODEL=runs/demo/bert/model"))
    rule = (small.ROOT / "Makefile").read_text().partition("\ncompare-series:")[2].partition("\n\n")[0]
    assert "\t@" not in rule, "its commands are shown"
