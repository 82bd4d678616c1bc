"""Batches for people: the fields of a reading, each as a list with an entry a reading.

    {"sensor": "plant1/pump-7", "time": [1795347600123, 1795347610123], "values": {"temperature": [71.3, null]}}

`sensor` is a name, or a list of names; `quality` a word, or a list; `time`, `value`, each of `values` and `seq` are
lists. What row i says is what a message `{"sensor": ..., "time": ..., "values": {...}}` of its entries would say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.codecs import json_faults, limits
from pipeline.codecs.batch import VALUE, Columns, Values, decoded, frame, one_of
from pipeline.codecs.json import CODES, Int64, Number, Stamp, Stands, frames_of
from pipeline.codecs.limits import MAX_BYTES, RefusedError
from pipeline.core.frames import QUALITIES, ROW_BITS, Decoded
from pipeline.core.names import Names
from pipeline.core.readings import NO_SEQ, Quality, Reason, Record


class _Message(msgspec.Struct, gc=False):
    sensor: str | list[str]
    time: list[Stamp]
    values: dict[str, list[Number]] | msgspec.UnsetType = msgspec.UNSET
    value: list[Number] | msgspec.UnsetType = msgspec.UNSET
    quality: Quality | list[Quality | None] | None = None
    seq: list[Int64 | None] | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class JsonBatches:
    """Many readings a message, as lists; fields it does not know are ignored."""

    content_type: ClassVar[str] = "application/vnd.foreshock.batch+json"
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

        ValueError where the service would refuse it.
        """
        columns = Columns(sensors, times, values, qualities, seqs)
        table = columns.sensors.table
        message: dict[str, object] = {
            "sensor": table[0] if len(table) == 1 else list(columns.sensors),
            "time": [limits.milliseconds(time) for time in columns.times.tolist()],
        }
        named = {channel: _nullable(column.tolist()) for channel, column in columns.values.items()}
        message |= {VALUE: named[VALUE]} if columns.one else {"values": named}
        if columns.qualities is not None:
            message["quality"] = [QUALITIES[code].value for code in columns.qualities.tolist()]
        if columns.seqs is not None:
            message["seq"] = [None if seq == NO_SEQ else seq for seq in columns.seqs.tolist()]
        encoded = msgspec.json.encode(message)
        if len(encoded) > self.max_bytes:
            raise ValueError(f"the message has {len(encoded)} bytes; the limit is {self.max_bytes}")
        return encoded

    def _decode(self, record: Record) -> Decoded:
        payload = limits.payload_of(record, self.max_bytes)
        json_faults.must_be_decodable(payload)
        try:
            message = _MESSAGE.decode(payload)
        except msgspec.DecodeError as error:
            return _row_by_row(payload, error, record)
        return _all_at_once(message, record) or _row_by_row(payload, None, record)


def _all_at_once(message: _Message, record: Record) -> Decoded | None:
    """The readings, if nothing is wrong with any row."""
    rows = len(message.time)
    limits.must_be_rows(rows)
    named = one_of(message.values, message.value)
    limits.must_be_channels(named)
    if not set(map(type, message.time)) <= {int, float}:
        return None
    names = [message.sensor] if isinstance(message.sensor, str) else message.sensor
    index = np.zeros(rows, np.intp) if isinstance(message.sensor, str) else None
    lengths = [(f"channel {channel[:80]!a}", len(column)) for channel, column in named.items()]
    lengths += [("`sensor`", len(names))] if index is None else []
    lengths += [("`seq`", len(message.seq))] if message.seq is not None else []
    lengths += [("`quality`", len(message.quality))] if isinstance(message.quality, list) else []
    limits.must_be_as_long(lengths, rows)
    times, taken = limits.all_microseconds(np.array(message.time))
    if not taken.all() or limits.sensor_faults(names):
        return None
    values = {channel: np.array(column, np.float64) for channel, column in named.items()}
    qualities = message.quality if isinstance(message.quality, list) else [message.quality] * rows
    codes = np.array([CODES[quality] for quality in qualities], np.uint8)
    seqs = None if message.seq is None else np.array([NO_SEQ if seq is None else seq for seq in message.seq], np.int64)
    return Decoded([frame(record, Names(names, index), times, values, codes, seqs)], [])


