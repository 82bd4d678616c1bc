"""One file's columns as instants and numbers, with a sentence for the first cell that is neither."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from pipeline.core.readings import SECOND, FloatArray, IntArray

if TYPE_CHECKING:
    import pyarrow as pa

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# An epoch number says its unit by its size: each limit lies beyond the year 5000 in that unit, below 1973 in the next.
EPOCH_UNITS = ((1e11, SECOND), (1e14, 1e3), (1e17, 1.0), (np.inf, 1e-3))  # s, ms, µs, ns to µs
END_OF_TIME = 253_402_300_800 * SECOND  # the year 10,000


class DataError(Exception):
    """A file that cannot be used: which one, where in it, and what to do."""


def arrow() -> ModuleType:
    """pyarrow with the parts that are used, loaded when a file is first opened."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as missing:
        raise DataError(
            "reading CSV and Parquet needs pyarrow: install the extra `files` (`train` brings it)"
        ) from missing
    loaded: ModuleType = pyarrow
    return loaded


def read_columns(path: Path) -> dict[str, pa.ChunkedArray]:
    """The named columns in file order, a CSV's as text, Parquet's as typed; an unnamed one is an index and left out."""
    if path.suffix.lower() == ".csv":
        names, columns = _csv(path)
    else:
        names, columns = _parquet(path)
    stripped = [name.strip() for name in names]
    twice = next((name for name in stripped if name and stripped.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are named {twice!r}; rename one")
    if not columns or not len(columns[0]):
        raise DataError(f"{path}: has no rows; remove the file or add readings")
    return {name: column for name, column in zip(stripped, columns, strict=True) if name}


def _csv(path: Path) -> tuple[list[str], list[pa.ChunkedArray]]:
    pa = arrow()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
        delimiter = max(",;\t", key=first.count)
        header = next(csv.reader([first], delimiter=delimiter), [])
        if not header:
            raise DataError(f"{path}: is empty; remove it, or write a header and readings")
        as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True)
        table = pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(delimiter=delimiter), convert_options=as_text)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); convert it with iconv -t UTF-8") from error
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise DataError(f"{path}: is not UTF-8 text ({error}); convert it with iconv -t UTF-8") from error
        raise DataError(f"{path}: does not read as CSV: {error}") from error
    return list(table.column_names), list(table.columns)


def _parquet(path: Path) -> tuple[list[str], list[pa.ChunkedArray]]:
    pa = arrow()
    try:
        table = pa.parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: does not read as Parquet: {error}; write it anew or remove it") from error
    return list(table.column_names), [_decoded(column) for column in table.columns]


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    pa = arrow()
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def texts(path: Path, name: str, column: pa.ChunkedArray) -> list[str]:
    """The cells of a naming column (sensor, channel); none may be empty."""
    pa = arrow()
    cells: list[str | None] = column.cast(pa.string()).to_pylist()
    for row, cell in enumerate(cells, 1):
        if not cell or not cell.strip():
            raise DataError(f"{path}: column {name!r} is empty in row {row}; name the {name} or remove the row")
    return [cell.strip() for cell in cells if cell]


