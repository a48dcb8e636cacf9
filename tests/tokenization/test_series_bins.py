"""Series as tokens: bins against hand and torch, stores that never cross a split, a GPT that learns and is sampled."""

import json
import shutil

import numpy as np
import pretrain_gpt
import pytest
import sample_forecasts
import small
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from toolkit.config import from_dict
from toolkit.data.stores.gpt_batches import GptBatches
from toolkit.data.stores.series import SeriesCorpusConfig, prepare_series, sine_sums, split_windows
from toolkit.errors import UserError
from toolkit.inference.sampling import load_series_gpt, sample_paths
from toolkit.report.sampled_run import sampled_figures
from toolkit.run.files import building
from toolkit.tokenization.bins import FILE_NAME, SeriesBins, read_series_bins
from toolkit.tokenization.train import read_spec
from toolkit.training.impl.distributed import make_accelerator

SPEC = "algorithm: series-bins\nvocab_size: {vocab}\nlow_limit: -4\nhigh_limit: 4\ncontext_length: 24\nhorizon: 8\n"


def bins_of(context_length: int = 2, horizon: int = 5, **changes) -> SeriesBins:
    return SeriesBins("series-bins", context_length, horizon, **changes)


# ---- one value, one token


def test_bins_by_hand():
    """Centres −2 … 2, edges ±0.5 and ±1.5; a value on an edge goes up, what lies outside into the last bin."""
    bins = bins_of(vocab_size=7, low_limit=-2, high_limit=2)
    assert bins.centres.tolist() == [-2, -1, 0, 1, 2] and bins.edges.tolist() == [-1.5, -0.5, 0.5, 1.5]
    row = [1, -1, -1.5, np.nextafter(-1.5, -9), 0.5, np.nextafter(0.5, -9), 0, 1.5, 99, -99, np.nan]
    ids, scale = bins.encode(np.asarray([row]))
    assert scale.tolist() == [1.0] and ids.dtype == np.int64
    assert ids[0].tolist() == [5, 3, 3, 2, 5, 4, 4, 6, 6, 2, bins.pad_token_id]
    assert bins.decode(np.arange(7)[None], np.asarray([3.0]))[0].tolist() == pytest.approx(
        [np.nan, np.nan, -6, -3, 0, 3, 6], nan_ok=True)
    assert bins.clipped(np.asarray([row]), scale) == 2
    assert bins.clipped(np.asarray([[2.5, -2.5, 2.501, -2.501]]), np.ones(1)) == 2  # half a bin outside is rounding


def test_bins_are_chronos_bins():
    """The paper's code: torch.bucketize with infinite outer boundaries, from the left closed."""
    bins = bins_of(context_length=64, vocab_size=4096)
    values = np.random.default_rng(0).standard_t(2, (50, 90)) * 10.0 ** np.arange(-25, 25)[:, None]
    ids, scale = bins.encode(values)
    context = torch.from_numpy(values[:, :64])
    expected_scale = context.abs().mean(1)
    torch.testing.assert_close(torch.from_numpy(scale), expected_scale)
    centres = torch.linspace(-15, 15, 4094, dtype=torch.float64)
    boundaries = torch.cat([torch.tensor([-1e20]), (centres[1:] + centres[:-1]) / 2, torch.tensor([1e20])])
    expected = torch.bucketize(torch.from_numpy(values / scale[:, None]), boundaries, right=True) - 1 + 2
    assert (torch.from_numpy(ids) == expected).all()
    assert ids.min() >= 2 and ids.max() < 4096


def test_scale_is_of_what_the_context_holds():
    bins = bins_of(context_length=3)
    values = np.asarray([[1, -2, 3, 100], [np.nan, -4, np.nan, 100], [0, 0, 0, 7], [np.nan] * 3 + [7], [1e-300] * 4])
    assert bins.scale(values).tolist() == pytest.approx([2, 4, 1, 1, 1e-300])
    zeros, scale = bins.encode(np.zeros((1, 8)))
    assert (np.abs(bins.decode(zeros, scale)) <= bins.bin_width / 2).all()


