"""Pretraining that goes on: from another run's model with a schedule of its own, or beyond its budget."""

import contextlib
import dataclasses
import shutil
from pathlib import Path

import pretrain_bert
import pretrain_gpt
import pytest
import small
import torch
import yaml
from safetensors.torch import load_file

from toolkit.data.stores.bert_batches import BertBatches, MaskingConfig
from toolkit.data.stores.series import SeriesCorpusConfig
from toolkit.data.text.corpus import CorpusConfig
from toolkit.errors import UserError
from toolkit.models.text.bert import BertForPreTraining
from toolkit.publishing.card import regenerate
from toolkit.run.files import read_json
from toolkit.tasks.causal_lm import GptPretraining
from toolkit.tasks.pretraining import PretrainingConfig
from toolkit.tasks.settings import GptModelSection
from toolkit.tokenization.bins import SeriesBins, read_series_bins
from toolkit.tokenization.load import fingerprint, load_tokenizer
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig

TRAINING = {"batch_size": 8, "logging_steps": 2, "save_steps": 3}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with runs/bert and runs/gpt of six steps, and a second corpus."""
    root = tmp_path_factory.mktemp("continued")
    with contextlib.chdir(root):
        small.write_corpus(root / "corpus")
        small.write_corpus(root / "other", documents=12)
        for kind in ("wordpiece", "bytes"):
            small.write_spec(root / "specs", kind)
        bert("runs/bert", tokenizer="specs/wordpiece.yaml", training={"max_steps": 6})
        gpt("runs/gpt", tokenizer="specs/bytes.yaml", training={"max_steps": 6})
    return root


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def settings(kind, output_dir: str, training: dict, sources: str = "corpus", **values):
    return kind(**{"output_dir": output_dir, "data_dir": f"data-{sources}", "impl": ImplConfig(dtype="fp32"),
                   "corpus": CorpusConfig(sources=[sources], validation_share=0.3, min_characters=20),
                   "training": PretrainingConfig(**TRAINING, **training), **values})


def bert(output_dir: str, **values) -> dict:
    made = settings(pretrain_bert.PretrainBertConfig, output_dir, **{
        "masking": MaskingConfig(max_seq_length=32), "eval_rows": 16, **values})
    return pretrain_bert.pretrain_bert(made, make_accelerator())


def gpt(output_dir: str, **values) -> dict:
    made = settings(pretrain_gpt.PretrainGptConfig, output_dir, **{"block_size": 16, **values})
    return pretrain_gpt.pretrain_gpt(made, make_accelerator())


def final(run: str) -> dict[str, torch.Tensor]:
    return load_file(max(Path(run, "checkpoints").glob("step-*")) / "model.safetensors")


def test_going_on_starts_at_the_weights_and_with_the_tokenizer(here):
    """At a rate of next to nothing the model stays what it was; what its configuration says is the model's."""
    result = bert("runs/same", init_from="runs/bert", sources="other",
                  training={"max_steps": 1, "learning_rate": 1e-30, "muon_learning_rate": 1e-30})
    assert result["steps"] == 1
    before = load_file("runs/bert/model/model.safetensors")
    assert final("runs/same").keys() == before.keys()
    for name, tensor in final("runs/same").items():
        assert torch.equal(tensor, before[name]), name
    assert fingerprint(load_tokenizer("runs/same/model")) == fingerprint(load_tokenizer("runs/bert/model"))
    config, earlier = (read_json(Path(run, "model/config.json")) for run in ("runs/same", "runs/bert"))
    assert config == earlier
    written = yaml.safe_load(Path("runs/same/config.yaml").read_text())
    assert written["init_from"] == "runs/bert" and written["tokenizer"] == "runs/bert/model"
    assert written["model"]["max_position_embeddings"] == 32 and not list(Path("data-other").glob("wordpiece*"))


def test_going_on_is_not_beginning_anew(here):
    fresh = bert("runs/fresh", tokenizer="specs/wordpiece.yaml", training={"max_steps": 3}, seed=1)
    further = bert("runs/further", init_from="runs/bert/model", training={"max_steps": 3}, seed=1)
    assert further["mlm_loss"] < fresh["mlm_loss"]


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_what_was_broken_off_ends_in_the_same_bits(here, monkeypatch, family):
    train = {"bert": bert, "gpt": gpt}[family]
    options = {"init_from": f"runs/{family}", "sources": "other", "training": {"max_steps": 8}}
    train(f"runs/{family}-whole", **options)
    batches = BertBatches if family == "bert" else GptPretraining
    original = batches.losses if family == "gpt" else batches.batch
    drawn = iter(range(100))

    def failing(*args):
        if next(drawn) == 6:
            raise Stopped
        return original(*args)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(batches, "losses" if family == "gpt" else "batch", failing)
        train(f"runs/{family}-broken", **options)
    assert not Path(f"runs/{family}-broken/result.json").exists()
    assert list(Path(f"runs/{family}-broken/checkpoints").glob("step-*")), "it was stopped too early"
    train(f"runs/{family}-broken", **options)
    whole, broken = final(f"runs/{family}-whole"), final(f"runs/{family}-broken")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    assert small.records(Path(f"runs/{family}-whole")) == small.records(Path(f"runs/{family}-broken"))


