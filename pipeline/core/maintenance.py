"""Sensors that are being worked on, as an operator has said: their readings of that time are no measurements."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.events import Maintain
from pipeline.core.names import coded
from pipeline.core.readings import DAY, Quality, Reading, ReadingBatch
from pipeline.core.table import Arrays, names_in

MOST = 100_000  # spans of a partition; of more, the one that was looked at longest ago is forgotten
LOOKS = 2  # spans that an event looks at: they come to be looked at faster than new ones come


class _Span(NamedTuple):
    since: int  # µs UTC
    until: int


_NONE: Mapping[str, _Span] = {}


class Maintenance:
    """The newest span of each sensor, by partition. What follows from them is the same however readings are cut."""

    def __init__(self) -> None:
        # by partition, the one that was said or looked at longest ago first: of a dict, to find it takes ever longer
        self._spans: dict[int, OrderedDict[str, _Span]] = {}

    def apply(self, event: Maintain) -> None:
        """It takes the place of what was said of this sensor before.

        Of the others, two are looked at, in turn, and forgotten if they ended a day before the event, by the earlier of
        its own time and its record's: one event of a wrong time costs two spans at most.
        """
        here = self._spans.setdefault(event.partition, OrderedDict())
        here.pop(event.sensor, None)
        over = min(event.time, event.received) - DAY
        for sensor in list(islice(here, LOOKS)):
            if here[sensor].until < over:
                del here[sensor]
            else:
                here.move_to_end(sensor)
        if len(here) >= MOST:
            here.popitem(last=False)
        here[event.sensor] = _Span(event.time, event.until)

    def covers(self, partition: int, sensor: str, time: int) -> bool:
        """Whether a reading of this time is one."""
        span = self._spans.get(partition, _NONE).get(sensor)
        return span is not None and span.since <= time < span.until

    def of(self, sensor: str) -> dict[str, float] | None:
        """What was said of a sensor, in ms since 1970, over or not; None where nothing is known."""
        for here in self._spans.values():
            if sensor in here:
                return {"start": here[sensor].since / 1000, "end": here[sensor].until / 1000}
        return None

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
        home = np.full(len(names.table), -1, np.int64)  # partition of each entry; -1: no reading has it
        home[names.at] = batch.partitions
        said = [name in self._spans.get(here, ()) for name, here in zip(names.table, home.tolist(), strict=True)]
        entries = np.array(said, np.bool_)
        usable = batch.usable.copy()
        for row in np.flatnonzero(entries[names.at]).tolist():
            if self.covers(int(batch.partitions[row]), names[row], int(batch.times[row])):
                usable[row] = False
        return replace(batch, usable=usable)

    def snapshot(self, partition: int) -> Arrays:
        """What was said there, in that order; {} where nothing was."""
        here = self._spans.get(partition, _NONE)
        names = np.array([sensor.encode() for sensor in here], np.bytes_)
        return {"names": names, "spans": np.array(list(here.values()), np.int64)} if here else {}

    def restore(self, partition: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace what was said there by a snapshot; ValueError where that is none."""
        names, spans = names_in(arrays, "maintenance"), arrays.get("spans")
        if spans is None or spans.dtype != np.int64 or spans.shape[1:] != (2,):
            raise ValueError("maintenance field spans: expected two times of each sensor")
        said = zip(names, spans.tolist(), strict=True)
        self._spans[partition] = OrderedDict((name, _Span(*span)) for name, span in said)

    def drop(self, partition: int) -> None:
        """Let a partition go."""
        self._spans.pop(partition, None)