@pytest.mark.parametrize("vocab_size", [16, 1024, 4096])
def test_round_trip_is_within_half_a_bin(vocab_size):
    bins = bins_of(context_length=40, vocab_size=vocab_size)
    values = np.random.default_rng(1).normal(0.3, 2, (200, 60)) * 10.0 ** np.linspace(-9, 9, 200)[:, None]
    values[5, 3] = np.nan
    ids, scale = bins.encode(values)
    assert bins.clipped(values, scale) == 0
    error = np.abs(bins.decode(ids, scale) - values) / scale[:, None]
    assert np.isnan(error[5, 3]) and np.nanmax(error) <= bins.bin_width / 2 * (1 + 1e-9)
    assert np.nanmax(error) > bins.bin_width / 2 * 0.9
    again, same = bins.encode(values, scale)
    assert (again == ids).all() and (same == scale).all()
    given, _ = bins.encode(values[:, 40:], scale)  # of a forecast's truth, in the scale of its context
    assert (given == ids[:, 40:]).all()


def test_infinity_is_refused():
    with pytest.raises(ValueError, match="2 of 4 values are infinite"):
        bins_of().encode(np.asarray([[1, np.inf, -np.inf, np.nan]]))


def test_a_specification_is_saved_and_read(tmp_path):
    bins = bins_of(vocab_size=512, low_limit=-3)
    bins.save_pretrained(tmp_path)
    assert SeriesBins.from_pretrained(tmp_path) == bins == read_series_bins(str(tmp_path))
    assert bins.fingerprint() == read_series_bins(str(tmp_path)).fingerprint() != bins_of().fingerprint()
    assert read_series_bins(str(small.ROOT / "tokenizers/series-bins.yaml")).num_bins == 1022


@pytest.mark.parametrize(("text", "message"), [
    ("vocab_size: 2", "vocab_size is 2; "), ("low_limit: 5\nhigh_limit: 5", "low_limit is 5.0 and high_limit 5.0"),
    ("low_limit: -.inf", "both finite"), ("horizon: 0", "horizon is 0"), ("vocab_size: many", "'vocab_size' should be"),
    ("bins: 3", "unknown key 'bins'"), ("context_length: null", "'context_length'"),
    ("algorithm: bpe", "cuts text; series need 'series-bins'")])
