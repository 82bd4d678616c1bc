"""What is known of sensors beforehand: unit, physical limits, interval, whether a channel is constant by nature."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.adapters.columns import DataError
from pipeline.core.events import Bound
from pipeline.core.readings import SECOND

COLUMNS = ("sensor", "channel", "unit", "low", "high", "interval", "constant")
INTERVAL = re.compile(r"(?P<count>\d+(\.\d+)?)\s*(?P<unit>ms|s|min|h|d)?")
UNITS = {"ms": SECOND // 1000, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND, "d": 86_400 * SECOND}
ANSWERS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class SensorRow:
    """One line of `sensors.csv`. None where the line says nothing."""

    sensor: str  # a name, or a pattern such as plant1/pump-*
    channel: str = "*"
    unit: str = ""
    low: float | None = None  # physical limits, in the channel's unit
    high: float | None = None
    interval: int | None = None  # µs between readings
    constant: bool | None = None  # by nature: standing still is no fault

    def covers(self, sensor: str, channel: str) -> bool:
        """Whether this line speaks of that channel of that sensor."""
        return fnmatchcase(sensor, self.sensor) and fnmatchcase(channel, self.channel)


def read_sensors_csv(path: Path) -> list[SensorRow]:
    """The lines in file order; where several cover a channel, the caller lets the later one win."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; it has to be a CSV file in UTF-8") from error
    lines = csv.DictReader(text.splitlines(), skipinitialspace=True)
    unknown = sorted(set(lines.fieldnames or ()) - set(COLUMNS))
    if unknown or "sensor" not in (lines.fieldnames or ()):
        wrong = f"column {unknown[0]!r} is unknown" if unknown else "there is no column 'sensor'"
        raise DataError(f"{path}: {wrong}; the columns are {', '.join(COLUMNS)}")
    return [_row(f"{path}: line {lines.line_num}", line) for line in lines]


def bounds(rows: Sequence[SensorRow], channels: Sequence[str]) -> tuple[Bound, ...]:
    """The physical limits in sensors.csv, for each of these channels; the later of two lines comes first."""
    found = []
    for row in reversed(rows):
        low = -math.inf if row.low is None else row.low
        high = math.inf if row.high is None else row.high
        covered = [channel for channel in channels if fnmatchcase(channel, row.channel)]
        if math.isfinite(low) or math.isfinite(high):
            found += [Bound(row.sensor, channel, low, high, row.unit) for channel in covered]
    return tuple(found)


def _row(where: str, line: Mapping[str | None, str | None]) -> SensorRow:
    if None in line:
        raise DataError(f"{where}: has more cells than the header; quote a cell that holds a comma")
    cells = {name: (line.get(name) or "").strip() for name in COLUMNS}
    if not cells["sensor"]:
        raise DataError(f"{where}: the sensor is empty; write its name, or * for every sensor")
    low, high = (_number(where, name, cells[name]) for name in ("low", "high"))
    if low is not None and high is not None and low >= high:
        raise DataError(f"{where}: low {low:g} is not below high {high:g}")
    answer = cells["constant"].lower()
    if answer and answer not in ANSWERS:
        raise DataError(f"{where}: constant is {cells['constant']!r}; write true or false")
    return SensorRow(
        sensor=cells["sensor"],
        channel=cells["channel"] or "*",
        unit=cells["unit"],
        low=low,
        high=high,
        interval=_interval(where, cells["interval"]),
        constant=ANSWERS.get(answer),
    )


def _number(where: str, name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {name} is {cell!r}; write a number, or leave it empty where there is no limit")
    return value


def _interval(where: str, cell: str) -> int | None:
    if not cell:
        return None
    found = INTERVAL.fullmatch(cell)
    span = round(float(found["count"]) * UNITS[found["unit"] or "s"]) if found else 0
    if span <= 0:
        raise DataError(f"{where}: interval is {cell!r}; write seconds, or a number with ms, s, min, h or d")
    return span
