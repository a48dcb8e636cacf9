"""The demo from end to end, with its own configs cut to a few steps."""

import json
import subprocess
import sys

import demo
import pytest
import small
import yaml

from toolkit.training.impl.distributed import make_accelerator


@pytest.mark.slow
def test_the_demo_leaves_what_it_promises(tmp_path, monkeypatch, capsys):
    for file in (small.ROOT / "recipes/configs/demo").glob("*.yaml"):
        settings = yaml.safe_load(file.read_text().replace("runs/demo", str(tmp_path / "demo")))
        settings["training"] |= {"max_steps": 6, "eval_steps": 3, "logging_steps": 3}
        if "tokenizer" in settings:
            settings["tokenizer"] = str(small.ROOT / settings["tokenizer"])
        if "seeds" in settings:
            settings["seeds"] = 2
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs" / file.name).write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(demo, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(demo, "DEMO", tmp_path / "demo")
    demo.show(demo.demo(make_accelerator()))
    summary = json.loads((tmp_path / "demo/summary.json").read_text())
    for key in ("mlm_loss", "unigram_entropy", "mlm_accuracy", "nsp_accuracy"):
        assert isinstance(summary["bert"][key], float)
    for key in ("bits_per_byte", "gzip_bits_per_byte", "xz_bits_per_byte"):
        assert 0 < summary["gpt"][key] < 10
    for task, baselines in (("text", ("tfidf", "majority")), ("series", ("logistic", "majority"))):
        for model in ("bert", "gpt"):
            for arm in ("pretrained", "random"):
                assert {"mean", "ci95"} <= set(summary[task][model][arm])
        assert all(0 < summary[task][name]["mean"] <= 1 for name in baselines)
    assert {"data", "bert", "gpt", "text", "series", "report", "total"} == set(summary["seconds"])
    assert len(list((tmp_path / "demo/plots").glob("*.png"))) == 6
    assert capsys.readouterr().out.splitlines()[-1] == f"All of it on one page: {tmp_path / 'demo/report.html'}"
    for name in ("", "bert", "gpt", "text", "series"):
        assert "<h2" in (tmp_path / "demo" / name / "report.html").read_text(encoding="utf-8"), name
    whole = (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    assert 'href="bert/report.html"' in whole and "too few seeds to be judged" in whole and "What came: " in whole
    script = ("import sys; from transformers import AutoModelForPreTraining as A, AutoTokenizer as T; "
              f"A.from_pretrained({str(tmp_path / 'demo/bert/model')!r}); "
              f"t = T.from_pretrained({str(tmp_path / 'demo/bert/model')!r}); assert t.is_fast; "
              "assert 'toolkit' not in sys.modules")
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    capsys.readouterr()
    demo.main([])  # finished: said, shown, and not run again
    assert "The demo has run" in capsys.readouterr().out
