"""docs/add-a-task.md: its example is run as it stands, broken off, resumed, and looked at."""

import re
import signal
import time

import pytest
import small


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example's file, and options that make it small."""
    root = tmp_path_factory.mktemp("task")
    page = (small.ROOT / "docs/add-a-task.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n# replaced_tokens\.py\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) < 150
    (root / "replaced_tokens.py").write_text(code, encoding="utf-8")
    months = "January February March April May June July August September October November December".split()
    (root / "months.txt").write_text("\n\n".join(  # in which what is out of place can be seen
        f"Year {year}: " + " ".join(months[(year + number) % 12] for number in range(60)) for year in range(200)))
    (root / "bytes.yaml").write_text(small.SPECS["bytes"].replace("300", "320"))
    options = {"data_dir": root / "data", "corpus.sources": root / "months.txt", "corpus.txt_documents": "blank-line",
               "corpus.min_characters": 20, "corpus.validation_share": 0.2, "tokenizer": root / "bytes.yaml",
               "block_size": 32, "eval_rows": 8, "training.max_steps": 160, "training.batch_size": 16,
               "training.eval_steps": 40, "training.save_steps": 10}
    return root, [word for key, value in options.items() for word in (f"--{key}", str(value))]


def start(root, options, name: str) -> small.Program:
    return small.Program(root / "replaced_tokens.py", ["--output_dir", str(root / name), *options],
                         root / f"{name}-output")


def test_the_example_learns_and_resumes_to_the_same_weights(example):
    root, options = example
    whole = start(root, options, "whole").ends(100)
    assert whole.code == 0, whole.err
    assert re.search(r"loss 0\.\d+, \d\d\.\d % of the tokens right", whole.out)
    logged = [record["loss"] for record in small.records(root / "whole") if "loss" in record]
    assert logged[-1] < 0.9 * logged[0]
    broken = start(root, options, "broken")
    while not (root / "broken/checkpoints/step-00000010").exists():
        assert broken.process.is_alive(), broken.ends()
        time.sleep(0.02)
    broken.process.kill()
    assert broken.ends().code == -signal.SIGKILL
    assert not (root / "broken/result.json").exists(), "it was over before it was killed"
    resumed = start(root, options, "broken").ends(100)
    assert resumed.code == 0 and "resuming at step" in resumed.out, resumed.err
    for file in ("model/model.safetensors", "checkpoints/step-00000160/model.safetensors"):
        assert small.digest(root / "broken" / file) == small.digest(root / "whole" / file)
    card = (root / "whole/README.md").read_text(encoding="utf-8")
    assert "that tells which tokens were replaced." in card and "pipeline_tag: token-classification" in card