def test_the_card_says_what_it_went_on_from(here):
    gpt("runs/named", init_from="runs/gpt", training={"max_steps": 1})
    card = regenerate("runs/named") and Path("runs/named/README.md").read_text()
    assert "trained further from `gpt`" in card and "from scratch" not in card
    assert "trained from scratch" in Path("runs/gpt/README.md").read_text()


def test_a_start_that_was_moved_is_the_same_start(here, tmp_path):
    shutil.copytree("runs/gpt/model", tmp_path / "one")
    options = {"training": {"max_steps": 2}, "data_dir": str(tmp_path / "data")}
    result = gpt("runs/moved", init_from=str(tmp_path / "one"), **options)
    (tmp_path / "one").rename(tmp_path / "two")
    assert gpt("runs/moved", init_from=str(tmp_path / "two"), **options) == result
    shutil.copytree("runs/gpt/model", tmp_path / "three")
    (tmp_path / "three/config.json").write_text((tmp_path / "two/config.json").read_text() + "\n")
    with pytest.raises(UserError, match="init_from = .*not known to be the same"):
        gpt("runs/moved", init_from=str(tmp_path / "three"), **options)


@pytest.mark.parametrize(("train", "values", "told"), [
    (bert, {"init_from": "runs/gpt"}, "runs/gpt: is a GPT .init_from.; this recipe trains a BERT"),
    (gpt, {"init_from": "runs/bert"}, "runs/bert: is a BERT .init_from.; this recipe trains a GPT"),
    (bert, {"init_from": "runs/nothing"}, "runs/nothing: no checkpoint here"),
    (bert, {"init_from": "runs/bert", "tokenizer": "runs/gpt/model"}, "is another tokenizer than that of runs/bert"),
    (bert, {"init_from": "runs/bert", "masking": MaskingConfig(max_seq_length=64)}, "the model has 32 positions"),
    (gpt, {"init_from": "runs/gpt", "block_size": 17}, "between 1 and the model's 16"),
    (gpt, {"init_from": "runs/gpt", "model": GptModelSection(preset="gpt-mini")},
     "has 2 layers of width 128 .init_from.; model.preset is gpt-mini: 4 layers of width 256"),
])
def test_what_does_not_go_together_is_refused(here, tmp_path, train, values, told):
    with pytest.raises(UserError, match=told):
        train(str(tmp_path / "run"), training={"max_steps": 1}, **values)
    assert not (tmp_path / "run").exists()


def test_a_model_without_the_head_for_next_sentences_will_do_where_none_are_asked(here, tmp_path):
    from transformers import BertForMaskedLM

    BertForMaskedLM.from_pretrained("runs/bert/model").save_pretrained(tmp_path / "mlm")
    load_tokenizer("runs/bert/model").save_pretrained(tmp_path / "mlm")
    options = {"init_from": str(tmp_path / "mlm"), "training": {"max_steps": 1}, "data_dir": str(tmp_path / "data")}
    with pytest.raises(UserError, match="lacks .* weights of a BertForPreTraining, such as bert.pooler"):
        bert(str(tmp_path / "with"), **options)
    alone = MaskingConfig(max_seq_length=32, next_sentence_prediction=False)
    assert "nsp_loss" not in bert(str(tmp_path / "without"), masking=alone, **options)
    BertForPreTraining.from_pretrained(tmp_path / "without/model")


def test_a_run_of_a_recipe_is_extended(here, capsys):
    """40 steps extended to 60 are 60 at once, with a rate that stays; the default schedule says why it cannot."""
    rest = {"tokenizer": "specs/bytes.yaml"}
    constant = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    gpt("runs/once", training={"max_steps": 60, **constant}, **rest)
    first = gpt("runs/longer", training={"max_steps": 40, **constant}, **rest)
    assert gpt("runs/longer", training={"max_steps": 40, **constant}, **rest) == first
    assert gpt("runs/longer", training={"max_steps": 60, **constant}, **rest)["steps"] == 60
    assert "it goes on from its checkpoint at step 40" in capsys.readouterr().out
    once, longer = final("runs/once"), final("runs/longer")
    assert all(torch.equal(once[name], longer[name]) for name in once)
    with pytest.raises(UserError, match="lr_scheduler_type wsd goes by the budget from 30% of the budget.*--init_from"):
        gpt("runs/gpt", training={"max_steps": 9}, **rest)
    assert dataclasses.asdict(PretrainingConfig(max_steps=6))["lr_scheduler_type"] == "wsd"


def test_a_gpt_of_series_goes_on_too(here, tmp_path):
    spec = tmp_path / "bins.yaml"
    spec.write_text("algorithm: series-bins\nvocab_size: 40\ncontext_length: 8\nhorizon: 4\n")
    options = {"series": SeriesCorpusConfig(sources=["generator:noisy-sines:20"]), "training": {"max_steps": 1},
               "data_dir": str(tmp_path / "data")}
    gpt(str(tmp_path / "first"), tokenizer=str(spec), **options)
    further = str(tmp_path / "further")
    gpt(further, init_from=str(tmp_path / "first"), **options)
    assert SeriesBins.from_pretrained(f"{further}/model") == read_series_bins(str(spec))
    other = tmp_path / "other.yaml"
    other.write_text(spec.read_text().replace("40", "41"))
    with pytest.raises(UserError, match="other.yaml: is another tokenizer than that of .*first"):
        gpt(str(tmp_path / "refused"), init_from=str(tmp_path / "first"), tokenizer=str(other), **options)
