"""Sensors that are being worked on, as an operator has said: their readings of that time are no measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.events import Maintain
from pipeline.core.names import coded
from pipeline.core.readings import DAY, Quality, Reading, ReadingBatch
from pipeline.core.table import Arrays

MOST = 100_000  # sensors of a partition; the one that was said first is forgotten


class _Span(NamedTuple):
    since: int  # µs UTC
    until: int


class Maintenance:
    """The newest span of each sensor, by partition. What follows from them is the same however readings are cut."""

    def __init__(self) -> None:
        self._spans: dict[int, dict[str, _Span]] = {}

    def apply(self, event: Maintain) -> None:
        """It takes the place of what was said of this sensor before; what was over for a day is forgotten."""
        here = self._spans.setdefault(event.partition, {})
        here.pop(event.sensor, None)
        for sensor in [name for name, span in here.items() if span.until < event.received - DAY]:
            del here[sensor]
        if len(here) >= MOST:
            del here[next(iter(here))]
        here[event.sensor] = _Span(event.time, event.until)

    def covers(self, partition: int, sensor: str, time: int) -> bool:
        """Whether a reading of this time is one."""
        span = self._spans.get(partition, {}).get(sensor)
        return span is not None and span.since <= time < span.until

    def said_of(self, reading: Reading) -> Reading:
        """The reading, its quality `maintenance` where it was good and is one."""
        if reading.quality is not Quality.GOOD or not self.covers(reading.partition, reading.sensor, reading.time):
            return reading
        return reading._replace(quality=Quality.MAINTENANCE)

    def masked(self, batch: ReadingBatch) -> ReadingBatch:
        """The same readings, those under maintenance not usable."""
        if not any(self._spans.values()):
            return batch
        names = coded(batch.sensors)
        known = {name for spans in self._spans.values() for name in spans}
        entries = np.array([name in known for name in names.table], np.bool_)
        usable = batch.usable.copy()
        for row in np.flatnonzero(entries[names.at]).tolist():
            if self.covers(int(batch.partitions[row]), names[row], int(batch.times[row])):
                usable[row] = False
        return replace(batch, usable=usable)

    def snapshot(self, partition: int) -> Arrays:
        """What was said there, in that order; {} where nothing was."""
        here = self._spans.get(partition, {})
        names = np.array([sensor.encode() for sensor in here], np.bytes_)
        return {"names": names, "spans": np.array(list(here.values()), np.int64)} if here else {}

    def restore(self, partition: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace what was said there by a snapshot; ValueError where that is none."""
        if arrays["spans"].dtype != np.int64 or arrays["spans"].shape[1:] != (2,):
            raise ValueError("maintenance: not spans of two times")
        names = [bytes(name).decode() for name in arrays["names"].tolist()]
        self._spans[partition] = {n: _Span(*s) for n, s in zip(names, arrays["spans"].tolist(), strict=True)}

    def drop(self, partition: int) -> None:
        """Let a partition go."""
        self._spans.pop(partition, None)
