"""JSON on the wire: readings in, alerts and dead letters out."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from pipeline.core.alerts import Alert
from pipeline.core.readings import DAY, Quality, Reading, Reason, Record, Rejected

MAX_BYTES = 2**20  # the broker's own default for a message
MAX_CHANNELS = 1024
MAX_NESTING = 64  # a fixed depth: the interpreter's own limit depends on how deep the caller stands
MAX_SENSOR_CHARACTERS = 256
MAX_DETAIL_CHARACTERS = 400  # a detail may quote the message
MAX_DEAD_BYTES = 64 * 2**10  # of payload, and of key, that a dead letter repeats
MILLISECOND = 1_000  # µs
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = (datetime(2200, 1, 1, tzinfo=UTC) - EPOCH).days * DAY  # µs; times from here on are a mistake of unit

NAN = float("nan")
TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive: linear on any bytes
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
SQUARE = bytes.maketrans(b"{}", b"[]")

Number = float | None
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Message(msgspec.Struct, gc=False):
    sensor: str
    time: Int64 | float | datetime
    values: dict[str, Number] | msgspec.UnsetType = msgspec.UNSET
    value: Number | msgspec.UnsetType = msgspec.UNSET
    quality: Quality | None = None
    seq: Int64 | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EXPECTED: tuple[tuple[str, object, Reason], ...] = (
    ("sensor", str, Reason.SENSOR),
    ("time", Int64 | float | datetime, Reason.TIME),
    ("value", Number, Reason.VALUE),
    ("values", dict[str, msgspec.Raw], Reason.SCHEMA),
    ("quality", Quality | None, Reason.SCHEMA),
    ("seq", Int64 | None, Reason.SCHEMA),
)
_REQUIRED = ("sensor", "time")


class _RefusedError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail[:MAX_DETAIL_CHARACTERS]


@dataclass(frozen=True, slots=True)
class JsonReadings:
    """One reading a message; of a key that is given twice the last counts, fields it does not know are ignored."""

    content_type: ClassVar[str] = "application/json"
    max_bytes: int = MAX_BYTES

    def decode(self, record: Record) -> list[Reading] | Rejected:
        """The one reading in the record, or why there is none. The record's key is not looked at."""
        try:
            return [self._reading(record)]
        except _RefusedError as refused:
            where = record.topic, record.partition, record.offset, record.key, record.value
            return Rejected(refused.reason, refused.detail, *where)

    def encode(self, reading: Reading) -> bytes:
        """The message that decodes to this reading; ValueError where a value is infinite."""
        if any(map(math.isinf, reading.values.values())):
            raise ValueError(f"sensor {reading.sensor!r} has an infinite value, which JSON cannot say")
        message: dict[str, object] = {"sensor": reading.sensor, "time": _milliseconds(reading.time)}
        if reading.values.keys() == {"value"}:
            message["value"] = _number(reading.values["value"])
        else:
            message["values"] = {channel: _number(value) for channel, value in reading.values.items()}
        if reading.quality is not Quality.GOOD:
            message["quality"] = reading.quality.value
        if reading.seq is not None:
            message["seq"] = reading.seq
        return msgspec.json.encode(message)

    def _reading(self, record: Record) -> Reading:
        payload = record.value
        if payload is None:
            raise _RefusedError(Reason.UNREADABLE, "the message is a tombstone: it has no payload")
        if len(payload) > self.max_bytes:
            raise _RefusedError(
                Reason.TOO_LARGE, f"the message has {len(payload)} bytes; the limit is {self.max_bytes}"
            )
        if not payload.isascii():
            _must_be_utf8(payload)  # msgspec does not look into the strings it skips
        if payload.count(b"[") + payload.count(b"{") > MAX_NESTING:
            _must_be_shallow(payload)
        try:
            message = _MESSAGE.decode(payload)
        except msgspec.DecodeError as error:
            raise _diagnose(payload, error) from error
        return Reading(
            _sensor(message.sensor),
            _microseconds(message.time),
            _values(message),
            message.quality or Quality.GOOD,
            message.seq,
            record.partition,
            record.offset,
            record.timestamp,
        )


