"""What a replay leaves in its folder: scores for everyone, and for an evaluation what was expected and allowed.

    <sensor>.csv                 timestamp, score, alert: one row a reading
    _replay.json                 the budget, and of each group its model, threshold and sensors
    _signals/<sensor>.parquet    values, what had been expected of them, and how far off that usually is

Names that begin with `_` are passed over where a folder is read as readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from pipeline.adapters.columns import DataError, arrow, numbers, read_columns, stamps
from pipeline.adapters.files import Series
from pipeline.core.readings import BoolArray, FloatArray

RUN = "_replay.json"
SIGNALS = "_signals"
FORMAT = 1
BAND_BITS = 8  # expected values and bands are kept to 2**-8 of the band, which takes a quarter of the bytes


class GroupRun(msgspec.Struct, frozen=True):
    """How the sensors of one group were replayed."""

    model: str
    version: str
    sha256: str  # of the model's manifest
    interval_us: int
    threshold: float  # at which alerts open
    allowed: float  # false alarms a reading: the budget at this interval, in this fleet
    sensors: tuple[str, ...]  # that were replayed


class Run(msgspec.Struct, frozen=True):
    """How a folder of scores came about."""

    budget: str  # in the operator's words
    fleet: int  # sensors that a budget of the fleet is shared by
    groups: Mapping[str, GroupRun]
    format: int = FORMAT


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """The forecast channels of one replayed sensor, a row a reading, in the channels' units."""

    channels: tuple[str, ...]
    values: FloatArray  # (n, channels), NaN where there was no value
    expected: FloatArray  # (n, channels), NaN where there was no forecast
    band: FloatArray  # (n, channels) half width of the usual error

    def __len__(self) -> int:
        return len(self.values)


def write_scores(folder: Path, series: Series, scores: FloatArray, alert: BoolArray) -> Path:
    """`folder/<sensor>.csv`: timestamp, score, alert, one row a reading, the stamps in the zone they came in."""
    path = _of(folder, series.sensor, ".csv")
    if not np.isfinite(scores).all():
        raise ValueError(f"{series.sensor}: a score is not finite")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(stamps(series.times, series.zone), scores.tolist(), alert.tolist(), strict=True)
    with path.open("w", encoding="utf-8") as file:
        file.write("timestamp,score,alert\n")
        file.writelines(f"{stamp},{score!r},{open_:d}\n" for stamp, score, open_ in rows)
    return path


def write_signals(folder: Path, series: Series, signals: Signals) -> Path:
    """`folder/_signals/<sensor>.parquet`: timestamp, then value:x, expected:x and band:x of each channel x."""
    path = _of(folder / SIGNALS, series.sensor, ".parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pa = arrow()
    columns = {"timestamp": pa.array(series.times, pa.timestamp("us", "UTC"))}
    expected = _to_the_bands_precision(signals.expected, signals.band)
    band = _to_the_bands_precision(signals.band, signals.band).astype(np.float32)
    for i, channel in enumerate(signals.channels):
        columns[f"value:{channel}"] = pa.array(signals.values[:, i])
        columns[f"expected:{channel}"] = pa.array(expected[:, i])
        columns[f"band:{channel}"] = pa.array(band[:, i])
    pa.parquet.write_table(pa.table(columns), path, compression="zstd")
    return path


def read_signals(folder: Path, sensor: str, rows: int) -> Signals | None:
    """What `write_signals` wrote of a sensor with so many scores; None where nothing was."""
    path = _of(folder / SIGNALS, sensor, ".parquet")
    if not path.is_file():
        return None
    columns = read_columns(path)
    channels = tuple(name.removeprefix("value:") for name in columns if name.startswith("value:"))
    wanted = [[f"{part}:{channel}" for channel in channels] for part in ("value", "expected", "band")]
    if absent := [name for names in (["timestamp"], *wanted) for name in names if name not in columns]:
        raise DataError(f"{path}: has no column {absent[0]!r}; replay once more")
    if (found := len(columns["timestamp"])) != rows:
        raise DataError(f"{path}: has {found} rows, but there are {rows} scores; replay once more")
    values, expected, band = (np.stack([numbers(path, n, columns[n]) for n in names], axis=1) for names in wanted)
    return Signals(channels, values, expected, band)


def write_run(folder: Path, run: Run) -> None:
    """`folder/_replay.json`."""
    (folder / RUN).write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")


def read_run(folder: Path) -> Run | None:
    """How the scores in `folder` came about; None where they are not those of `foreshock replay`."""
    path = folder / RUN
    if not path.is_file():
        return None
    try:
        run = msgspec.json.decode(path.read_bytes(), type=Run)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: {error}; replay once more, or remove it") from error
    if run.format != FORMAT:
        raise DataError(f"{path}: is of format {run.format}, this release reads {FORMAT}; replay once more")
    return run


def _of(folder: Path, sensor: str, suffix: str) -> Path:
    path = folder / f"{sensor}{suffix}"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"sensor {sensor!r} would be written outside {folder}; rename it")
    return path


def _to_the_bands_precision(values: FloatArray, band: FloatArray) -> FloatArray:
    """Bits far below the band say nothing and do not compress; (n, channels)."""
    of_band = np.where(band > 0, np.frexp(band)[1] - 1 - BAND_BITS, np.iinfo(np.int32).min)
    exponent = np.maximum(of_band, np.frexp(values)[1] - 53)  # a double has no finer bits
    kept: FloatArray = np.ldexp(np.rint(np.ldexp(values, -exponent)), exponent)
    return kept
