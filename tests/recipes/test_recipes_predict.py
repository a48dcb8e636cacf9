"""predict.py asked about series: every class that a comparison leaves behind, loaded by a process that knows none."""

import json
import subprocess
import sys

import numpy as np
import predict
import pytest
import small
import torch
from transformers import BertConfig

from toolkit.data.series.dataset import z_normalise
from toolkit.data.series.tables import SeriesTable
from toolkit.errors import UserError
from toolkit.models.series.ablations import AblatedSeriesConfig, AblatedSeriesForClassification
from toolkit.models.series.patches import SeriesForClassification, SeriesForForecasting
from toolkit.models.small.keras_forda import KerasForda, KerasFordaConfig
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification

SHAPE = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                   max_position_embeddings=16)
NAMES = ["rest", "walk", "run"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: label for label, name in enumerate(NAMES)}}


def new_models():
    torch.manual_seed(0)
    ablated = AblatedSeriesConfig(backbone_config=SHAPE, attention="identity", patch_length=8, **LABELS)
    return {"series": SeriesForClassification.from_backbone(SHAPE, NAMES, pretrained=False, patch_length=8),
            "ablated": AblatedSeriesForClassification.new(ablated),
            "keras": KerasForda(KerasFordaConfig(length=32, **LABELS)),
            "perceptron": PerceptronForClassification(PerceptronConfig(series_length=32, hidden_sizes=[8], **LABELS)),
            "recurrent": RecurrentForClassification(RecurrentConfig(patch_length=4, hidden_size=8, **LABELS))}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model of each kind and with five series, once labelled by their number, once not at all."""
    place = tmp_path_factory.mktemp("predict")
    for name, model in new_models().items():
        model.save_pretrained(place / name)
    values = np.random.default_rng(0).normal(3, 2, (5, 32)).astype(np.float32)
    np.save(place / "values.npy", values)
    rows = [",".join(map(repr, row.tolist())) for row in values]
    (place / "new.csv").write_text("\n".join([",".join(f"t{t}" for t in range(32)), *rows]) + "\n")
    (place / "new.tsv").write_text("".join(f"?\t{row}\n".replace(",", "\t") for row in rows))
    return place


def ask(place, name, file="new.tsv", **options):
    return predict.predict(predict.PredictConfig(str(place / name), str(place / file), **options))


def probabilities(table):
    return table[[f"p({name})" for name in NAMES]].to_numpy()


def expected(model, values):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(values)[:, None]).logits.softmax(-1).numpy()


def test_every_class_is_loaded_by_a_process_that_has_imported_none(place):
    code = """
import json, sys
import predict
print(json.dumps({name: predict.predict(predict.PredictConfig(f"{sys.argv[1]}/{name}", f"{sys.argv[1]}/new.tsv",
                                                              batch_size=2)).to_dict("list") for name in sys.argv[2:]}))
"""
    models = new_models()
    done = subprocess.run([sys.executable, "-c", code, str(place), *models], cwd=small.ROOT / "recipes",
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    values = z_normalise(np.load(place / "values.npy"))
    for name, table in json.loads(done.stdout.splitlines()[-1]).items():
        truth = expected(models[name], values)
        assert table["series"] == [0, 1, 2, 3, 4] and table["label"] == [NAMES[label] for label in truth.argmax(1)]
        assert np.allclose(np.transpose([table[f"p({label})"] for label in NAMES]), truth, atol=1e-5), name


def test_a_table_needs_no_labels(place, capsys):
    again = ask(place, "series", "new.csv", data=SeriesTable(label_column=""))
    assert np.allclose(probabilities(again), probabilities(ask(place, "series")), atol=1e-5)
    again = ask(place, "series", "new.csv")
    assert np.allclose(probabilities(again), probabilities(ask(place, "series")), atol=1e-5)
    told = capsys.readouterr().err
    assert "has no column 'label' (data.label_column); its series are taken as unlabelled" in told
    assert "5 series, 1 channel, 32 values in columns t0, t1, t2, t3, t4, … (32)" in told


def test_another_sampling_rate_than_the_models_is_refused(place):
    SeriesForClassification.from_backbone(SHAPE, NAMES, pretrained=False, patch_length=8, sampling_rate=100
                                          ).save_pretrained(place / "of-100-hz")
    with pytest.raises(UserError, match="sampling_rate is 50 values a second, but .*of-100-hz learned series of 100"):
        ask(place, "of-100-hz", sampling_rate=50)
    assert len(ask(place, "of-100-hz", sampling_rate=100)) == len(ask(place, "of-100-hz")) == 5
    assert len(ask(place, "series", sampling_rate=50)) == 5, "it was told of none"


def test_series_are_normalised_as_in_training(place):
    model = SeriesForClassification.from_backbone(SHAPE, NAMES, pretrained=False, patch_length=8, normalisation="none")
    model.save_pretrained(place / "raw")
    truth = expected(model, np.load(place / "values.npy"))
    assert np.allclose(probabilities(ask(place, "raw")), truth, atol=1e-5)
    model.config.normalisation = "train"
    model.save_pretrained(place / "scaled-by-train")
    with pytest.raises(UserError, match="statistics of its training file .*which it does not hold"):
        ask(place, "scaled-by-train")


def test_what_does_not_fit_is_refused(place):
    (place / "long.tsv").write_text("1\t" + "\t".join("1 2 3 5".split() * 9) + "\n")
    with pytest.raises(UserError, match=r"long.tsv: expected values of shape \(batch, 1, 32\), not \(1, 1, 36\)"):
        ask(place, "keras", "long.tsv")
    SeriesForForecasting.from_backbone(SHAPE, pretrained=False, context_length=32, horizon=4, patch_length=8
                                       ).save_pretrained(place / "forecaster")
    with pytest.raises(UserError, match="does not hold the scale of what it learned.*Train it anew: make forecast"):
        ask(place, "forecaster")
    RecurrentForClassification(RecurrentConfig(num_labels=1, problem_type="regression")
                               ).save_pretrained(place / "regressor")
    assert list(ask(place, "regressor").columns) == ["value", "series"]
