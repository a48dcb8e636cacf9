"""Series → documents of tokens, in the same store as text: tables and generators, cut into windows.

    <tokenizer>/manifest.json    <tokenizer>/store/{train,validation}/    (below data_dir)

A document is one window: context_length + horizon values, whose scale is that of its context, and the end token.
Windows never cross a border between splits: of a table these lie one after the other in time, of a generator they are
series of their own. To the model that a value is missing (PAD) is a token like any other, which it predicts, too, and
which no forecast draws.
"""

import hashlib
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from toolkit.data.prepared import SeriesManifest
from toolkit.data.series.generators import mackey_glass
from toolkit.data.series.windows import resolve_borders
from toolkit.data.stores.prepare import PreparedData
from toolkit.data.stores.settings import SeriesCorpusConfig
from toolkit.data.stores.store import STORE_FILES, TokenStore
from toolkit.data.tables.time_table import read_time_table
from toolkit.errors import UserError, did_you_mean
from toolkit.run import places
from toolkit.run.files import building, read_json, write_json
from toolkit.tokenization.bins import SeriesBins, read_series_bins

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
GENERATORS = ("mackey-glass", "noisy-sines")


def prepare_series(config: SeriesCorpusConfig, tokenizer: str, data_dir: str | Path,
                   progress: bool = True) -> PreparedData:
    """Make, or find already made, the token stores of series; `tokenizer` is a specification such as
    tokenizers/series-bins.yaml. Stores of other settings are refused.
    """
    bins = read_series_bins(tokenizer)
    length = bins.context_length + bins.horizon
    if config.stride is not None and config.stride < 1:
        raise UserError(f"series.stride is {config.stride}; give at least 1 value.")
    directory = Path(data_dir) / Path(tokenizer).stem
    settings = {"series": asdict(config), "tokenizer": asdict(bins)}
    path = directory / "manifest.json"
    if path.exists():
        manifest = read_json(path, SeriesManifest)
        changed = [f"{section}.{key}" for section, values in settings.items() for key, value in values.items()
                   if not places.same(earlier := manifest.get(section, {}).get(key), value)
                   and not places.moved(earlier, value, manifest.get("inputs") if key == "sources" else None)]
        if changed:
            raise UserError(f"{directory}: was prepared with another {changed[0]}. Choose another data_dir, or delete "
                            f"it.")
    else:
        if directory.exists():
            raise UserError(f"{directory}: has no manifest.json, so it holds no prepared series. Choose another "
                            f"data_dir, or delete it.")
        note = tqdm.write if progress else lambda line: None
        with building(directory) as partial:
            facts = []
            for split in SPLITS[:2]:
                windows = [split_windows(config, number, split, length, config.stride or length, note)
                           for number in range(len(config.sources))]
                facts.append(_write_store(partial / "store" / split, windows, bins))
            manifest = {**settings, "stores": dict(zip(SPLITS, facts, strict=False)),
                        "inputs": places.contents(config.sources)}
            write_json(partial / path.name, manifest)
        note(describe(manifest))
    stores = {split: TokenStore.open(directory / "store" / split) for split in SPLITS[:2]}
    return PreparedData(bins, stores["train"], stores["validation"], manifest)


def describe(manifest: dict) -> str:
    """What a preparation made, in a line."""
    return "series: " + "; ".join(
        f"{name} {facts['documents']:,} windows, {facts['values']:,} values, {facts['missing']:,} missing, "
        f"{facts['clipped']:,} clipped" + f", {facts['left_out']:,} windows without context left out"
        * bool(facts["left_out"]) for name, facts in manifest["stores"].items())


@dataclass(frozen=True)
class SeriesWindows:
    """Windows of one split of a source."""

    values: np.ndarray
    """(n, length) float64, NaN where a value is missing."""
    columns: np.ndarray
    """(n,) the table's column that each is of; "" where a generator made it."""
    rows: np.ndarray
    """(n,) which of `times` each begins at."""
    times: np.ndarray | None = None
    """datetime64[ns] or float64 of the split's rows; None where they have none."""

    def times_of(self, index: np.ndarray) -> np.ndarray | None:
        """(b, length), the times of these windows' values."""
        if self.times is None:
            return None
        return self.times[self.rows[index][:, None] + np.arange(self.values.shape[1])]


def series_windows(config: SeriesCorpusConfig, number: int, split: Split, length: int, stride: int,
                   note: Callable[[str], None] = print) -> SeriesWindows:
    """Windows of one split of source `number`. UserError where the split is too short for one."""
    source = config.sources[number]
    if source.startswith("generator:"):
        generated = _generated(config, number, split, length)
        return SeriesWindows(generated, np.full(len(generated), ""), np.zeros(len(generated), int))
    with _own_keys():
        table = read_time_table(source, config.time_column, missing=config.missing)
        ends = (0, *resolve_borders(config.borders, table.values.shape[1]))
    for line in table.notes if split == "train" else ():
        note(f"{source}: {line}")
    values = table.values if table.observed is None else np.where(table.observed, table.values, np.nan)
    part = slice(*ends[SPLITS.index(split):][:2])
    rows = values[:, part]
    if rows.shape[1] < length:
        raise UserError(f"{source}: the {split} part has {rows.shape[1]:,} rows, a window {length:,}. Give more rows, "
                        f"move series.borders, or shorten context_length and horizon of the tokenizer.")
    windows = np.lib.stride_tricks.sliding_window_view(rows, length, axis=1)
    firsts = np.arange(rows.shape[1] - length + 1)[(rows.shape[1] - length) % stride::stride]  # the last ends with it
    return SeriesWindows(windows[:, firsts].reshape(-1, length), np.repeat(table.columns, len(firsts)),
                         np.tile(firsts, len(rows)), None if table.times is None else table.times[part])