class _Rows(NamedTuple):
    """The columns of a message as they stand in it."""

    fields: Mapping[str, list[bytes]]
    channels: Mapping[str, list[bytes]] | None
    rows: int


def _row_by_row(payload: bytes, error: msgspec.DecodeError | None, record: Record) -> Decoded:
    """Each row as the message of one reading that it stands for, which then says what is wrong with it."""
    columns = _columns(payload, error)
    places = (record.offset << ROW_BITS) + np.arange(columns.rows, dtype=np.int64)
    here = np.full(columns.rows, record.partition, np.int64)
    stands = Stands(here, places, np.full(columns.rows, record.timestamp, np.int64))
    frames, faults = frames_of(list(_messages(columns)), stands)
    return Decoded(frames, limits.refusals(faults, record))


def _columns(payload: bytes, error: msgspec.DecodeError | None) -> _Rows:
    """The fields as lists of what stands in them, all of one length; RefusedError where they are none."""
    given = json_faults.fields_of(payload, error)
    times = _entries(given, "time", Reason.TIME)
    rows = len(times)
    limits.must_be_rows(rows)
    if ("values" in given) == (VALUE in given):
        raise RefusedError(Reason.SCHEMA, "a batch has either `values` or `value`")
    fields = {"sensor": _repeated(given, "sensor", Reason.SENSOR, rows), "time": times}
    for field in ("quality", "seq"):
        if field in given:
            fields[field] = _repeated(given, field, Reason.SCHEMA, rows)
    channels = None
    if VALUE in given:
        fields[VALUE] = _entries(given, VALUE, Reason.VALUE)
    else:
        named = json_faults.object_of(given["values"], "values")
        limits.must_be_channels(named)
        channels = {channel: _entries(named, channel, Reason.VALUE) for channel in named}
    columns = {f"`{name}`": column for name, column in fields.items()}
    columns |= {f"channel {channel[:80]!a}": column for channel, column in (channels or {}).items()}
    limits.must_be_as_long([(name, len(column)) for name, column in columns.items()], rows)
    return _Rows(fields, channels, rows)


def _messages(columns: _Rows) -> Iterator[bytes]:
    """Each row as a message of its own."""
    parts = [_named(field, column) for field, column in columns.fields.items()]
    if columns.channels is not None:
        of_channels = zip(*(_named(channel, column) for channel, column in columns.channels.items()), strict=True)
        parts.append([b'"values":{' + b",".join(row) + b"}" for row in of_channels])
    for row in zip(*parts, strict=True):
        yield b"{" + b",".join(row) + b"}"


def _named(name: str, column: Sequence[bytes]) -> list[bytes]:
    key = msgspec.json.encode(name) + b":"
    return [key + entry for entry in column]


def _repeated(given: Mapping[str, msgspec.Raw], field: str, reason: Reason, rows: int) -> list[bytes]:
    """A list, or one entry that is that of every row."""
    if field in given and not bytes(given[field]).lstrip().startswith(b"["):
        return [bytes(given[field])] * rows
    return _entries(given, field, reason)


def _entries(given: Mapping[str, msgspec.Raw], field: str, reason: Reason) -> list[bytes]:
    if field not in given:
        raise RefusedError(reason, f"`{field}` is missing")
    try:
        return [bytes(entry) for entry in _ENTRIES.decode(given[field])]
    except msgspec.DecodeError as error:
        raise RefusedError(reason, f"`{field[:80]}` is no list") from error


def _nullable(column: Sequence[float]) -> list[Number]:
    return [None if value != value else value for value in column]
