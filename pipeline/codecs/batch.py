"""A batch of readings: the fields of a reading as columns, in one message.

Every reading of a batch has the message's offset, and its row as the rest of its place: rows are in order, a message is
stepped whole, and what is wrong with one row costs that row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.codecs import limits
from pipeline.codecs.limits import RefusedError
from pipeline.core.frames import GOOD, QUALITIES, ROW_BITS, Codes, Decoded, Frame
from pipeline.core.names import Names
from pipeline.core.readings import NO_SEQ, FloatArray, IntArray, Quality, Reason, Record

VALUE = "value"  # the field, and the channel, of a batch whose readings name none

Column = TypeVar("Column")
Values = Mapping[str, npt.ArrayLike] | npt.ArrayLike


class Columns:
    """What a sender has, checked: ValueError where it would be refused."""

    def __init__(
        self,
        sensors: str | Sequence[str],
        times: npt.ArrayLike,
        values: Values,
        qualities: Sequence[Quality] | None = None,
        seqs: npt.ArrayLike | None = None,
    ) -> None:
        """`times` in µs UTC; `values` by channel, or those of the only channel; NaN where there is no value."""
        self.times: IntArray = np.asarray(times, np.int64)
        self.one = not isinstance(values, Mapping)
        named = values if isinstance(values, Mapping) else {VALUE: values}
        self.values = {channel: _floats(column) for channel, column in named.items()}
        self.seqs: IntArray | None = None if seqs is None else np.asarray(seqs, np.int64)
        self.qualities: Codes | None = None
        if qualities is not None and any(quality is not Quality.GOOD for quality in qualities):
            self.qualities = np.array([QUALITIES.index(quality) for quality in qualities], np.uint8)
        self.sensors = _table([sensors] * len(self.times) if isinstance(sensors, str) else sensors)
        self._must_be_sound(None if qualities is None else len(qualities))

    def _must_be_sound(self, qualities: int | None) -> None:
        rows = len(self.times)
        lengths = {f"channel {channel!a}": len(column) for channel, column in self.values.items()}
        lengths |= {"`sensor`": len(self.sensors)} | ({} if self.seqs is None else {"`seq`": len(self.seqs)})
        lengths |= {} if qualities is None else {"`quality`": qualities}
        try:
            limits.must_be_rows(rows)
            limits.must_be_as_long(lengths.items(), rows)
            limits.must_be_channels(self.values)
            for fault in limits.sensor_faults(self.sensors.table).values():
                raise fault
        except RefusedError as refused:
            raise ValueError(refused.detail) from refused
        if not limits.all_microseconds(self.times / limits.MILLISECOND)[1].all():
            raise ValueError("a time lies outside 1970 to 2199; times are in µs")
        for channel, column in self.values.items():
            if np.isinf(column).any():
                raise ValueError(f"channel {channel!r} has an infinite value; send NaN where there is no value")


def decoded(records: Sequence[Record], decode: Callable[[Record], Decoded]) -> Decoded:
    """Of each record what `decode` finds in it, or the refusal that it raises."""
    whole = Decoded([], [])
    for record in records:
        try:
            found = decode(record)
        except RefusedError as refused:
            whole.rejected.append(refused.of(record))
        else:
            whole.frames.extend(found.frames)
            whole.rejected.extend(found.rejected)
    return whole


def frame(
    record: Record,
    sensors: Names,
    times: IntArray,
    values: Mapping[str, FloatArray],
    qualities: Codes | None = None,
    seqs: IntArray | None = None,
) -> Frame:
    """The readings of one message, a row each; all columns are as long as `times`."""
    rows = len(times)
    first = record.offset << ROW_BITS
    return Frame(
        tuple(values),
        sensors,
        times,
        np.stack(list(values.values()), axis=1),
        np.full(rows, GOOD, np.uint8) if qualities is None else qualities,
        np.full(rows, NO_SEQ, np.int64) if seqs is None else seqs,
        np.full(rows, record.partition, np.int64),
        np.arange(first, first + rows, dtype=np.int64),
        np.full(rows, record.timestamp, np.int64),
    )


def one_of(values: Mapping[str, Column] | msgspec.UnsetType, value: Column | msgspec.UnsetType) -> Mapping[str, Column]:
    """The columns by channel; RefusedError where both fields are there, or neither."""
    if isinstance(values, msgspec.UnsetType) and not isinstance(value, msgspec.UnsetType):
        return {VALUE: value}
    if isinstance(value, msgspec.UnsetType) and not isinstance(values, msgspec.UnsetType):
        return values
    raise RefusedError(Reason.SCHEMA, "a batch has either `values` or `value`")


def row_faults(
    faults: dict[int, RefusedError], rows: npt.NDArray[np.intp], what: Callable[[int], RefusedError]
) -> None:
    """Note what is wrong with each of `rows` that has nothing worse."""
    for row in rows.tolist():
        if row not in faults:
            faults[row] = what(row)


def _table(names: Sequence[str]) -> Names:
    """Each name once."""
    where = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return Names(list(where), np.array([where[name] for name in names], np.intp))


def _floats(column: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """float32 stays what it is."""
    given = np.asarray(column)
    return given if given.dtype == np.float32 else given.astype(np.float64)
