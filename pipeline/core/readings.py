"""Readings as they arrive: a Kafka record, the readings in it, and the columns the detector steps through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.names import coded

SECOND = 1_000_000  # µs
NO_SEQ = -1  # of a reading that its sender did not number
DAY = 86_400 * SECOND
PLAIN = "value"  # the channel of a reading that names none

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Record(NamedTuple):
    """One message as the broker stored it; `timestamp` is the broker's, in µs."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


# Of a record whose headers the client cannot read: what is in it remains unknown, and every codec leaves it alone.
UNREADABLE_HEADERS = (("content-type", b"unknown: the name of a header is not UTF-8"),)


class Quality(StrEnum):
    """What the sender says of a reading; only a good one is scored, learned from or alerted on."""

    GOOD = "good"
    BAD = "bad"
    MAINTENANCE = "maintenance"


class Reading(NamedTuple):
    """One sensor at one instant. `values` holds NaN where the sender had no value; `received` bounds `time`."""

    sensor: str
    time: int  # event time, µs UTC
    values: Mapping[str, float]
    quality: Quality = Quality.GOOD
    seq: int | None = None
    partition: int = 0
    offset: int = -1
    received: int = 0  # the Kafka record's timestamp, µs UTC; 0: not bounded (files)


class Reason(StrEnum):
    """Why a message or a reading is refused; the name of the dead letter's reason and of the metric's label."""

    UNREADABLE = "unreadable"  # not the codec's format at all
    SCHEMA = "schema"  # readable, but a field is missing or of the wrong type
    VALUE = "value"  # a value is not a finite number
    SENSOR = "sensor"  # no sensor name, or an unusable one
    TIME = "time"  # no representable event time
    FUTURE = "future"  # event time too far ahead of the record's own timestamp
    TOO_LARGE = "too-large"
    NO_GROUP = "no-group"  # no model bundle reads this sensor's channels


class Rejected(NamedTuple):
    """A refused message, or readings of one: the reason as a word, the detail as a sentence, where it stands."""

    reason: Reason
    detail: str
    topic: str = ""
    partition: int = 0
    offset: int = -1
    key: bytes | None = None
    value: bytes | None = None
    readings: int = 1  # of a message with several, how many it is about


@dataclass(frozen=True, slots=True, eq=False)
class ReadingBatch:
    """Readings of one group as columns, in stream order; the same sensor may occur more than once."""

    sensors: Sequence[str]  # (n,)
    times: IntArray  # (n,) µs UTC
    values: FloatArray  # (n, channels), NaN where there is no value
    usable: BoolArray  # (n,) quality is good
    partitions: IntArray  # (n,)
    offsets: IntArray  # (n,) rising along a partition; the live service says places, see `frames`
    received: IntArray  # (n,) µs UTC, 0 where event time is not bounded
    seqs: IntArray | None = None  # (n,) NO_SEQ where there is none; None where no reading has one

    def __len__(self) -> int:
        return len(self.sensors)

    def take(self, rows: IntArray | slice) -> ReadingBatch:
        """The readings at `rows`, in that order."""
        return ReadingBatch(
            coded(self.sensors).take(rows),
            self.times[rows],
            self.values[rows],
            self.usable[rows],
            self.partitions[rows],
            self.offsets[rows],
            self.received[rows],
            None if self.seqs is None else self.seqs[rows],
        )
