"""Readings from CSV and Parquet, one series a sensor in file order.

A file is wide (timestamp, channels…) or long (sensor, timestamp, value[, channel]); `sensor` beside several value
columns is taken as well. Rows keep their order: duplicate and backward stamps are for the detector to judge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.adapters.columns import DataError, instants, numbers, read_columns, texts
from pipeline.core.readings import SECOND, FloatArray, IntArray, ReadingBatch

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DataError", "Series", "iter_batches", "read"]

SUFFIXES = (".csv", ".parquet")
SENSOR_TABLE = "sensors.csv"  # beside the readings; read by `adapters.sensors`
TIME_NAMES = ("timestamp", "time", "ts", "datetime", "date", "__index_level_0__")  # the last: a pandas index in Parquet
UNNAMED_TIME = (315_532_800 * SECOND, 4_102_444_800 * SECOND)  # 1980 to 2100: a first column without a telling name


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """All readings of one sensor, in file order."""

    sensor: str
    times: IntArray  # (n,) µs UTC
    channels: tuple[str, ...]
    values: FloatArray  # (n, channels), NaN where there is no value
    zone: str = ""  # the zone its stamps are written in; "" where they name none and are UTC

    def __len__(self) -> int:
        return len(self.times)

    def first(self, rows: int) -> Series:
        """The series up to row `rows`."""
        return replace(self, times=self.times[:rows], values=self.values[:rows])

    def columns(self, channels: Sequence[str]) -> FloatArray:
        """The values of `channels` in that order, (n, channels); NaN for one that this sensor does not have."""
        wanted = np.full((len(self), len(channels)), np.nan)
        for i, channel in enumerate(channels):
            if channel in self.channels:
                wanted[:, i] = self.values[:, self.channels.index(channel)]
        return wanted


def read(path: Path | str, timezone: str = "UTC") -> list[Series]:
    """Every sensor in a file or, by path, in a folder and those below it; stamps without an offset are in `timezone`.

    A wide file's sensor is its path below the folder without the suffix, a long file's stands in its rows; the rows
    of a sensor that several long files hold follow each other in the order of the files' paths.
    """
    root = Path(path)
    parts: dict[str, list[Series]] = defaultdict(list)
    wide: dict[str, Path] = {}
    for file in _files(root):
        name = file.stem if root.is_file() else file.relative_to(root).with_suffix("").as_posix()
        found, long = _series(file, name, timezone)
        for series in found:
            if series.sensor in parts and (not long or series.sensor in wide):
                other = wide.get(series.sensor, root)
                raise DataError(f"{file}: sensor {series.sensor!r} is in {other} too; rename or remove one of them")
            if not long:
                wide[series.sensor] = file
        for series in found:
            parts[series.sensor].append(series)
    return [_joined(same) for same in parts.values()]


def iter_batches(series: Sequence[Series], channels: Sequence[str], rows: int = 4096) -> Iterator[ReadingBatch]:
    """Replay order: row 0 of every sensor, then row 1 of every sensor that has one, in batches of about `rows`.

    A reading's offset is its row in its series; all are in partition 0 and bounded by no broker's clock.
    """
    values = [s.columns(channels) for s in series]
    start, longest = 0, max(map(len, series), default=0)
    while start < longest:
        live = [i for i, s in enumerate(series) if len(s) > start]
        stop = start + max(rows // len(live), 1)
        offsets = np.concatenate([np.arange(start, min(stop, len(series[i]))) for i in live])
        order = np.argsort(offsets, kind="stable")
        owners = np.repeat(live, [min(stop, len(series[i])) - start for i in live])[order]
        yield ReadingBatch(
            sensors=[series[i].sensor for i in owners.tolist()],
            times=np.concatenate([series[i].times[start:stop] for i in live])[order],
            values=np.concatenate([values[i][start:stop] for i in live])[order],
            usable=np.ones(len(order), np.bool_),
            partitions=np.zeros(len(order), np.int64),
            offsets=offsets[order],
            received=np.zeros(len(order), np.int64),
        )
        start = stop


def _files(root: Path) -> list[Path]:
    if root.is_file():
        if root.suffix.lower() not in SUFFIXES:
            raise DataError(f"{root}: is neither .csv nor .parquet; convert it or name it so")
        return [root]
    if not root.is_dir():
        raise DataError(f"{root}: does not exist; give a CSV or Parquet file, or a folder of them")
    found = [p for p in sorted(root.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    visible = [p for p in found if not any(part[0] in "._" for part in p.relative_to(root).parts)]
    readings = [p for p in visible if p != root / SENSOR_TABLE]
    if not readings:
        raise DataError(f"{root}: holds no .csv or .parquet file; put one file a sensor there, or one for all of them")
    return readings


def _series(path: Path, name: str, timezone: str) -> tuple[list[Series], bool]:
    """The sensors of one file, and whether its rows name them."""
    columns = read_columns(path)
    time_name = _time_column(path, columns, timezone)
    times, zone = instants(path, time_name, columns.pop(time_name), timezone)
    roles = {column.lower(): column for column in reversed(columns)}
    value, channel, sensor = roles.get("value"), roles.get("channel"), roles.get("sensor")
    owners = np.zeros(len(times), np.intp)
    names, long = [name], sensor is not None
    if sensor is not None:
        names, owners = _labels(texts(path, sensor, columns.pop(sensor)))
    if not columns:
        raise DataError(f"{path}: has no column of values beside {time_name!r}; add at least one")
    if channel is not None and value is not None:
        if others := sorted(set(columns) - {channel, value}):
            raise DataError(f"{path}: names channels in {channel!r}, so column {others[0]!r} has no meaning; remove it")
        kinds, which = _labels(texts(path, channel, columns[channel]))
        amounts = numbers(path, value, columns[value])
        split = [_pivot(s, times[r], which[r], amounts[r], kinds, zone) for s, r in _by_owner(names, owners)]
        return split, long
    values = np.stack([numbers(path, column, cells) for column, cells in columns.items()], axis=1)
    if not long:
        return [Series(name, times, tuple(columns), values, zone)], False
    return [Series(s, times[r], tuple(columns), values[r], zone) for s, r in _by_owner(names, owners)], True


def _time_column(path: Path, columns: dict[str, pa.ChunkedArray], timezone: str) -> str:
    roles = {column.lower(): column for column in reversed(columns)}
    for name in TIME_NAMES:
        if name in roles:
            return roles[name]
    first = next(iter(columns))
    try:
        times, _ = instants(path, first, columns[first], timezone)
    except DataError:
        times = np.zeros(1, np.int64)
    if UNNAMED_TIME[0] <= times.min() and times.max() < UNNAMED_TIME[1]:
        return first
    raise DataError(
        f"{path}: has no timestamp column: none is called {', '.join(TIME_NAMES[:-1])}, and the first, {first!r}, "
        f"does not read as time (row 1 is {columns[first][0].as_py()!r}); name it timestamp"
    )


def _labels(cells: list[str]) -> tuple[list[str], npt.NDArray[np.intp]]:
    """Distinct names in order of appearance, and which of them each row has."""
    index = {cell: i for i, cell in enumerate(dict.fromkeys(cells))}
    return list(index), np.array([index[cell] for cell in cells], np.intp)


def _by_owner(names: list[str], owners: npt.NDArray[np.intp]) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
    """Each name with its rows in file order."""
    order = np.argsort(owners, kind="stable")
    return zip(names, np.split(order, np.cumsum(np.bincount(owners))[:-1]), strict=True)


def _pivot(
    sensor: str, times: IntArray, which: npt.NDArray[np.intp], amounts: FloatArray, kinds: list[str], zone: str
) -> Series:
    """Long to wide: one row a time, in order of appearance; a channel that repeats at a time begins another row."""
    order = np.lexsort((times, which))  # stable: repeats stay in file order
    same = np.r_[False, (np.diff(times[order]) == 0) & (np.diff(which[order]) == 0)]
    place = np.arange(len(order))
    repeat = np.empty(len(order), np.int64)
    repeat[order] = place - np.maximum.accumulate(np.where(same, 0, place))
    _, seen, row = np.unique(np.stack([times, repeat]), axis=1, return_index=True, return_inverse=True)
    present = np.unique(which)
    values = np.full((len(seen), len(present)), np.nan)
    values[np.argsort(np.argsort(seen))[row], np.searchsorted(present, which)] = amounts
    return Series(sensor, times[np.sort(seen)], tuple(kinds[k] for k in present.tolist()), values, zone)


def _joined(parts: list[Series]) -> Series:
    if len(parts) == 1:
        return parts[0]
    channels = tuple(dict.fromkeys(channel for part in parts for channel in part.channels))
    times = np.concatenate([part.times for part in parts])
    values = np.concatenate([part.columns(channels) for part in parts])
    return replace(parts[0], times=times, channels=channels, values=values)
