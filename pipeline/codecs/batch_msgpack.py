"""Batches for rate: MessagePack around raw arrays, which become columns without an object per reading.

An array is a pair of its type and its bytes, little-endian: `["f8", b"..."]`. The message is a map:

    sensor    a name, where all readings are of one; else {"names": [name, ...], "index": array of u1, u2 or u4}
    time      array of i8 or f8, milliseconds since 1970
    values    {channel: array of f8 or f4}, NaN where there is no value; or `value`, one array
    quality   good, bad or maintenance, where all are the same; else array of u1: 0, 1, 2 in that order. Optional
    seq       array of i8, -1 where there is none. Optional

A field it does not know is refused: what is added to a format for machines takes another content type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.codecs import limits
from pipeline.codecs.batch import VALUE, Columns, Values, decoded, frame, one_of, row_faults
from pipeline.codecs.limits import MAX_BYTES, RefusedError
from pipeline.core.frames import QUALITIES, Codes, Decoded
from pipeline.core.names import Names
from pipeline.core.readings import FloatArray, IntArray, Quality, Reason, Record


class _Array(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    dtype: str
    data: memoryview

    def read(self, field: str, *types: str) -> npt.NDArray[np.generic]:
        if self.dtype not in types:
            raise RefusedError(Reason.SCHEMA, f"{field} has the type {self.dtype[:20]!a}, not {' or '.join(types)}")
        dtype = np.dtype(f"<{self.dtype}")
        if self.data.nbytes % dtype.itemsize:
            raise RefusedError(Reason.SCHEMA, f"{field} has {self.data.nbytes} bytes, no multiple of {dtype.itemsize}")
        return np.frombuffer(self.data, dtype)


class _Table(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    names: list[str]
    index: _Array


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    sensor: str | _Table
    time: _Array
    values: dict[str, _Array] | msgspec.UnsetType = msgspec.UNSET
    value: _Array | msgspec.UnsetType = msgspec.UNSET
    quality: str | _Array | msgspec.UnsetType = msgspec.UNSET
    seq: _Array | msgspec.UnsetType = msgspec.UNSET


_MESSAGE = msgspec.msgpack.Decoder(_Message)


@dataclass(frozen=True, slots=True)
class MsgpackBatches:
    """Many readings a message, as raw arrays."""

    content_type: ClassVar[str] = "application/vnd.foreshock.batch+msgpack"
    max_bytes: int = MAX_BYTES

    def decode(self, records: Sequence[Record]) -> Decoded:
        """The readings of each record; a row that is none costs that row. The records' keys are not looked at."""
        return decoded(records, self._decode)

    def encode(
        self,
        sensors: str | Sequence[str],
        times: npt.ArrayLike,
        values: Values,
        qualities: Sequence[Quality] | None = None,
        seqs: npt.ArrayLike | None = None,
    ) -> bytes:
        """A message that decodes to these readings; `times` in µs UTC, `values` by channel or of the only one.

        float32 goes as it is. ValueError where the service would refuse it.
        """
        columns = Columns(sensors, times, values, qualities, seqs)
        table, index = columns.sensors.table, columns.sensors.at
        message: dict[str, object] = {
            "sensor": table[0] if len(table) == 1 else {"names": table, "index": _raw(_narrow(index))},
            "time": _raw(_milliseconds(columns.times)),
        }
        named = {channel: _raw(column) for channel, column in columns.values.items()}
        message |= {VALUE: named[VALUE]} if columns.one else {"values": named}
        if columns.qualities is not None:
            message["quality"] = _raw(columns.qualities)
        if columns.seqs is not None:
            message["seq"] = _raw(columns.seqs)
        encoded = msgspec.msgpack.encode(message)
        if len(encoded) > self.max_bytes:
            raise ValueError(f"the message has {len(encoded)} bytes; the limit is {self.max_bytes}")
        return encoded

    def _decode(self, record: Record) -> Decoded:
        payload = limits.payload_of(record, self.max_bytes)
        try:
            message = _MESSAGE.decode(payload)
        except msgspec.ValidationError as error:
            raise RefusedError(Reason.SCHEMA, f"the message is MessagePack, but no batch: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RefusedError(Reason.UNREADABLE, f"the message is not MessagePack: {error}") from error
        given = message.time.read("`time`", "i8", "f8")
        rows = len(given)
        limits.must_be_rows(rows)
        faults: dict[int, RefusedError] = {}
        sensors = _sensors(message.sensor, rows, faults)
        times = _times(given, faults)
        values = _values(message, rows, faults)
        qualities, seqs = _qualities(message.quality, rows, faults), _seqs(message.seq, rows)
        return limits.kept(frame(record, sensors, times, values, qualities, seqs), faults, record)


def _sensors(sensor: str | _Table, rows: int, faults: dict[int, RefusedError]) -> Names:
    if isinstance(sensor, str):
        limits.must_be_a_sensor(sensor)
        return Names([sensor], np.zeros(rows, np.intp))
    index = sensor.index.read("the index of `sensor`", "u1", "u2", "u4").astype(np.intp)
    limits.must_be_as_long([("the index of `sensor`", len(index))], rows)
    names = len(sensor.names)
    row_faults(
        faults,
        np.flatnonzero(index >= names),
        lambda row: RefusedError(Reason.SENSOR, f"`sensor` {index[row]} of a table of {names} names"),
    )
    if not names:
        raise RefusedError(Reason.SENSOR, "the table of `sensor` is empty")
    index = np.minimum(index, names - 1)
    if of_names := limits.sensor_faults(sensor.names):
        bad = np.zeros(names, np.bool_)
        bad[list(of_names)] = True
        row_faults(faults, np.flatnonzero(bad[index]), lambda row: of_names[int(index[row])])
    return Names(sensor.names, index)


def _times(given: npt.NDArray[np.generic], faults: dict[int, RefusedError]) -> IntArray:
    times, taken = limits.all_microseconds(given)  # type: ignore[arg-type]
    row_faults(faults, np.flatnonzero(~taken), lambda row: _time_fault(given[row].item()))
    return times


def _time_fault(milliseconds: float) -> RefusedError:
    try:
        limits.microseconds(milliseconds)
    except RefusedError as refused:
        return refused
    raise AssertionError(f"{milliseconds} ms is a time after all")


def _values(message: _Message, rows: int, faults: dict[int, RefusedError]) -> Mapping[str, FloatArray]:
    arrays = one_of(message.values, message.value)
    limits.must_be_channels(arrays)
    values: dict[str, FloatArray] = {}
    for channel, array in arrays.items():
        name = f"channel {channel[:80]!a}"
        column = array.read(name, "f8", "f4").astype(np.float64)
        limits.must_be_as_long([(name, len(column))], rows)
        infinite = np.flatnonzero(np.isinf(column))
        row_faults(
            faults,
            infinite,
            lambda row, name=name, column=column: RefusedError(  # type: ignore[misc]
                Reason.VALUE, f"{name} is {column[row]}; send NaN where there is no value"
            ),
        )
        values[channel] = column
    return values


def _qualities(quality: str | _Array | msgspec.UnsetType, rows: int, faults: dict[int, RefusedError]) -> Codes | None:
    if isinstance(quality, msgspec.UnsetType):
        return None
    if isinstance(quality, str):
        if quality not in QUALITIES:
            raise RefusedError(Reason.SCHEMA, f"`quality` {quality[:20]!a} is none of {', '.join(QUALITIES)}")
        return np.full(rows, QUALITIES.index(Quality(quality)), np.uint8)
    codes = quality.read("`quality`", "u1").astype(np.uint8)
    limits.must_be_as_long([("`quality`", len(codes))], rows)
    row_faults(
        faults,
        np.flatnonzero(codes >= len(QUALITIES)),
        lambda row: RefusedError(Reason.SCHEMA, f"`quality` {codes[row]} is none of 0 to {len(QUALITIES) - 1}"),
    )
    return np.minimum(codes, len(QUALITIES) - 1)


def _seqs(seq: _Array | msgspec.UnsetType, rows: int) -> IntArray | None:
    if isinstance(seq, msgspec.UnsetType):
        return None
    seqs = seq.read("`seq`", "i8").astype(np.int64)
    limits.must_be_as_long([("`seq`", len(seqs))], rows)
    return seqs


def _milliseconds(times: IntArray) -> npt.NDArray[np.generic]:
    return times / limits.MILLISECOND if (times % limits.MILLISECOND).any() else times // limits.MILLISECOND


def _narrow(index: npt.NDArray[np.intp]) -> npt.NDArray[np.generic]:
    return index.astype("u1" if index.max() < 2**8 else "u2")


def _raw(column: npt.NDArray[np.generic]) -> tuple[str, bytes]:
    little = np.ascontiguousarray(column, column.dtype.newbyteorder("<"))
    return little.dtype.str[1:], little.tobytes()
