"""Rows of a parquet file, as many at once as memory takes, whatever their size.

A file of 2 kB can hold rows of 20 MB: one value, compressed, that all rows share. What bounds a value is its group of
rows, whose size, uncompressed, stands at the file's end. A page of values is decompressed whole, as the format asks:
groups that say they are packed beyond reason are refused, and of those that lie no page is longer than 2 GB.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow
from pyarrow import parquet

from toolkit.data.tables.sources import LONGEST
from toolkit.errors import UserError
from toolkit.regular import refuse_bomb, regular

MOST_ROWS = 64  # and no more than may be as long as a quarter of one document: pyarrow holds them three times
_READ_WHOLE = 16 * 2**20  # of a file; larger ones are read as they are needed


def unreadable(path: Path, error: Exception) -> UserError:
    """For what pyarrow says of a file that it cannot read."""
    return UserError(f"{path}: cannot be read as parquet, perhaps cut short ({str(error).splitlines()[0]}). Fetch it "
                     f"again.")


def parquet_batches(path: Path, columns: Collection[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """Of these columns, or of all, in their order in the file."""
    metadata = parquet.read_metadata(regular(path))
    # Of whole groups: asked for the size of a column that is damaged, pyarrow ends the process, not the call.
    largest = max((metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)), default=0)
    refuse_bomb(path, largest, "Write it with smaller row groups.")
    buffer_size = 2**20 if path.stat().st_size > _READ_WHOLE else 0
    with parquet.ParquetFile(path, metadata=metadata, buffer_size=buffer_size) as file:
        yield from file.iter_batches(batch_size=max(1, min(MOST_ROWS, LONGEST // 4 // max(1, largest))),
                                     columns=None if columns is None else list(columns))
