"""A series classifier's answers to a file are those that were scored, whatever the model, the scale, the company."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, GPT2Config

from toolkit.data.series.dataset import SeriesBatches
from toolkit.data.series.splits import SeriesDataSection, load_splits
from toolkit.data.series.tables import SeriesTable
from toolkit.experiments.series import CompareSeriesConfig, LabelledSet, new_model
from toolkit.inference.predict import PredictConfig, predict
from toolkit.inference.series_answers import answer_series
from toolkit.models.series.patches import SeriesForClassification
from toolkit.run.directory import Run
from toolkit.tasks.classification import FineTuningConfig, fine_tune
from toolkit.training.impl.precision import ImplConfig

NAMES = ("fast", "rest", "slow")
SHAPES = {"bert": BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                             max_position_embeddings=40),
          "gpt": GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=40)}
LONG = SeriesTable(series_column="id", time_column="time")


def drawn(count: int, seed: int, uneven: bool) -> pd.DataFrame:
    """Series of two channels with a row a time; where uneven, of 21 to 40 values with gaps, and longer for test."""
    random, rows = np.random.default_rng(seed), []
    for number in range(count):
        kind, length = number % 3, int(random.integers(21, 41)) + 4 * seed if uneven else 32
        time = np.arange(length)
        heart = np.zeros(length) if kind == 1 else 70 + 5 * np.sin(time / (1 if kind else 3) + random.uniform(0, 6))
        breath = random.normal(1e3 * (kind - 1), 40, length)
        cells = pd.DataFrame({"id": f"patient {number}", "time": time, "heart": heart + random.normal(0, 1, length),
                              "breath": breath, "ward": "east" if number % 2 else "west", "label": NAMES[kind]})
        if uneven and number % 2:
            cells.loc[random.integers(1, length - 1, 3), "heart"] = np.nan
        rows.append(cells)
    return pd.concat(rows)


def wide(count: int, seed: int) -> pd.DataFrame:
    table = drawn(count, seed, False).pivot(index="id", columns="time", values="heart").add_prefix("t").reset_index()
    return table.assign(label=[NAMES[int(name.split()[1]) % 3] for name in table["id"]]).drop(columns="id")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Training and test files by kind."""
    place = tmp_path_factory.mktemp("series")
    for kind, uneven in (("even", False), ("uneven", True)):
        for seed, split in enumerate(("train", "test")):
            drawn(15, seed, uneven).drop(columns="ward").to_csv(place / f"{kind}-{split}.csv", index=False)
    drawn(15, 1, True).to_csv(place / "ward.csv", index=False)
    for seed, split in enumerate(("train", "test")):
        wide(15, seed).to_csv(place / f"wide-{split}.csv", index=False)
    return place


def section(files, kind: str, normalisation: str = "series") -> SeriesDataSection:
    table = {} if kind == "wide" else vars(LONG)
    return SeriesDataSection(**table, train=str(files / f"{kind}-train.csv"), test=str(files / f"{kind}-test.csv"),
                             missing="mask", normalisation=normalisation)


def scored(directory, make_model, parts, accelerator) -> np.ndarray:
    """(n, classes) outputs by which a fit of a few steps was scored on test."""
    config = FineTuningConfig(max_steps=4, batch_size=8, learning_rate=0.01, eval_steps=2)
    run = Run(directory)
    fine_tune(make_model, *(SeriesBatches(part, 8, 0) for part in parts), config, ImplConfig(), run, accelerator, 0,
              "series", keep_model=True)
    with np.load(run.directory / "outputs.npz") as outputs:
        assert np.isfinite(outputs["test"]).all() and outputs["test"].std(0).max() > 1e-4, "they differ by series"
        return outputs["test"]


def asked(directory, file, wide: bool = False, **options) -> pd.DataFrame:
    return predict(PredictConfig(str(directory / "model"), str(file), data=SeriesTable() if wide else LONG, **options))


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table[[f"p({name})" for name in NAMES]].to_numpy()


def patches(parts, backbone: str, **settings):
    train = parts[0]
    return lambda: SeriesForClassification.from_backbone(
        SHAPES[backbone], train.label_names, pretrained=False, patch_length=8, num_channels=train.values.shape[1],
        **settings, **train.learned.as_config())


COVERING = [("bert", "uneven", "series", {}), ("gpt", "uneven", "train", {}), ("bert", "even", "train", {}),
            ("gpt", "even", "none", {"instance_norm": True}), ("bert", "uneven", "none", {"channels": "independent"}),
            ("gpt", "uneven", "train", {"embedding": "convolution", "pooling": "layers"}),
            ("bert", "wide", "train", {"pooling": "layers"}), ("gpt", "wide", "series", {})]


