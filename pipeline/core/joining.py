"""Readings that name a part of their sensor's channels, joined: one reading a sampling interval, as the model has it.

A sensor has one reading open at most. It takes what comes within half an interval of its time, each channel once, and
is complete when all channels are there, or when a reading of another interval comes; a channel that did not come has no
value then. A part that lies before the open reading is late and dropped; a reading that lies there and is whole passes,
for the detector to judge. When more of either come in a row than there are channels, the clock was set back, and they
are joined as any others.

What comes out follows from the readings of a partition in their order, however they are cut into batches; what is open
is state, to be kept and restored with the detector's. A reading stands where the message stands that completed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.readings import NO_SEQ, BoolArray, FloatArray, IntArray, ReadingBatch
from pipeline.core.table import Arrays, names_in

FIELDS = {"stamps": np.int64, "values": np.float64, "came": np.uint8, "usable": np.uint8}  # of what is open
STAMPS = 3  # time, received, how many in a row came before it


@dataclass(slots=True)
class _Open:
    time: int
    received: int
    values: list[float]
    came: list[bool]  # by channel: it was named, with a value that may not be usable
    usable: bool = False
    before: int = 0  # readings in a row that lie before this one


class _Complete(NamedTuple):
    sensor: str
    time: int
    values: list[float]
    usable: bool
    partition: int
    offset: int
    received: int
    seq: int = NO_SEQ  # of one that came whole or alone; joined, there are several


class Joiner:
    """Joins the readings of one group."""

    def __init__(self, channels: int, interval: int, *, max_future: int, most: int | None = None) -> None:
        """`interval` and `max_future` in µs; readings further ahead of their record are left alone, to be refused.

        Of more than `most` open readings of a partition, the one that is open for longest is dropped and counted late.
        """
        self._channels, self._max_future, self._most = channels, max_future, most
        self.follow(interval)
        self._open: dict[int, dict[str, _Open]] = {}  # by partition and sensor, the longest open first
        self._counts: dict[str, int] = {}

    def follow(self, interval: int) -> None:
        """Join by another interval (µs) from the next reading on; what is open stays open."""
        self._reach = interval // 2

    def join(self, batch: ReadingBatch) -> tuple[ReadingBatch, dict[str, int]]:
        """What is complete now, in the order of completion; and how many parts or open readings were late or duplicate.

        The readings of a partition come in the order of their offsets.
        """
        came = np.isfinite(batch.values)
        if not any(self._open.values()) and came.all():
            return batch, {}
        self._counts = {}
        done: list[_Complete] = []
        rows = zip(
            batch.sensors, batch.times.tolist(), batch.values.tolist(), batch.usable.tolist(),
            batch.partitions.tolist(), batch.offsets.tolist(), batch.received.tolist(),
            repeat(NO_SEQ, len(batch)) if batch.seqs is None else batch.seqs.tolist(), strict=True,
        )  # fmt: skip
        ends = np.cumsum(came.sum(axis=1)).tolist()
        named, begin = np.nonzero(came)[1].tolist(), 0
        for row, end in zip(rows, ends, strict=True):
            self._take(_Complete(*row), named[begin:end], done)
            begin = end
        return _batch(done, self._channels), self._counts

    def snapshot(self, partition: int) -> Arrays:
        """What is open in a partition, the longest open first."""
        here = self._open.get(partition, {})
        slots, of = list(here.values()), (len(here), self._channels)
        return {
            "names": np.array([sensor.encode() for sensor in here], np.bytes_),
            "stamps": np.array([(o.time, o.received, o.before) for o in slots], np.int64).reshape(len(here), STAMPS),
            "values": np.array([o.values for o in slots], np.float64).reshape(of),
            "came": np.array([o.came for o in slots], np.uint8).reshape(of),
            "usable": np.array([o.usable for o in slots], np.uint8),
        }

    def restore(self, partition: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace what is open there by a snapshot; ValueError where it is of other channels."""
        shapes = {"stamps": (STAMPS,), "values": (self._channels,), "came": (self._channels,), "usable": ()}
        for name, dtype in FIELDS.items():
            if name not in arrays or arrays[name].shape[1:] != shapes[name] or arrays[name].dtype != dtype:
                raise ValueError(f"open readings, field {name}: not {np.dtype(dtype)} of shape {shapes[name]}")
        names = names_in(arrays, "open readings")
        columns = (arrays[name].tolist() for name in ("stamps", "values", "came", "usable"))
        self._open[partition] = {
            sensor: _Open(time, received, values, [bool(c) for c in came], bool(usable), before)
            for sensor, (time, received, before), values, came, usable in zip(names, *columns, strict=True)
        }

    def drop(self, partition: int) -> None:
        """Let a partition go."""
        self._open.pop(partition, None)

    def retire(self, partition: int, sensor: str) -> None:
        """The sensor is gone for good, and what was open of it."""
        self._open.get(partition, {}).pop(sensor, None)

    def _take(self, reading: _Complete, named: list[int], done: list[_Complete]) -> None:
        if reading.received and reading.time > reading.received + self._max_future:
            done.append(reading)
            return
        here = self._open.setdefault(reading.partition, {})
        found = here.get(reading.sensor)
        if found is not None:
            ahead = reading.time - found.time
            if abs(ahead) < self._reach:
                self._add(found, reading, named)
                if all(found.came):
                    self._close(here, found, reading, done)
                return
            if ahead < 0 and found.before < self._channels:
                found.before += 1
                if len(named) == self._channels:
                    done.append(reading)
                else:
                    self._count("late")
                return
            self._close(here, found, reading, done)
        if len(named) == self._channels:
            done.append(reading)
            return
        if self._most is not None and len(here) >= self._most:
            del here[next(iter(here))]
            self._count("late")
        nothing = [float("nan")] * self._channels
        found = here[reading.sensor] = _Open(reading.time, reading.received, nothing, [False] * self._channels)
        self._add(found, reading, named)

    def _add(self, found: _Open, reading: _Complete, named: list[int]) -> None:
        news = [channel for channel in named if not found.came[channel]]
        if named and not news:
            said = [reading.values[channel] for channel in named]
            self._count("duplicate" if said == [found.values[channel] for channel in named] else "late")
        for channel in news:
            found.came[channel] = True
            if reading.usable:
                found.values[channel], found.usable = reading.values[channel], True
        found.before = 0

    def _close(self, here: dict[str, _Open], found: _Open, by: _Complete, done: list[_Complete]) -> None:
        del here[by.sensor]
        done.append(
            _Complete(by.sensor, found.time, found.values, found.usable, by.partition, by.offset, found.received)
        )

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1


