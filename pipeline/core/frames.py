"""Decoded readings as columns, before they are routed: what a codec makes of messages, and a router of that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.names import Names, joined
from pipeline.core.readings import NO_SEQ, BoolArray, FloatArray, IntArray, Quality, Reading, ReadingBatch, Rejected

ROW_BITS = 16  # readings of one message; the other 47 of a place are its offset
MAX_ROWS = 1 << ROW_BITS
QUALITIES = tuple(Quality)  # good is the first
GOOD = QUALITIES.index(Quality.GOOD)

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Readings that name the same channels, as columns; those of a partition are in stream order.

    A reading's place is its message's offset and, where a message holds several, its row in it: it rises along a
    partition, and no two readings of a partition have the same.
    """

    channels: tuple[str, ...]
    sensors: Names  # (n,)
    times: IntArray  # (n,) µs UTC
    values: FloatArray  # (n, channels), NaN where there is no value
    qualities: Codes  # (n,) index into QUALITIES
    seqs: IntArray  # (n,) NO_SEQ where there is none
    partitions: IntArray  # (n,)
    places: IntArray  # (n,) offset << ROW_BITS | row
    received: IntArray  # (n,) µs UTC, the record's timestamp

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def of(cls, readings: Iterable[Reading]) -> list[Frame]:
        """One frame for each set of channels, each reading the only one of its message."""
        alike: dict[tuple[str, ...], list[Reading]] = defaultdict(list)
        for reading in readings:
            alike[tuple(reading.values)].append(reading)
        return [cls._alike(channels, rows) for channels, rows in alike.items()]

    @classmethod
    def _alike(cls, channels: tuple[str, ...], rows: list[Reading]) -> Frame:
        return cls(
            channels,
            Names([r.sensor for r in rows]),
            np.array([r.time for r in rows], np.int64),
            np.array([list(r.values.values()) for r in rows], np.float64),
            np.array([QUALITIES.index(r.quality) for r in rows], np.uint8),
            np.array([NO_SEQ if r.seq is None else r.seq for r in rows], np.int64),
            np.array([r.partition for r in rows], np.int64),
            np.array([r.offset for r in rows], np.int64) << ROW_BITS,
            np.array([r.received for r in rows], np.int64),
        )

    def take(self, rows: npt.NDArray[np.intp] | BoolArray) -> Frame:
        """The readings at `rows`, in that order."""
        return Frame(
            self.channels, self.sensors.take(rows), self.times[rows], self.values[rows], self.qualities[rows],
            self.seqs[rows], self.partitions[rows], self.places[rows], self.received[rows],
        )  # fmt: skip

    def readings(self) -> Iterator[tuple[int, Reading]]:
        """Each with its place, one by one: for people and tests, not for rate."""
        columns = (
            self.sensors, self.times.tolist(), self.values.tolist(), self.qualities.tolist(), self.seqs.tolist(),
            self.partitions.tolist(), self.places.tolist(), self.received.tolist(),
        )  # fmt: skip
        for sensor, time, values, quality, seq, partition, place, received in zip(*columns, strict=True):
            yield place, Reading(
                sensor, time, dict(zip(self.channels, values, strict=True)), QUALITIES[quality],
                None if seq == NO_SEQ else seq, partition, offset_of(place), received,
            )  # fmt: skip

    def columns(self, channels: Sequence[str]) -> FloatArray:
        """The values of `channels` in that order, (n, channels); NaN for one that these readings do not name."""
        if tuple(channels) == self.channels:
            return self.values
        wanted = np.full((len(self), len(channels)), np.nan)
        for i, channel in enumerate(channels):
            if channel in self.channels:
                wanted[:, i] = self.values[:, self.channels.index(channel)]
        return wanted


class Decoded(NamedTuple):
    """What messages hold: readings, and for what is none the reason."""

    frames: list[Frame]
    rejected: list[Rejected]


def offset_of(place: int) -> int:
    """Where the message stands that the reading at this place came in; -1 for none stays -1."""
    return place >> ROW_BITS


def batch_of(frames: Sequence[Frame], channels: Sequence[str]) -> ReadingBatch:
    """The readings of one group, those of a partition in stream order. Its offsets are places."""
    seqs = np.concatenate([f.seqs for f in frames])
    batch = ReadingBatch(
        sensors=joined([f.sensors for f in frames]),
        times=np.concatenate([f.times for f in frames]),
        values=np.concatenate([f.columns(channels) for f in frames]),
        usable=np.concatenate([f.qualities for f in frames]) == GOOD,
        partitions=np.concatenate([f.partitions for f in frames]),
        offsets=np.concatenate([f.places for f in frames]),
        received=np.concatenate([f.received for f in frames]),
        seqs=seqs if (seqs != NO_SEQ).any() else None,
    )
    if len(frames) == 1:
        return batch
    order = np.lexsort((batch.offsets, batch.partitions))
    return batch.take(order) if (np.diff(order) != 1).any() else batch


def merged(rejected: Iterable[Rejected]) -> list[Rejected]:
    """One refusal for each message and reason, however many readings of the message it is about."""
    found: dict[tuple[int, int, str], Rejected] = {}
    for r in rejected:
        place = r.partition, r.offset, r.reason
        first = found.get(place)
        found[place] = r if first is None else first._replace(readings=first.readings + r.readings)
    return list(found.values())
