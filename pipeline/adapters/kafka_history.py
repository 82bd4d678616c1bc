"""A span of a topic as history: readings as one series a sensor, or the alerts that were raised on them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain

import numpy as np
import numpy.typing as npt

from pipeline.adapters.files import DataError, Series
from pipeline.adapters.kafka_span import QUIET_SECONDS, OnRecords, records_since
from pipeline.codecs import decode
from pipeline.codecs.events import decode_event, parted
from pipeline.codecs.json import decode_alert
from pipeline.core.alerts import Alert
from pipeline.core.events import Maintain
from pipeline.core.joining import Whole, whole
from pipeline.core.maintenance import Maintenance
from pipeline.core.readings import Quality, Reading, Reason, Record, Rejected
from pipeline.core.tags import Tags
from pipeline.settings_schema import KafkaSettings

NAN = float("nan")
SPAN = re.compile(r"(?P<count>\d+(\.\d+)?)\s*(?P<unit>s|min|h|d|w)")
UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
QUALITY = {quality: code for code, quality in enumerate(Quality)}


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """The readings in a span of a topic."""

    series: list[Series]  # by sensor, its readings in the order of arrival, unusable ones among them
    quality: Mapping[str, npt.NDArray[np.uint8]]  # sensor -> index into Quality of each of its readings; others: good
    refused: int  # messages


def parse_since(text: str, now: datetime) -> int:
    """`30d`, `12h` before `now`, or an RFC 3339 time, in µs UTC; ValueError where it is neither."""
    span = SPAN.fullmatch(text.strip())
    try:
        if span:
            start = now - timedelta(**{UNITS[span["unit"]]: float(span["count"])})
        else:
            start = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r:.80} is neither a span such as 30d, 12h or 90min nor an RFC 3339 time") from None
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    return round(start.timestamp() * 1e6)


def read_readings(
    settings: KafkaSettings,
    topic: str,
    since: int,
    max_future: int,
    on_records: OnRecords | None = None,
    *,
    tags: Tags | None = None,
    join: bool = False,
) -> Recorded:
    """Every reading whose record is not older than `since` (µs); DataError where there is none.

    Takes 9 bytes a reading and 8 for each of its channels. Refused is what the live service would refuse: a message
    that is no reading, and a reading more than `max_future` (µs) ahead of its record. With `join`, or `tags`, readings
    that name a part of their sensor's channels are joined. What an operator has called maintenance is of that quality.
    """
    columns: dict[tuple[str, int], _Columns] = {}
    refused, maintenance = 0, Maintenance()
    for records, event in chain.from_iterable(map(parted, records_since(settings, topic, since, on_records))):
        readings, rejected = decode(records, tags)
        refused += len(rejected)
        for reading in readings:
            if reading.received and reading.time > reading.received + max_future:
                refused += 1
                continue
            place = reading.sensor, reading.partition
            if (of_sensor := columns.get(place)) is None:
                of_sensor = columns[place] = _Columns()
            of_sensor.add(maintenance.said_of(reading))
        if event is not None and isinstance(said := decode_event(event), Maintain):
            maintenance.apply(said)
    if not columns:
        start = datetime.fromtimestamp(since / 1e6, UTC).isoformat(timespec="seconds")
        raise DataError(f"topic {topic} holds no reading since {start}; go further back, or check what is produced")
    return _recorded(columns, refused, join=join or tags is not None)


def read_alerts(
    settings: KafkaSettings, topic: str, quiet_seconds: float = QUIET_SECONDS
) -> Iterator[Alert | Rejected]:
    """Every alert in the topic, for one that is still open may be older than any span of readings.

    A message that this build cannot read as an alert comes as the refusal of it. What an open transaction holds back is
    waited for so long as `quiet_seconds`.
    """
    for records in records_since(settings, topic, 0, quiet_seconds=quiet_seconds):
        for record in records:
            if record.value is not None:  # a deletion
                yield _alert(record, record.value)


def _alert(record: Record, payload: bytes) -> Alert | Rejected:
    try:
        return decode_alert(payload)
    except ValueError as error:
        where = record.topic, record.partition, record.offset, record.key, record.value
        return Rejected(Reason.UNREADABLE, str(error), *where)


class _Columns:
    """One sensor's readings in one partition, in flat arrays that grow."""

    def __init__(self) -> None:
        self.times, self.quality = array("q"), array("B")
        self.values: dict[str, array[float]] = {}

    def add(self, reading: Reading) -> None:
        row = len(self.times)
        self.times.append(reading.time)
        self.quality.append(QUALITY[reading.quality])
        for channel, value in reading.values.items():
            if (column := self.values.get(channel)) is None:
                column = self.values[channel] = array("d", [NAN]) * row
            column.append(value)
        if len(reading.values) < len(self.values):
            for column in self.values.values():
                if len(column) == row:
                    column.append(NAN)

    def series(self, sensor: str) -> Series:
        values = np.stack([np.frombuffer(column) for column in self.values.values()], axis=1)
        return Series(sensor, np.frombuffer(self.times, np.int64), tuple(self.values), values)


def _recorded(columns: dict[tuple[str, int], _Columns], refused: int, *, join: bool) -> Recorded:
    """Lets go of the columns one by one. A sensor that moved to another partition was there later."""
    partitions: dict[str, list[_Columns]] = {}
    for sensor, partition in sorted(columns):
        partitions.setdefault(sensor, []).append(columns.pop((sensor, partition)))
    series: list[Series] = []
    quality: dict[str, npt.NDArray[np.uint8]] = {}
    for sensor in sorted(partitions):
        parts = sorted(partitions.pop(sensor), key=lambda part: part.times[0])
        said = [np.frombuffer(part.quality, np.uint8) for part in parts]
        found = [part.series(sensor) for part in parts]
        if join:
            found, said = map(list, zip(*map(_whole, found, said), strict=True))
        if any(each.any() for each in said):
            quality[sensor] = np.concatenate(said)
        series.append(_joined(found))
    return Recorded(series, quality, refused)


def _whole(part: Series, quality: npt.NDArray[np.uint8]) -> tuple[Series, npt.NDArray[np.uint8]]:
    parts = Whole(part.times, part.values, quality == QUALITY[Quality.GOOD])
    if (made := whole(parts)) is parts:
        return part, quality
    said = np.where(made.usable, QUALITY[Quality.GOOD], QUALITY[Quality.BAD]).astype(np.uint8)
    return replace(part, times=made.times, values=made.values), said


def _joined(parts: list[Series]) -> Series:
    channels = tuple(dict.fromkeys(channel for part in parts for channel in part.channels))
    times = np.concatenate([part.times for part in parts])
    return Series(parts[0].sensor, times, channels, np.concatenate([part.columns(channels) for part in parts]))