def _batch(done: list[_Complete], channels: int) -> ReadingBatch:
    columns = zip(*done, strict=True) if done else [()] * len(_Complete._fields)
    sensors, times, values, usable, partitions, offsets, received, seqs = columns
    return ReadingBatch(
        list(sensors), np.array(times, np.int64), np.array(values, np.float64).reshape(len(done), channels),
        np.array(usable, np.bool_), np.array(partitions, np.int64), np.array(offsets, np.int64),
        np.array(received, np.int64), np.array(seqs, np.int64) if set(seqs) - {NO_SEQ} else None,
    )  # fmt: skip


class Whole(NamedTuple):
    """The readings of one sensor in a history, each with all channels that came."""

    times: IntArray  # (n,) µs UTC
    values: FloatArray  # (n, channels)
    usable: BoolArray  # (n,)


def whole(parts: Whole) -> Whole:
    """A sensor's history joined as the service joins what comes, at the usual interval of its busiest channel.

    What is open at the end stands there as it is.
    """
    came = np.isfinite(parts.values)
    channels = parts.values.shape[1]
    busiest = parts.times[came[:, int(came.sum(axis=0).argmax())]] if channels else parts.times[:0]
    if came.all() or len(busiest) < 2:
        return parts
    n, never = len(parts.times), np.iinfo(np.int64).max
    nowhere = np.zeros(n, np.int64)
    sent = ReadingBatch([""] * n, parts.times, parts.values, parts.usable, nowhere, np.arange(n), nowhere)
    joiner = Joiner(channels, int(np.median(np.diff(busiest))), max_future=never)
    made, _ = joiner.join(sent)
    rest = joiner.snapshot(0)
    return Whole(
        np.concatenate([made.times, rest["stamps"][:, 0]]),
        np.concatenate([made.values, rest["values"]]),
        np.concatenate([made.usable, rest["usable"].astype(np.bool_)]),
    )