@pytest.mark.parametrize(("backbone", "kind", "normalisation", "settings"), COVERING)
def test_the_test_file_is_answered_as_it_was_scored(files, tmp_path, accelerator, backbone, kind, normalisation,
                                                    settings):
    parts = load_splits(section(files, kind, normalisation), 0)
    truth = scored(tmp_path, patches(parts, backbone, **settings), parts, accelerator)
    for batch_size in (1, 4, 64):
        table = asked(tmp_path, files / f"{kind}-test.csv", kind == "wide", batch_size=batch_size)
        np.testing.assert_allclose(probabilities(table), truth, atol=1e-5)
        assert table["label"].tolist() == [NAMES[label] for label in truth.argmax(1)]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    test = parts[2]
    inputs = {"values": test.values} | ({} if test.observed is None else {"observed": test.observed})
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(part) for name, part in inputs.items()}).logits
    np.testing.assert_allclose(logits.softmax(-1), truth, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", SHAPES)
@pytest.mark.parametrize("kind", ["even", "uneven", "wide"])
@pytest.mark.parametrize("normalisation", ["series", "train", "none"])
@pytest.mark.parametrize("settings", [{}, {"pooling": "layers"}, {"channels": "independent"}, {"instance_norm": True},
                                      {"embedding": "convolution"}], ids=str)
def test_every_combination(files, tmp_path, accelerator, backbone, kind, normalisation, settings):
    test_the_test_file_is_answered_as_it_was_scored(files, tmp_path, accelerator, backbone, kind, normalisation,
                                                    settings)


@pytest.mark.parametrize("arm", ["random", "no-attention", "mlp", "lstm", "lstm-location", "bigru-additive"])
def test_models_of_comparisons_answer_as_they_were_scored(files, tmp_path, accelerator, arm):
    parts = load_splits(section(files, "uneven", "train"), 0)
    data = LabelledSet("uneven", parts[0], parts[2], 4)
    settings = CompareSeriesConfig(recurrent_size=8)
    truth = scored(tmp_path, lambda: new_model(arm, data, settings, None), parts, accelerator)
    np.testing.assert_allclose(probabilities(asked(tmp_path, files / "uneven-test.csv")), truth, atol=1e-5)


@pytest.fixture(scope="module")
def fitted(files, tmp_path_factory, accelerator):
    """A directory with a model whose series differ in length, and the outputs of its test file by series."""
    directory = tmp_path_factory.mktemp("fitted")
    parts = load_splits(section(files, "uneven", "train"), 0)
    make = patches(parts, "gpt", embedding="convolution", pooling="layers")  # to which what is padded matters
    truth = scored(directory, make, parts, accelerator)
    return directory, {f"patient {number}": row for number, row in enumerate(truth)}


def changed(table: pd.DataFrame, how: str) -> pd.DataFrame:
    names = table["id"].unique()
    if how == "order":
        return pd.concat([table[table["id"] == name] for name in names[::-1]])
    if how == "interleaved":
        return table.sort_values("time", kind="stable")
    if how == "fewer":
        return table[table["id"].isin(names[:3])]
    if how == "channels swapped":
        return table[["label", "breath", "time", "heart", "id"]]
    if how == "with its index":
        return table.reset_index()
    longer = pd.DataFrame({"id": "another", "time": range(70), "heart": 1.5, "breath": 2.0, "label": "rest"})
    return pd.concat([longer, table])


@pytest.mark.parametrize("how", ["order", "interleaved", "fewer", "channels swapped", "with its index", "a longer one"])
def test_neither_order_nor_company_changes_an_answer(files, fitted, tmp_path, how):
    directory, truth = fitted
    changed(pd.read_csv(files / "uneven-test.csv"), how).to_csv(tmp_path / "new.csv", index=how == "with its index")
    table = asked(directory, tmp_path / "new.csv").set_index("id")
    assert set(table.index) - {"another"} <= set(truth) and len(table) >= 3
    for name in set(table.index) - {"another"}:
        np.testing.assert_allclose(probabilities(table.loc[[name]])[0], truth[name], atol=1e-5)


def test_what_the_file_says_of_a_series_is_kept(files, fitted, capsys):
    table = asked(fitted[0], files / "ward.csv")
    assert list(table.columns) == ["label", *(f"p({name})" for name in NAMES), "id", "input_label", "ward"]
    assert table["id"].tolist() == [f"patient {number}" for number in range(15)]
    assert table["ward"].tolist()[:2] == ["west", "east"] and table["input_label"].tolist()[:3] == list(NAMES)
    told = capsys.readouterr().err
    assert "ward is no value that was learned: left out; what is the same all through a series is kept" in told
    assert "15 series, 2 channels" in told and "of heart, breath" in told and "values are missing" in told


def test_arrays_are_answered_as_files_are(files, fitted, tmp_path):
    test = load_splits(section(files, "uneven", "none"), 0)[2]
    seen = test.observed
    table = answer_series(fitted[0] / "model", np.where(seen, test.values, np.nan), seen, batch_size=4)
    np.testing.assert_allclose(probabilities(table), np.stack(list(fitted[1].values())), atol=1e-5)
    np.savez(tmp_path / "new.npz", values=np.where(seen, test.values, np.nan), age=np.arange(15))
    asked_again = asked(fitted[0], tmp_path / "new.npz", wide=True)
    np.testing.assert_allclose(probabilities(asked_again), probabilities(table), atol=1e-5)
    assert asked_again["age"].tolist() == asked_again["series"].tolist() == list(range(15))


def test_flat_series_and_absent_labels_are_told(files, fitted, tmp_path, capsys):
    table = pd.read_csv(files / "uneven-test.csv").drop(columns="label")
    table.loc[table["id"] == "patient 4", "heart"] = 3.0
    table.to_csv(tmp_path / "new.csv", index=False)
    assert len(asked(fitted[0], tmp_path / "new.csv")) == 15
    told = capsys.readouterr().err
    assert "1 of 15 series are constant in some channel" in told
    assert "has no column 'label' (data.label_column); its series are taken as unlabelled" in told