def _sensor(name: str) -> str:
    if not name or name.isspace():
        raise _RefusedError(Reason.SENSOR, "the sensor's name is empty")
    if len(name) > MAX_SENSOR_CHARACTERS:
        detail = f"the sensor's name has {len(name)} characters; the limit is {MAX_SENSOR_CHARACTERS}"
        raise _RefusedError(Reason.SENSOR, detail)
    if not name.isprintable():
        raise _RefusedError(Reason.SENSOR, f"the sensor's name {name!a} has characters that cannot be printed")
    return name


def _microseconds(time: int | float | datetime) -> int:
    if isinstance(time, datetime):  # RFC 3339; a stamp without an offset is UTC
        since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH
        stamp = since // timedelta(microseconds=1)
    else:
        stamp = _from_milliseconds(time)
    if 0 <= stamp < LATEST:
        return stamp
    if isinstance(time, datetime):
        raise _RefusedError(Reason.TIME, f"time {time.isoformat()} lies outside 1970 to 2199")
    hint = "; microseconds where milliseconds are due?" if 0 <= time < LATEST else ""
    raise _RefusedError(Reason.TIME, f"time {time:.16g} ms lies outside 1970 to 2199{hint}")


def _values(message: _Message) -> dict[str, float]:
    values, value = message.values, message.value
    if isinstance(values, msgspec.UnsetType):
        if isinstance(value, msgspec.UnsetType):
            raise _RefusedError(Reason.SCHEMA, "neither `values` nor `value` is there")
        return {"value": NAN if value is None else value}
    if not isinstance(value, msgspec.UnsetType):
        raise _RefusedError(Reason.SCHEMA, "both `values` and `value` are there; a reading has one of them")
    if not values:
        raise _RefusedError(Reason.SCHEMA, "`values` names no channel; send null where there is no value")
    if len(values) > MAX_CHANNELS:
        raise _too_many(values)
    if "" in values or not "".join(values).isprintable():
        raise _RefusedError(Reason.SCHEMA, "the name of a channel is empty or has characters that cannot be printed")
    return {channel: NAN if value is None else value for channel, value in values.items()}


def _too_many(channels: Sized) -> _RefusedError:
    detail = f"`values` names {len(channels)} channels; the limit is {MAX_CHANNELS}"
    return _RefusedError(Reason.TOO_LARGE, detail)