def split_windows(config: SeriesCorpusConfig, number: int, split: Split, length: int, stride: int,
                  note: Callable[[str], None] = print) -> np.ndarray:
    """(n, length) float64 windows, NaN where a value is missing, of one split of source `number`."""
    return series_windows(config, number, split, length, stride, note).values


@contextmanager
def _own_keys():
    """Errors of the readers of tables name this section's keys."""
    try:
        yield
    except UserError as error:
        named = re.sub(r"\bdata\.(time_column|target_columns|missing|borders)\b", r"series.\1", str(error))
        raise UserError(re.sub(r"\bdata\.path\b", "series.sources", named)) from None


def _generated(config: SeriesCorpusConfig, number: int, split: Split, length: int) -> np.ndarray:
    source = config.sources[number]
    match = re.fullmatch(r"generator:([\w-]+):(\d+)", source)
    if not match or not int(match[2]):
        raise UserError(f"{source}: is not of the form generator:NAME:COUNT, such as generator:{GENERATORS[0]}:1000 "
                        f"(series.sources).")
    name, count = match[1], int(match[2])
    if name not in GENERATORS:
        raise UserError(f"{source}: there is no such generator (series.sources).{did_you_mean(name, GENERATORS)}")
    count = count if split == "train" else max(1, count // 10)
    random = np.random.default_rng([config.seed, number, SPLITS.index(split)])
    if name == "noisy-sines":
        return sine_sums(count, length, random)
    # One trajectory, cut: it forgets where it started within some hundred values, and never comes back.
    first = 500
    return mackey_glass(first + count * length, start=random.uniform(0.5, 1.4))[first:].reshape(count, length)


def sine_sums(count: int, length: int, random: np.random.Generator) -> np.ndarray:
    """(count, length) sums of one to three sines in noise of deviation 0.1: amplitudes U[0.5, 1], periods from 8 to 48
    values, uniform on a logarithmic scale, any phase. The construction is ours.
    """
    amplitude = random.uniform(0.5, 1, (count, 3)) * (np.arange(3) < random.integers(1, 4, (count, 1)))
    period = np.exp(random.uniform(np.log(8), np.log(48), (count, 3)))
    phase = random.uniform(0, 2 * np.pi, (count, 3))
    waves = np.sin(2 * np.pi * np.arange(length) / period[..., None] + phase[..., None])
    return (amplitude[..., None] * waves).sum(1) + 0.1 * random.standard_normal((count, length))


def _write_store(directory: Path, windows: list[np.ndarray], bins: SeriesBins) -> dict[str, int | str]:
    """The files of a `TokenStore`; returns what they hold."""
    facts = {"documents": 0, "values": 0, "missing": 0, "clipped": 0, "left_out": 0}
    digest, dtype, sources = hashlib.sha256(), "uint16" if len(bins) <= 2**16 else "uint32", []
    directory.mkdir(parents=True, exist_ok=True)
    width = bins.context_length + bins.horizon + 1
    with open(directory / "ids.bin", "wb") as file:
        for values in windows:
            seen = ~np.isnan(values[:, :bins.context_length]).all(1)
            facts["left_out"] += int((~seen).sum())
            ids, scale = bins.encode(values[seen])
            data = np.pad(ids, ((0, 0), (0, 1)), constant_values=bins.eos_token_id).astype(dtype).tobytes()
            file.write(data)
            digest.update(data)
            sources.append(len(ids) * width)
            facts["documents"] += len(ids)
            facts["values"] += ids.size
            facts["missing"] += int((ids == bins.pad_token_id).sum())
            facts["clipped"] += bins.clipped(values[seen], scale)
    count = facts["documents"]
    if not count:
        raise UserError(f"{directory.name}: no window has a value in its context, so there is nothing to learn from. "
                        f"Check series.sources.")
    (width * np.arange(count + 1, dtype=np.int64)).tofile(directory / "sentence_offsets.bin")
    np.arange(count + 1, dtype=np.int64).tofile(directory / "document_offsets.bin")
    write_json(directory / STORE_FILES[-1], {
        "dtype": dtype, "tokens": count * width, "sentences": count, "documents": count, "bytes": 0,
        "vocab_size": len(bins), "sources": sources,
        "fingerprints": {"series": digest.hexdigest(), "tokenizer": bins.fingerprint()}})
    return {**facts, "tokens": count * width, "sha256": digest.hexdigest()}
