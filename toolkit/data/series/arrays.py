"""Labelled series out of numpy's .npz and .npy: (n, length) or (n, channels, length)."""

from pathlib import Path

import numpy as np

from toolkit.data.series.archives import FileSeries
from toolkit.data.tables.labels import Note
from toolkit.errors import UserError
from toolkit.run.binary import saved_arrays

VALUES, LABELS = ("values", "X", "x"), ("labels", "label", "y")
"""Names in an .npz; the first that is there is taken."""


def read_arrays(path: Path, labelled: bool, note: Note) -> FileSeries:
    """An .npz of values (`values` or `X`) and labels (`labels` or `y`), or an .npy of values alone. Nothing is
    unpickled.

    labelled: whether there must be labels.
    """
    arrays = _loaded(path)
    name = next((name for name in VALUES if name in arrays), None)
    if name is None:
        raise UserError(f"{path}: has no array of values ({' or '.join(VALUES[:2])}); it has "
                        f"{', '.join(arrays) or 'none'}. Save it so: np.savez('{path.name}', values=…, labels=…).")
    values = arrays.pop(name)
    if values.dtype.kind not in "iufb":
        raise UserError(f"{path}, array '{name}': expected numbers, found {values.dtype}.")
    if values.ndim not in (2, 3) or not values.size:
        raise UserError(f"{path}, array '{name}': expected (series, length) or (series, channels, length), found "
                        f"{values.shape}.")
    values = (values[:, None] if values.ndim == 2 else values).astype(np.float64)
    n, channels, length = values.shape
    if channels > length:
        note(f"{path}: {channels:,} channels of {length:,} values each: the order of axes is (series, channels, "
             f"length); where it is another, save {name}.swapaxes(1, 2)")
    own = next((own for own in LABELS if own in arrays), None)
    if own is None and labelled:
        raise UserError(f"{path}: has values, but no labels ({' or '.join(LABELS[::2])}). Save both: "
                        f"np.savez('{path.stem}.npz', values=…, labels=…).")
    labels = [None] * n if own is None else _of_each(path, own, arrays[own], n)
    beside = {"label": labels} if own else {}
    beside |= {key: array.tolist() for key, array in arrays.items() if key != own and array.shape == (n,)}
    note(f"{path}: values are '{name}'{f', labels {own!r}' if own else ''}" if path.suffix.lower() == ".npz" else
         f"{path}: values alone, without labels")
    return FileSeries(list(values), labels, [f"{path}, array '{own}', index {i}" for i in range(n)],
                      lambda i, channel, t: f"{path}, array '{name}', index [{i}, {channel}, {t}]", beside=beside)


def _loaded(path: Path) -> dict[str, np.ndarray]:
    try:
        return saved_arrays(path)
    except UserError:
        raise
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise _unreadable(path, error) from None
        raise UserError(f"{path}: holds Python objects, which are not read, for a file could run anything so. Save "
                        f"plain arrays: values.astype(float), labels.astype(str); series of unequal length filled up "
                        f"with NaN.") from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read as numpy's {path.suffix.lower()} ({' '.join(str(error).split())[:100]}). "
                     f"Save it again with np.savez or np.save.")


def _of_each(path: Path, name: str, labels: np.ndarray, n: int) -> list:
    if labels.shape not in ((n,), (n, 1)):
        raise UserError(f"{path}, array '{name}': expected {n:,} labels, one a series, found {labels.shape}.")
    return labels.ravel().tolist()