def test_mistakes_in_a_specification(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    values = small.yaml.safe_load(SPEC.format(vocab=64)) | small.yaml.safe_load(text)
    path.write_text(small.yaml.safe_dump(values))
    with pytest.raises(UserError) as caught:
        read_series_bins(str(path))
    assert message in str(caught.value) and str(caught.value).startswith(str(path))


def test_the_specification_is_not_for_text():
    with pytest.raises(UserError, match=r"series-bins\.yaml: series-bins cuts time series, not text"):
        read_spec(small.ROOT / "tokenizers/series-bins.yaml")
    with pytest.raises(UserError, match=r"series_bins\.json: no such file"):
        read_series_bins(str(small.ROOT / "tokenizers"))


# ---- windows and stores


@pytest.fixture
def table(tmp_path):
    """100 hours; `a` counts them from 2 (from 1 it would be an index), `b` is minus that; one cell of b is empty."""
    path = tmp_path / "hours.csv"
    rows = [f"2024-01-{1 + hour // 24:02}T{hour % 24:02}:00,{hour + 2},{-hour - 2 if hour != 20 else ''},x"
            for hour in range(100)]
    path.write_text("\n".join(["date,a,b,place", *rows]) + "\n")
    return path


def test_windows_never_cross_a_split(table):
    config = SeriesCorpusConfig([str(table)], missing="mask", borders=[0.5, 0.75, 1.0])
    spans = {"train": (2, 51), "validation": (52, 76), "test": (77, 101)}
    for split, (first, last) in spans.items():
        every = split_windows(config, 0, split, 12, 1)
        assert np.nanmin(np.abs(every)) == first and np.nanmax(np.abs(every)) == last
        assert every.shape == (2 * (last - first + 1 - 11), 12)
        assert set(np.unique(np.diff(every, axis=1)).tolist()) - {1, -1} <= {np.nan} or np.isnan(every).any()
    apart = split_windows(config, 0, "train", 12, 12)
    assert apart[:4, 0].tolist() == [4, 16, 28, 40] and apart[3, -1] == 51  # the last one ends with its part
    assert np.isnan(apart[5]).sum() == 1 and apart[5, 6] is not None and np.isnan(apart[5, 6])


def test_a_store_holds_each_window_and_an_end(table, tmp_path):
    spec = tmp_path / "bins.yaml"
    spec.write_text("algorithm: series-bins\ncontext_length: 8\nhorizon: 4\nvocab_size: 1024\n")
    config = SeriesCorpusConfig([str(table), "generator:noisy-sines:30"], missing="mask", borders=[0.5, 0.75, 1.0],
                                stride=6)
    data = prepare_series(config, str(spec), tmp_path / "data", progress=False)
    bins, windows = data.tokenizer, [split_windows(config, number, "train", 12, 6) for number in range(2)]
    expected = np.concatenate(windows)
    assert data.train.num_documents == len(expected) == 14 + 30
    documents = np.split(np.asarray(data.train.ids), data.train.document_tokens()[1:-1])
    assert all(len(document) == 13 and document[-1] == bins.eos_token_id for document in documents)
    ids = np.stack(documents)[:, :-1].astype(int)
    values = bins.decode(ids, bins.scale(expected))
    assert (np.isnan(values) == np.isnan(expected)).all() and np.isnan(values).any()
    assert np.nanmax(np.abs(values - expected) / bins.scale(expected)[:, None]) <= bins.bin_width / 2 + 1e-9
    assert data.train.source_tokens() == [14 * 13, 30 * 13] and data.train.ids.dtype == np.uint16
    facts = data.facts()["corpus"]["stores"]
    assert facts["train"]["missing"] == int(np.isnan(expected).sum()) and facts["validation"]["documents"] == 6 + 3
    # The batches of text, unchanged: positions start again with every series.
    batch = GptBatches(data.train, 40, 4, 0, end_id=bins.eos_token_id).batch(3, range(4))
    assert (batch["position_ids"][batch["input_ids"] == bins.eos_token_id] == 0).all()
    assert (batch["labels"][:, :-1] == batch["input_ids"][:, 1:]).all()

    again = prepare_series(config, str(spec), tmp_path / "data", progress=False)
    assert again.facts() == data.facts()
    with pytest.raises(UserError, match=r"was prepared with another series\.stride"):
        prepare_series(SeriesCorpusConfig(config.sources, missing="mask", borders=config.borders), str(spec),
                       tmp_path / "data", progress=False)
    spec.write_text(spec.read_text().replace("1024", "512"))
    with pytest.raises(UserError, match=r"was prepared with another tokenizer\.vocab_size"):
        prepare_series(config, str(spec), tmp_path / "data", progress=False)


def test_a_preparation_that_was_broken_off_is_done_again(tmp_path):
    spec = tmp_path / "bins.yaml"
    spec.write_text(SPEC.format(vocab=64))
    config = SeriesCorpusConfig(["generator:noisy-sines:20"])
    with pytest.raises(KeyboardInterrupt), building(tmp_path / "data/bins") as partial:
        (partial / "store/train").mkdir(parents=True)
        (partial / "store/train/ids.bin").write_bytes(bytes(99999))
        raise KeyboardInterrupt
    data = prepare_series(config, str(spec), tmp_path / "data", progress=False)
    whole = prepare_series(config, str(spec), tmp_path / "other", progress=False)
    assert data.facts() == whole.facts() and data.train.num_tokens == 20 * 33


def test_generated_splits_are_series_of_their_own():
    config = SeriesCorpusConfig(["generator:noisy-sines:40", "generator:mackey-glass:20"])
    for number in range(2):
        parts = {split: split_windows(config, number, split, 30, 30) for split in ("train", "validation", "test")}
        assert [len(part) for part in parts.values()] == ([40, 4, 4], [20, 2, 2])[number]
        again = split_windows(config, number, "test", 30, 30)
        assert (again == parts["test"]).all() and not (parts["test"][:2] == parts["validation"][:2]).any()
    noise = sine_sums(400, 128, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    assert spectrum[:, 1:20].sum() > 50 * spectrum[:, 20:].sum()  # periods from 8 values on; noise above


@pytest.mark.parametrize(("changes", "message"), [
    ({"sources": ["generator:mackey-glass"]}, "is not of the form generator:NAME:COUNT"),
    ({"sources": ["generator:mackey-glas:3"]}, "Did you mean 'mackey-glass'"),
    ({"missing": "refuse"}, "line 22, column 'b': no finite number"),
    ({"time_column": "when"}, "has no column 'when' (series.time_column)"),
    ({"sources": ["nowhere.csv"]}, "nowhere.csv: no such file (series.sources)"),
    ({"borders": [0.9, 0.8, 1.0]}, "series.borders is [0.9, 0.8, 1.0]"),
    ({"borders": [0.9, 0.95, 1.0]}, "the validation part has 5 rows, a window 32"),
    ({"stride": 0}, "series.stride is 0")])
def test_mistakes_in_sources(table, tmp_path, changes, message):
    (tmp_path / "bins.yaml").write_text(SPEC.format(vocab=64))
    values = {"sources": [str(table)], "missing": "mask", "borders": [0.34, 0.67, 1.0], **changes}
    with pytest.raises(UserError) as caught:
        prepare_series(SeriesCorpusConfig(**values), str(tmp_path / "bins.yaml"), tmp_path / "data", progress=False)
    assert message in str(caught.value)
    assert not (tmp_path / "data/bins").exists()


def test_windows_without_a_context_are_left_out_and_counted(tmp_path):
    rows = [f"{hour},{'' if hour < 40 else hour}" for hour in range(100)]
    (tmp_path / "late.csv").write_text("\n".join(["date,a", *rows]) + "\n")
    (tmp_path / "bins.yaml").write_text(SPEC.format(vocab=64).replace("24", "8").replace("horizon: 8", "horizon: 4"))
    config = SeriesCorpusConfig([str(tmp_path / "late.csv")], missing="mask", borders=[0.6, 0.8, 1.0])
    facts = prepare_series(config, str(tmp_path / "bins.yaml"), tmp_path / "data", progress=False).facts()
    train = facts["corpus"]["stores"]["train"]
    assert (train["documents"], train["left_out"]) == (2, 3)  # windows begin at rows 0, 12, 24, 36 and 48


# ---- a GPT


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A GPT that saw noisy sines for some steps: (run directory, its result)."""
    root = tmp_path_factory.mktemp("series-gpt")
    (root / "bins.yaml").write_text(SPEC.format(vocab=128))
    settings = from_dict(pretrain_gpt.PretrainGptConfig, {
        "output_dir": str(root / "run"), "data_dir": str(root / "data"), "tokenizer": str(root / "bins.yaml"),
        "series": {"sources": ["generator:noisy-sines:600"]}, "model": {"preset": "gpt-tiny"}, "block_size": 66,
        "attention_within_documents": True, "impl": {"dtype": "fp32"},
        "training": {"max_steps": 60, "batch_size": 16, "logging_steps": 20, "save_steps": 0}})
    return root / "run", pretrain_gpt.pretrain_gpt(settings, make_accelerator())


def test_it_learns_more_than_how_often_values_occur(trained):
    run, result = trained
    assert result["loss"] < result["unigram_entropy"] - 0.5
    assert result["perplexity"] == pytest.approx(np.exp(result["loss"]))
    assert not {"bits_per_byte", "bytes"} & result.keys()
    assert all("eval_bits_per_byte" not in record for record in small.records(run))


def test_its_directory_is_all_that_is_needed(trained, tmp_path):
    shutil.copytree(trained[0] / "model", tmp_path / "elsewhere")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "elsewhere").config.eos_token_id == 1
    model, bins = load_series_gpt(tmp_path / "elsewhere")
    assert sample_paths(model, bins, np.ones((1, 3)), num_samples=2).shape == (1, 2, 8)
    (tmp_path / "elsewhere" / FILE_NAME).write_text(json.dumps(
        json.loads((tmp_path / "elsewhere" / FILE_NAME).read_text()) | {"vocab_size": 64}))
    with pytest.raises(UserError, match="128 tokens, its tokenizer 64"):
        load_series_gpt(tmp_path / "elsewhere")


def test_paths_are_a_function_of_the_seed(trained):
    model, bins = load_series_gpt(trained[0] / "model")
    context = sine_sums(5, 24, np.random.default_rng(7))
    context[2, 4:9] = np.nan
    before = torch.random.get_rng_state()
    paths = sample_paths(model, bins, context, num_samples=12, seed=1)
    assert (torch.random.get_rng_state() == before).all()
    assert paths.shape == (5, 12, 8) and np.isfinite(paths).all()
    assert (sample_paths(model, bins, context, num_samples=12, seed=1) == paths).all()
    assert (sample_paths(model, bins, context, num_samples=12, seed=2) != paths).any()
    assert np.isin(np.round(paths / bins.scale(context)[:, None, None], 9), np.round(bins.centres, 9)).all()
    longer = np.concatenate([np.full((5, 30), 1e6), context], 1)  # what came before the context is not read
    assert (sample_paths(model, bins, longer, num_samples=12, seed=1) == paths).all()
    # Eightfold values, eightfold forecasts: only their shape is seen.
    assert (sample_paths(model, bins, 8 * context, num_samples=12, seed=1) == 8 * paths).all()
    spread = [np.ptp(sample_paths(model, bins, context, num_samples=12, temperature=temperature), axis=1).mean()
              for temperature in (0.3, 1.0)]
    assert spread[0] < 0.8 * spread[1]


def test_the_likeliest_path_is_what_whole_forward_passes_give(trained):
    model, bins = load_series_gpt(trained[0] / "model")
    context = sine_sums(3, 24, np.random.default_rng(8))
    ids, scale = bins.encode(context)
    ids = torch.from_numpy(np.pad(ids, ((0, 0), (1, 0)), constant_values=bins.eos_token_id))
    with torch.inference_mode():
        for _ in range(8):
            ids = torch.cat([ids, model(ids).logits[:, -1:, 2:].argmax(-1) + 2], 1)
    expected = bins.decode(ids[:, 25:].numpy(), scale)
    paths = sample_paths(model, bins, context, num_samples=3, top_k=1)
    assert all((paths[:, number] == expected).all() for number in range(3))


def test_missing_and_end_are_never_drawn():
    """A model that would write nothing else."""
    bins = bins_of(context_length=4, horizon=6, vocab_size=32)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=16, bos_token_id=1,
                                       eos_token_id=1)).eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.transformer.wte.weight[:2] += 5.0
    logits = model(torch.ones(1, 1, dtype=torch.long)).logits[0, -1]
    assert logits[:2].min() > logits[2:].max() + 10
    assert np.isfinite(sample_paths(model, bins, np.ones((2, 4)), num_samples=9)).all()


@pytest.mark.parametrize(("changes", "message"), [
    ({"horizon": 9}, "horizon is 9; it must lie between 1 and 8"), ({"temperature": 0}, "temperature is 0"),
    ({"top_k": 0}, "top_k is 0"), ({"num_samples": 0}, "num_samples is 0"), ({"context": np.ones(9)}, "shape (9,)")])
def test_mistakes_in_asking(trained, changes, message):
    model, bins = load_series_gpt(trained[0] / "model")
    with pytest.raises(UserError) as caught:
        sample_paths(model, bins, changes.pop("context", np.ones((1, 9))), **changes)
    assert message in str(caught.value)


def test_forecasts_of_the_test_part(trained, tmp_path, capsys):
    arguments = ["--run", str(trained[0]), "--output_dir", str(tmp_path / "forecasts"), "--windows", "25"]
    sample_forecasts.main(arguments)
    printed = capsys.readouterr().out
    assert "GPT, median of samples" in printed and "against seasonal naive: MAE" in printed
    found = small.read_json(tmp_path / "forecasts/result.json")["generator:noisy-sines:600"]
    assert found["windows"] == 25 and found["arms"].keys() == {"GPT, median of samples", "repeat-last",
                                                               "seasonal naive", "linear"}
    for name, row in found["arms"].items():
        assert 0 < row["quantile_loss"] and 0 < row["mae"] < 3 and 0 < row["mse"] < 9
        assert ("coverage" in row) == (name.startswith("GPT"))
    assert 0.3 < found["arms"]["GPT, median of samples"]["coverage"] <= 1
    assert found["mae_saved"]["repeat-last"]["mean"] == pytest.approx(
        found["arms"]["repeat-last"]["mae"] - found["arms"]["GPT, median of samples"]["mae"])
    assert (tmp_path / "forecasts/noisy-sines-600.png").stat().st_size > 20_000
    assert "intervals of nominally 80 %, ends included" in printed and "constant" not in printed
    figure = sampled_figures(tmp_path / "forecasts")["noisy-sines-600"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    naive = min(("repeat-last", "seasonal naive"), key=lambda name: found["arms"][name]["mae"])
    for name, role in (("GPT, median of samples", "pretrained"), ("linear", "best baseline"), (naive, "naive")):
        assert f"{name} ({role}), MAE {found['arms'][name]['mae']:.3g}" in titles
    assert len(figure.axes[0].collections) == 2, "20 paths have bands of 50 and 80 %"
    sample_forecasts.main(arguments)
    assert "is finished" in capsys.readouterr().out


def test_flat_contexts_are_told(trained, tmp_path, capsys):
    """And two tables of one name leave a picture each."""
    rows = [f"{hour},{7 if hour < 185 else hour}" for hour in range(200)]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "steps.csv").write_text("\n".join(["date,a", *rows]) + "\n")
    sample_forecasts.sample_forecasts(sample_forecasts.SampleForecastsConfig(
        output_dir=str(tmp_path / "run"), run=str(trained[0]), windows=9, num_samples=2,
        sources=[str(tmp_path / folder / "steps.csv") for folder in ("one", "two")]))
    said = capsys.readouterr().out  # of the 9 windows of the last 40 rows, two have a context of nothing but 7
    assert all(f"{folder}/steps.csv: 2 of 9 contexts are constant: they" in said for folder in ("one", "two"))
    assert {path.name for path in (tmp_path / "run").glob("steps*")} == {
        "steps-csv.png", "steps-csv.npz", "steps-csv-1.png", "steps-csv-1.npz"}


def test_a_table_is_asked_behind_what_was_trained_on(trained, tmp_path):
    """The first 80 rows are 1, the rest counts: were any of them read, the windows would show it."""
    rows = [f"{hour},{1 if hour < 160 else hour}" for hour in range(200)]
    (tmp_path / "steps.csv").write_text("\n".join(["date,a", *rows]) + "\n")
    _, bins = load_series_gpt(trained[0] / "model")
    series = SeriesCorpusConfig([str(tmp_path / "steps.csv")])
    context, future, where = sample_forecasts.windows_to_ask(series, 0, bins, 4)
    assert list(where["column"]) == ["a"] * 4 and (where["times"] == np.c_[context, future]).all()
    assert context.min() == 160 and future.max() == 199 and context.shape == (4, 24) and future.shape == (4, 8)
    assert (future[:, 0] == context[:, -1] + 1).all()


def test_scores_by_hand():
    quantiles = np.asarray([[[1.0, 2, 3], [1, 2, 3]], [[0, 0, 0], [4, 6, 8]]])
    future = np.asarray([[2.0, 4], [np.nan, 6]])
    bins = bins_of(context_length=2, horizon=2, vocab_size=33)  # a centre at each whole number from -15 to 15
    assert np.array_equal(bins.centres, np.arange(-15.0, 16))
    row = sample_forecasts.scores(quantiles, future, np.asarray([1.0, 2.0]), bins)
    assert row["mae"] == pytest.approx(2 / 3) and row["mse"] == pytest.approx(4 / 3)
    assert row["coverage"] == pytest.approx(2 / 3)
    # 0.1·1, 0.1·3, 0.1·1 under the first; 0, 0.5·2, 0 at the second; 0.1·1, 0.9·1, 0.1·1 at the third
    assert row["quantile_loss"] == pytest.approx((0.5 + 1.0 + 1.1) / 9)
    point = sample_forecasts.scores(quantiles[..., 1], future, np.asarray([1.0, 2.0]), bins)
    assert point["quantile_loss"] == pytest.approx(2 * (0.1 + 0.5 + 0.9) / 9) and "coverage" not in point


@pytest.mark.parametrize("what", ["constant", "zeros", "spare parts"])
def test_coverage_of_what_stands_still(what):
    """Once wrong: every path foretells the truth, and none of it lies within their interval of a single number."""
    bins = bins_of(context_length=50, horizon=25, vocab_size=4096)
    values = np.full((8, 75), {"constant": 5.0, "zeros": 0.0, "spare parts": 0.0}[what])
    if what == "spare parts":  # one day in 25
        values[:, ::25] = 3.0
    context, future = values[:, :50], values[:, 50:]
    ids, scale = bins.encode(np.full_like(future, np.median(context)), bins.scale(context))
    paths = np.repeat(bins.decode(ids, scale)[:, None], 20, 1)
    quantiles = np.quantile(paths, sample_forecasts.QUANTILES, axis=1, method="weibull").transpose(1, 2, 0)
    row = sample_forecasts.scores(quantiles, future, scale, bins)
    assert row["coverage"] == (24 / 25 if what == "spare parts" else 1.0)
    below = sample_forecasts.scores(quantiles, future - 2 * bins.bin_width * scale[:, None], scale, bins)
    assert below["coverage"] == 0.0


def test_the_season_of_each_context_is_found():
    t = np.arange(96)
    context = np.stack([np.sin(2 * np.pi * t / period) for period in (7, 12, 31)])
    found = sample_forecasts.estimated_seasons(context)
    assert (found % [7, 12, 31] == 0).all() and (found > 0).all()
    slow = np.cos(2 * np.pi * t[None] / 40) + 0.3 * np.random.default_rng(0).standard_normal((50, 96))
    assert (np.abs(sample_forecasts.estimated_seasons(slow) - 40) <= 3).all()  # not 2, where it is as near to itself
    assert sample_forecasts.estimated_seasons(np.ones((1, 96))).tolist() == [2]
    weights = np.zeros((97, 8))
    bins = bins_of(context_length=96, horizon=8)
    forecast = sample_forecasts.naive_forecasts(context, 8, None, weights, bins)["seasonal naive"]
    truth = np.stack([np.sin(2 * np.pi * (96 + np.arange(8)) / period) for period in (7, 12, 31)])
    np.testing.assert_allclose(forecast, truth, atol=1e-9)


def test_the_linear_map_is_least_squares(tmp_path):
    bins = bins_of(context_length=24, horizon=8, vocab_size=64)
    series = SeriesCorpusConfig(["generator:noisy-sines:300"])
    weights = sample_forecasts.linear_map(series, 0, bins)
    values = split_windows(series, 0, "test", 32, 32)
    forecast = sample_forecasts.naive_forecasts(values[:, :24], 8, None, weights, bins)
    future, errors = values[:, 24:], {}
    for name, predicted in forecast.items():
        errors[name] = np.abs(predicted - future).mean()
    assert errors["linear"] < min(errors["repeat-last"], errors["seasonal naive"])
    x = np.pad(values[:, :24] / bins.scale(values)[:, None], ((0, 0), (0, 1)), constant_values=1)
    np.testing.assert_allclose(forecast["linear"], (x @ weights) * bins.scale(values)[:, None])


@pytest.mark.parametrize(("change", "message"), [
    ({"block_size": 32}, "block_size is 32; a document of"), ({"probes": {"sets": {"a": {}}}}, "reads no text"),
    ({"tokenizer": "tokenizers/bytes.yaml"}, "cuts text")])
def test_mistakes_in_pretraining(trained, tmp_path, change, message):
    root = trained[0].parent
    values = {"output_dir": str(tmp_path / "run"), "data_dir": str(root / "data"), "block_size": 66,
              "tokenizer": str(root / "bins.yaml"), "series": {"sources": ["generator:noisy-sines:600"]}, **change}
    with pytest.raises(UserError) as caught:
        pretrain_gpt.pretrain_gpt(from_dict(pretrain_gpt.PretrainGptConfig, values), make_accelerator())
    assert message in str(caught.value)


def test_a_run_that_is_none(tmp_path):
    with pytest.raises(UserError, match="is no run directory"):
        sample_forecasts.sample_forecasts(sample_forecasts.SampleForecastsConfig(run=str(tmp_path)))
