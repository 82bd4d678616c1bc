"""An operator's word to the detectors, as a message among the readings: it has its place in the stream, and keeps it.

Each kind of event is one `msgspec.Struct` below, told apart by its field `event`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from pipeline.codecs import json_faults, limits
from pipeline.codecs.json import Stamp
from pipeline.codecs.limits import RefusedError
from pipeline.core.events import Maintain, Retire
from pipeline.core.frames import ROW_BITS
from pipeline.core.readings import Reason, Record, Rejected

CONTENT_TYPE = "application/vnd.foreshock.event+json"
MAX_BYTES = 64 * 2**10


class _Said(msgspec.Struct, tag_field="event"):
    sensor: str
    time: Stamp | None = None  # without it, that of the record


class _Retire(_Said, tag="retire"):
    pass


class _Maintain(_Said, tag="maintenance", kw_only=True):
    until: Stamp


_DECODER = msgspec.json.Decoder(_Retire | _Maintain)


def parted(records: Sequence[Record]) -> Iterator[tuple[Sequence[Record], Record | None]]:
    """The records between events, each time with the event that ends them; after the last of them there is none."""
    begin = 0
    for at, record in enumerate(records):
        if record.headers and is_event(record):
            yield records[begin:at], record
            begin = at + 1
    yield records[begin:] if begin else records, None


def is_event(record: Record) -> bool:
    """Whether it says so; as Kafka's clients do, the last header of a name counts."""
    for name, value in reversed(record.headers):
        if name.lower() == "content-type":
            return (value or b"").partition(b";")[0].strip().lower() == CONTENT_TYPE.encode()
    return False


def decode_event(record: Record) -> Retire | Maintain | Rejected:
    """The event in the record, or why there is none; never raises, and looks at nothing but the record."""
    try:
        return _event(record)
    except RefusedError as refused:
        return refused.of(record)


def encode_retirement(sensor: str, time: int | None = None) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The message that retires a sensor, at `time` (µs) or when it is stored, and its headers; ValueError for no name.

    It belongs into the sensor's own partition, keyed by it.
    """
    return _encoded(_Retire(sensor, None if time is None else limits.milliseconds(time)))


def encode_maintenance(sensor: str, time: int, until: int) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The message that says that somebody works on the sensor from `time` to `until` (µs); otherwise as the above."""
    return _encoded(_Maintain(sensor, limits.milliseconds(time), until=limits.milliseconds(until)))


def _encoded(said: _Said) -> tuple[bytes, list[tuple[str, bytes]]]:
    try:
        limits.must_be_a_sensor(said.sensor)
    except RefusedError as refused:
        raise ValueError(refused.detail) from refused
    return msgspec.json.encode(said), [("content-type", CONTENT_TYPE.encode())]


def _event(record: Record) -> Retire | Maintain:
    payload = limits.payload_of(record, MAX_BYTES)
    json_faults.must_be_decodable(payload)
    try:
        said = _DECODER.decode(payload)
    except msgspec.ValidationError as error:
        raise RefusedError(Reason.SCHEMA, f"no event that this build knows: {error}") from error
    except msgspec.DecodeError as error:
        raise RefusedError(Reason.UNREADABLE, f"the event is not JSON: {error}") from error
    limits.must_be_a_sensor(said.sensor)
    time = record.timestamp if said.time is None else limits.microseconds(said.time)
    if isinstance(said, _Maintain):
        return Maintain(said.sensor, time, limits.microseconds(said.until), record.partition, record.timestamp)
    return Retire(said.sensor, time, record.partition, record.offset << ROW_BITS)