def _must_be_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise _RefusedError(
            Reason.UNREADABLE, f"the message is not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def _must_be_shallow(payload: bytes) -> None:
    brackets = TEXT.sub(b"", payload).translate(SQUARE, NO_BRACKETS)
    for _ in range(MAX_NESTING):
        if b"[]" not in brackets:
            break
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    if brackets:
        raise _RefusedError(Reason.UNREADABLE, f"brackets are unbalanced, or nested deeper than {MAX_NESTING} levels")


def _diagnose(payload: bytes, error: msgspec.DecodeError) -> _RefusedError:
    """Which field is at fault; the decoder's own message names neither the channel nor Python's NaN."""
    try:
        fields = _FIELDS.decode(payload)
    except msgspec.ValidationError:
        return _RefusedError(Reason.SCHEMA, "the message is JSON, but not an object with `sensor`, `time` and `values`")
    except msgspec.DecodeError:
        constant = _non_finite_constant(payload)
        if constant:
            return _RefusedError(Reason.VALUE, f"{constant} is not a JSON number; send null where there is no value")
        return _RefusedError(Reason.UNREADABLE, f"the message is not JSON: {error}")
    return _wrong_field(fields) or _RefusedError(Reason.SCHEMA, f"a key that is given twice is wrong once: {error}")


def _wrong_field(fields: dict[str, msgspec.Raw]) -> _RefusedError | None:
    for field, wanted, reason in _EXPECTED:
        if field in fields:
            fault = _fault(fields[field], wanted)
            if fault:
                return _RefusedError(reason, f"`{field}`: {fault}")
        elif field in _REQUIRED:
            return _RefusedError(reason, f"`{field}` is missing")
    channels = _FIELDS.decode(fields.get("values", b"{}"))
    for channel, raw in itertools.islice(channels.items(), MAX_CHANNELS):
        fault = _fault(raw, Number)
        if fault:
            return _RefusedError(Reason.VALUE, f"channel {channel[:MAX_SENSOR_CHARACTERS]!a}: {fault}")
    if len(channels) > MAX_CHANNELS:
        return _too_many(channels)
    return None


def _fault(raw: msgspec.Raw, wanted: object) -> str:
    try:
        msgspec.json.decode(raw, type=wanted)
    except msgspec.DecodeError as error:
        return str(error)
    return ""


def _non_finite_constant(payload: bytes) -> str | None:
    """`NaN`, `Infinity` or `-Infinity` where Python's own encoder would have written one."""
    found: list[str] = []
    with contextlib.suppress(ValueError):  # what matters is whether a constant came before the fault
        json.loads(payload.decode(), parse_constant=found.append)
    return found[0] if found else None


def _from_milliseconds(time: int | float) -> int:
    """Exact for what `_milliseconds` writes, up to the year 2248; the whole and the fraction go their own ways."""
    if isinstance(time, int):
        return time * MILLISECOND
    whole, fraction = divmod(time, 1)
    return int(whole) * MILLISECOND + round(fraction * MILLISECOND)


def _milliseconds(time: int) -> int | float:
    return time / MILLISECOND if time % MILLISECOND else time // MILLISECOND


def _number(value: float) -> Number:
    return None if math.isnan(value) else float(value)


class _AlertWire(msgspec.Struct):
    """The fields of an alert that JSON says in its own way: times in ms, null for NaN."""

    start: int | float
    last: int | float
    end: int | float | None = None
    expected: dict[str, Number] = msgspec.field(default_factory=dict)
    actual: dict[str, Number] = msgspec.field(default_factory=dict)
    contributions: dict[str, Number] = msgspec.field(default_factory=dict)
    band: dict[str, tuple[Number, Number]] = msgspec.field(default_factory=dict)


def encode_alert(alert: Alert) -> bytes:
    """The alert's fields by their names, times in epoch ms with a fraction where there is one, null for NaN."""
    fields = msgspec.to_builtins(alert, enc_hook=_plain)
    for name in ("start", "last", "end"):
        if fields[name] is not None:
            fields[name] = _milliseconds(fields[name])
    return msgspec.json.encode(fields, enc_hook=_plain)


def decode_alert(payload: bytes) -> Alert:
    """The alert that `encode_alert` wrote; ValueError with a sentence for anything else."""
    try:
        fields = msgspec.json.decode(payload, type=dict[str, object])
        wire = msgspec.json.decode(payload, type=_AlertWire)
        restored = {
            "start": _from_milliseconds(wire.start),
            "last": _from_milliseconds(wire.last),
            "end": None if wire.end is None else _from_milliseconds(wire.end),
            "expected": _restored(wire.expected),
            "actual": _restored(wire.actual),
            "contributions": _restored(wire.contributions),
            "band": {c: tuple(NAN if v is None else v for v in pair) for c, pair in wire.band.items()},
        }
        return msgspec.convert(fields | restored, Alert)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the message is not an alert: {error}") from error


def _restored(values: Mapping[str, Number]) -> dict[str, float]:
    return {channel: NAN if value is None else value for channel, value in values.items()}


def _plain(value: object) -> object:
    """What the encoder does not know of itself: numpy's scalars and mappings other than dict."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in an alert")


def encode_dead_letter(rejected: Rejected) -> tuple[bytes, list[tuple[str, bytes]]]:
    """A JSON message with the reason and the payload as text, cut at 64 KiB; the headers keep reason and key."""
    payload = rejected.value
    letter = {
        "reason": rejected.reason.value,
        "detail": rejected.detail,
        "topic": rejected.topic,
        "partition": rejected.partition,
        "offset": rejected.offset,
        "payload": None if payload is None else payload[:MAX_DEAD_BYTES].decode(errors="replace"),
        "payload_bytes": None if payload is None else len(payload),
    }
    headers = [("content-type", JsonReadings.content_type.encode()), ("reason", rejected.reason.value.encode())]
    if rejected.key is not None:
        headers.append(("key", rejected.key[:MAX_DEAD_BYTES]))
    return msgspec.json.encode(letter), headers
