"""What no format may carry: sizes, names and times beyond these are refused, row by row and in the same words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from pipeline.core.frames import MAX_ROWS, Decoded, Frame
from pipeline.core.names import MAX_SENSOR_CHARACTERS, fault
from pipeline.core.readings import DAY, BoolArray, FloatArray, IntArray, Reason, Record, Rejected

MAX_BYTES = 2**20  # the broker's own default for a message
MAX_CHANNELS = 1024
MAX_DETAIL_CHARACTERS = 400  # a detail may quote the message
MILLISECOND = 1_000  # µs
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = (datetime(2200, 1, 1, tzinfo=UTC) - EPOCH).days * DAY  # µs; times from here on are a mistake of unit


class RefusedError(Exception):
    """Ends the look at a message or at one of its readings."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail[:MAX_DETAIL_CHARACTERS]

    def of(self, record: Record, readings: int = 1) -> Rejected:
        """The refusal of this record, or of so many of its readings."""
        return Rejected(
            self.reason, self.detail, record.topic, record.partition, record.offset, record.key, record.value, readings
        )


def payload_of(record: Record, most_bytes: int) -> bytes:
    """What the record holds, if it is not too much; RefusedError where it is, or where there is nothing."""
    payload = record.value
    if payload is None:
        raise RefusedError(Reason.UNREADABLE, "the message is a tombstone: it has no payload")
    if len(payload) > most_bytes:
        raise RefusedError(Reason.TOO_LARGE, f"the message has {len(payload)} bytes; the limit is {most_bytes}")
    return payload


def must_be_a_sensor(name: str) -> None:
    """RefusedError where the name is none."""
    if (why := fault(name)) is not None:
        raise RefusedError(Reason.SENSOR, why)


def sensor_faults(names: Sequence[str]) -> dict[int, RefusedError]:
    """What is wrong with which of them; all are looked at together first, for as a rule nothing is."""
    if (
        all(names)
        and "".join(names).isprintable()
        and max(map(len, names), default=0) <= MAX_SENSOR_CHARACTERS
        and not any(map(str.isspace, names))
    ):
        return {}
    faults = {}
    for i, name in enumerate(names):
        try:
            must_be_a_sensor(name)
        except RefusedError as refused:
            faults[i] = refused
    return faults


def must_be_channels(names: Collection[str]) -> None:
    """RefusedError where there are none, too many, or one that cannot be a name."""
    if not names:
        raise RefusedError(Reason.SCHEMA, "`values` names no channel; send null where there is no value")
    if len(names) > MAX_CHANNELS:
        raise too_many_channels(len(names))
    if "" in names or not "".join(names).isprintable():
        raise RefusedError(Reason.SCHEMA, "the name of a channel is empty or has characters that cannot be printed")


def too_many_channels(how_many: int) -> RefusedError:
    """The refusal of so many."""
    return RefusedError(Reason.TOO_LARGE, f"`values` names {how_many} channels; the limit is {MAX_CHANNELS}")


def must_be_rows(how_many: int) -> None:
    """RefusedError where a message of several readings has none or too many."""
    if how_many == 0:
        raise RefusedError(Reason.SCHEMA, "the batch holds no reading")
    if how_many > MAX_ROWS:
        raise RefusedError(Reason.TOO_LARGE, f"the batch holds {how_many} readings; the limit is {MAX_ROWS}")


def must_be_as_long(columns: Iterable[tuple[str, int]], rows: int) -> None:
    """RefusedError where a column has not as many entries as `time`."""
    for name, length in columns:
        if length != rows:
            raise RefusedError(Reason.SCHEMA, f"{name} has {length} entries, `time` has {rows}")


def microseconds(time: int | float | datetime) -> int:
    """Epoch milliseconds or a stamp as µs UTC; RefusedError outside 1970 to 2199. Without an offset, it is UTC."""
    if isinstance(time, datetime):
        since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH
        stamp = since // timedelta(microseconds=1)
    elif time - time != 0:
        raise RefusedError(Reason.TIME, f"time {time} is not a number")
    else:
        stamp = from_milliseconds(time)
    if 0 <= stamp < LATEST:
        return stamp
    if isinstance(time, datetime):
        raise RefusedError(Reason.TIME, f"time {time.isoformat()} lies outside 1970 to 2199")
    hint = "; microseconds where milliseconds are due?" if 0 <= time < LATEST else ""
    raise RefusedError(Reason.TIME, f"time {time:.16g} ms lies outside 1970 to 2199{hint}")


def all_microseconds(milliseconds: IntArray | FloatArray) -> tuple[IntArray, BoolArray]:
    """(n,) epoch milliseconds as µs UTC, and which of them `microseconds` would take; of the others it is 0."""
    taken: BoolArray = (milliseconds >= 0) & (milliseconds < LATEST / MILLISECOND)  # not so for NaN
    within = np.where(taken, milliseconds, milliseconds.dtype.type(0))
    if within.dtype.kind == "i":
        return within * MILLISECOND, taken
    whole = np.floor(within)
    times = whole.astype(np.int64) * MILLISECOND + np.rint((within - whole) * MILLISECOND).astype(np.int64)
    taken &= times < LATEST
    return np.where(taken, times, 0), taken


def from_milliseconds(time: int | float) -> int:
    """Exact for what `milliseconds` makes, up to the year 2248; the whole and the fraction go their own ways."""
    if isinstance(time, int):
        return time * MILLISECOND
    whole, fraction = divmod(time, 1)
    return int(whole) * MILLISECOND + round(fraction * MILLISECOND)


def milliseconds(time: int) -> int | float:
    """µs as milliseconds, whole where they are."""
    return time / MILLISECOND if time % MILLISECOND else time // MILLISECOND


def kept(frame: Frame, faults: dict[int, RefusedError], record: Record) -> Decoded:
    """The readings of one message that have no fault, and the refusals of the others."""
    if not faults:
        return Decoded([frame], [])
    whole = np.ones(len(frame), np.bool_)
    whole[list(faults)] = False
    return Decoded([frame.take(whole)] if whole.any() else [], refusals(faults, record))


def refusals(faults: dict[int, RefusedError], record: Record) -> list[Rejected]:
    """One for each reason that rows of a message are refused for, in the words of the first: they may be many."""
    by_reason: dict[Reason, list[int]] = {}
    for row in sorted(faults):
        by_reason.setdefault(faults[row].reason, []).append(row)
    found = []
    for reason, rows in by_reason.items():
        among = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        found.append(RefusedError(reason, f"row {rows[0]}{among}: {faults[rows[0]].detail}").of(record, len(rows)))
    return found
