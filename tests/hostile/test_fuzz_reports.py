"""Files of finished runs, spoiled at random: `write_report` makes a page or refuses in a line, and what stood in the
files is text on the page.
"""

import itertools
import json
import random
import shutil
import warnings
from pathlib import Path

import mutation
import numpy as np
import planted
import pytest
import yaml
from old_runs import OLD

from toolkit.errors import UserError
from toolkit.report.run_report import write_report
from toolkit.run.results import Results, Row, write_results

READ = ("config.yaml", "manifest.json", "result.json", "rows.json", "metrics.jsonl", "samples.json", "summary.json",
        "sweep.json", "tokenizers.json", "README.md")
"""Names of files of which pages are made; besides every array and every table."""


def sampled(place: Path) -> None:
    """Forecasts sampled from a GPT of series, as `make sample-forecasts` leaves them."""
    place.mkdir()
    shape, draw = (4, 8), np.random.default_rng(0)
    np.savez(place / "table.npz", context=draw.random((4, 24)), future=draw.random(shape), linear=draw.random(shape),
             quantiles=draw.random((*shape, 3)), bands=draw.random((*shape, 4)), band_quantiles=[0.1, 0.25, 0.75, 0.9],
             **{"repeat-last": draw.random(shape), "seasonal naive": draw.random(shape)})
    arms = {name: {"mse": 1.0, "mae": 0.5} for name in ("repeat-last", "seasonal naive", "linear")}
    (place / "result.json").write_text(json.dumps({"data/table.csv": {
        "arms": {"GPT, median of samples": {"mse": 1.0, "mae": 0.5, "coverage": 0.8}, **arms}, "windows": 4,
        "nominal_coverage": 0.8, "file": "table", "paths": 10,
        "mae_saved": {"linear": {"mean": 0.1, "low": -0.1, "high": 0.3}}}}))
    (place / "config.yaml").write_text(yaml.safe_dump({"run": "runs/gpt-series", "num_samples": 10}))


def sweep(place: Path) -> None:
    """Two settings of a pretraining over two seeds, without the fits."""
    place.mkdir()
    rows = [Row("sweep", arm, seed, {"loss": 3.0 + seed}, reference="" if arm == "default" else "default")
            for arm in ("default", "learning_rate 0.002") for seed in range(2)]
    write_results(place, Results("sweep", "loss", rows))
    (place / "sweep.json").write_text(json.dumps({"metric": "loss", "settings": []}))


def learned_words(place: Path) -> None:
    """Word vectors, and tokenizers beside each other."""
    for name, config in (("words", {"methods": ["ppmi-svd"]}), ("tokenizers", {"second_sources": []})):
        (place / name).mkdir(parents=True)
        (place / name / "config.yaml").write_text(yaml.safe_dump(config))
    (place / "words/result.json").write_text(json.dumps({"ppmi-svd": {
        "vectors": 9, "analogies_right": 1, "analogies_asked": 1, "neighbours": {"row": [["column", 0.5]]},
        "analogies": {"row rows column columns": [["columns", 0.4]]}}}))
    (place / "tokenizers/tokenizers.json").write_text(json.dumps({"rows": [
        {"tokenizer": name, "text": "held-out", "vocab_size": 99, "bytes_per_token": 2.5} for name in "ab"]}))


def demo(place: Path) -> None:
    """The demo's folder, around four of the old runs."""
    place.mkdir()
    for name in ("bert", "gpt", "text", "series"):
        shutil.copytree(OLD / name, place / name, ignore=shutil.ignore_patterns("*.xz", "model"))
    (place / "summary.json").write_text(json.dumps({
        "bert": {"mlm_loss": 3.0, "unigram_entropy": 5.0, "mlm_accuracy": 0.4, "nsp_accuracy": 0.6, "nsp_ci95": 0.1,
                 "fill_mask": {"a [MASK].": [["b", 0.5]]}, "tokens_per_second": 5.0},
        "gpt": {"bits_per_byte": 1.9, "gzip_bits_per_byte": 2.4, "xz_bits_per_byte": 2.0,
                "primed_xz_bits_per_byte": 1.6, "samples": ["one"], "tokens_per_second": 5.0},
        "seconds": {"total": 3.0}}))


MADE = {"sampled": sampled, "sweep": sweep, "learned/words": learned_words, "learned/tokenizers": learned_words,
        "demo": demo}
RUNS = ("bert", "text", "text-multi-label", "series", "compare-text/words", "transfer", "forecast/chaos",
        "compare-series/generated", *MADE)
SCRIPTS = itertools.cycle(planted.PLANTED)


def spoiled(path: Path, draw: random.Random) -> bytes:
    """The file with some of its bytes or values changed; now and then with a script in place of a text."""
    data = path.read_bytes()
    if path.suffix != ".json" or draw.random() < 0.3:
        return mutation.bytes_spoiled(data, draw)
    value = json.loads(data)
    if draw.random() < 0.3 and (places := [(owner, key) for owner, key in mutation._places(value)
                                           if isinstance(owner[key], str)]):
        owner, key = draw.choice(places)
        owner[key] = next(SCRIPTS)
    else:
        value = mutation.value_spoiled(value, draw)
    return json.dumps(value).encode()


def lying_in(run: Path) -> list[list[Path]]:
    """The files that a page is made of, those of one name together: a run has many fits and one configuration."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*run.rglob("*"), *run.parent.glob(f"{run.name}*.json")]):
        if path.name in READ or path.suffix in (".npz", ".parquet") or path.parent == run.parent:
            found.setdefault(path.name, []).append(path)
    return list(found.values())


@pytest.mark.parametrize("tries", [3, mutation.at_length(20)])
@pytest.mark.parametrize("run", RUNS)
def test_a_page_or_a_line(tmp_path, monkeypatch, run, tries):
    if tries < 10:  # the letters of pictures take most of the time
        monkeypatch.setattr("toolkit.report.page.as_svg", lambda figure: '<svg width="9pt" height="9pt"></svg>')
    place, top = tmp_path / run, run.partition("/")[0]
    if run in MADE:
        MADE[run](tmp_path / top)
    else:
        shutil.copytree(OLD / top, tmp_path / top, ignore=shutil.ignore_patterns("*.xz", "model"))
    monkeypatch.chdir(tmp_path)
    assert "<h2" in write_report(place).read_text(encoding="utf-8")
    for number in range(tries):
        draw = random.Random(f"{run} {number}")
        path = draw.choice(draw.choice(lying_in(place)))
        whole = path.read_bytes()
        path.write_bytes(spoiled(path, draw))
        where = f"try {number}, {path.relative_to(tmp_path)}"
        try:
            with warnings.catch_warnings(), mutation.within(60):
                warnings.simplefilter("ignore")
                page = write_report(place).read_text(encoding="utf-8")
            assert page.count("<script>") == 1 and "<img" not in page, where
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 3000, where
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {str(error)[:300]}") from error
        path.write_bytes(whole)
