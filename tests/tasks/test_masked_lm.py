"""BERT's pretraining: which rows a run goes on with that an earlier version began."""

import json

import pytest

from toolkit.run.directory import Run
from toolkit.tasks.masked_lm import drawn_in_pairs_alone


@pytest.mark.parametrize(("data", "checkpoint", "expected"), [
    ({"tokens": {"train": 9}}, True, True),
    ({"tokens": {"train": 9}, "single_sentences": "drawn"}, True, False),
    ({"tokens": {"train": 9}}, False, False),  # nothing was learned yet: it begins as new ones do
    (None, False, False),
])
def test_a_run_that_an_earlier_version_began_goes_on_with_its_rows(tmp_path, data, checkpoint, expected):
    run = Run(tmp_path / "run")
    (run.checkpoint_dir / ("step-00000010" if checkpoint else ".")).mkdir(parents=True)
    if data:
        (run.directory / "manifest.json").write_text(json.dumps({"data": data}))
    assert drawn_in_pairs_alone(run) is expected