def numbers(path: Path, name: str, column: pa.ChunkedArray) -> FloatArray:
    """A channel as float64, (rows,): an empty or non-finite cell is missing (NaN), true and false are 1 and 0."""
    pa = arrow()
    if _is_text(column):
        column = _blank_as_null(column)
        wanted = pa.bool_() if _casts(column, pa.bool_()) and not _casts(column, pa.float64()) else pa.float64()
        if not _casts(column, wanted):
            row = _first_that_does_not_cast(column, wanted)
            raise DataError(
                f"{path}: column {name!r} holds text: row {row + 1} is {column[row].as_py()!r}; "
                "leave the cell empty where there is no value, or remove the column"
            )
        column = column.cast(wanted)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    try:
        values = column.cast(pa.float64(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path}: column {name!r} holds {column.type}, not numbers; remove it") from error
    return np.where(np.isfinite(values), values, np.nan)


def instants(path: Path, name: str, column: pa.ChunkedArray, timezone: str) -> tuple[IntArray, str]:
    """A timestamp column as µs UTC, (rows,), and the zone its stamps were written in: "" where they name none.

    RFC 3339 or ISO text, timestamps, dates, or epoch numbers in s, ms, µs or ns, told by their size.
    """
    pa = arrow()
    if _is_text(column):
        column = _blank_as_null(column)
    if column.null_count:
        row = column.is_null().to_pylist().index(True) + 1
        raise DataError(f"{path}: column {name!r} has no time in row {row}; fill it in or remove the row")
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if _is_text(column):
        for kind in (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
            if _casts(column, kind):
                column = column.cast(kind)
                break
        else:
            return _each_instant(path, name, column.to_pylist(), timezone)
    if pa.types.is_timestamp(column.type):
        microseconds = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_numpy()
        if column.type.tz is not None:
            return microseconds, "UTC"
        return (microseconds, "") if timezone == "UTC" else (_utc(microseconds, timezone), timezone)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(f"{path}: column {name!r} holds {column.type}, not times; write RFC 3339 or epoch numbers")
    return _since_epoch(path, name, column.to_numpy()), ""


def instant(text: str, timezone: str = "UTC") -> int:
    """One RFC 3339 or ISO time as µs UTC; a naive one is read in `timezone`. ValueError where it is neither."""
    parsed = datetime.fromisoformat(text.strip())
    aware = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=zone(timezone))
    return (aware - EPOCH) // MICROSECOND


def zone(name: str) -> tzinfo:
    """A time zone by its name in the tz database; UTC needs none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as unknown:
        raise DataError(f"{name!r} is not a time zone; examples: UTC, Europe/Berlin") from unknown


def stamps(times: IntArray, written_in: str) -> Sequence[str]:
    """Times as they were written: naive stays naive, in its own zone; what named an offset is given in UTC, with Z."""
    if written_in not in ("", "UTC"):
        there = zone(written_in)
        offsets = [(EPOCH + t * MICROSECOND).astimezone(there).utcoffset() for t in times.tolist()]
        times = times + np.array([(o or timedelta()) // MICROSECOND for o in offsets], np.int64)
    exact: npt.NDArray[np.datetime64] = times.astype("datetime64[us]")
    text = np.datetime_as_string(exact, unit="us" if (times % SECOND).any() else "s").tolist()
    suffix = "Z" if written_in == "UTC" else ""
    return [stamp.replace("T", " ") + suffix for stamp in text]


def _each_instant(path: Path, name: str, cells: Sequence[str], timezone: str) -> tuple[IntArray, str]:
    """Row by row, for what Arrow's parser does not take: offsets in only some rows, more than six decimals."""
    times = np.empty(len(cells), np.int64)
    for row, cell in enumerate(cells):
        try:
            times[row] = instant(cell, timezone)
        except ValueError as error:
            raise DataError(
                f"{path}: column {name!r} is not a time in row {row + 1}: {cell!r}; "
                "write RFC 3339 (2026-11-22T21:30:00Z) or epoch numbers"
            ) from error
    naive = all(datetime.fromisoformat(cell.strip()).tzinfo is None for cell in cells)
    return times, ("" if timezone == "UTC" else timezone) if naive else "UTC"


def _since_epoch(path: Path, name: str, count: FloatArray | IntArray) -> IntArray:
    size = float(np.median(np.abs(count)))
    times = np.round(np.asarray(count, np.float64) * next(factor for limit, factor in EPOCH_UNITS if not size >= limit))
    known = np.abs(times) < END_OF_TIME  # not so for NaN
    if not known.all():
        row = int(np.argmin(known))
        raise DataError(f"{path}: column {name!r} is not a time in row {row + 1}: {count[row]}; write epoch numbers")
    return times.astype(np.int64)


def _utc(wall: IntArray, timezone: str) -> IntArray:
    """Wall-clock µs to µs UTC. The hour that a clock set back repeats is read as its first run."""
    there, origin = zone(timezone), EPOCH.replace(tzinfo=None)
    offsets = [there.utcoffset(origin + t * MICROSECOND) or timedelta() for t in wall.tolist()]
    return wall - np.array([offset // MICROSECOND for offset in offsets], np.int64)


def _is_text(column: pa.ChunkedArray) -> bool:
    pa = arrow()
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _blank_as_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    pa = arrow()
    trimmed = pa.compute.utf8_trim_whitespace(column)
    return pa.compute.if_else(pa.compute.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)


def _casts(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    try:
        column.cast(kind)
    except arrow().ArrowInvalid:
        return False
    return True


def _first_that_does_not_cast(column: pa.ChunkedArray, kind: pa.DataType) -> int:
    low, high = 0, len(column)  # the rows before `low` cast, those before `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        if _casts(column.slice(low, middle - low), kind):
            low = middle
        else:
            high = middle
    return low
