"""JSON on the wire: readings in, alerts and dead letters out."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np

from pipeline.codecs import json_faults, limits
from pipeline.codecs.limits import MAX_BYTES, RefusedError
from pipeline.core.alerts import Alert
from pipeline.core.frames import GOOD, QUALITIES, ROW_BITS, Codes, Decoded, Frame
from pipeline.core.names import Names
from pipeline.core.readings import NO_SEQ, IntArray, Quality, Reading, Reason, Record, Rejected

MAX_DEAD_BYTES = 64 * 2**10  # of payload, and of key, that a dead letter repeats
PLAIN = ("value",)  # the channel of a reading that names none
NAN = float("nan")
CODES: Mapping[Quality | None, int] = {None: GOOD} | {quality: code for code, quality in enumerate(QUALITIES)}

Number = float | None
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Stamp = Int64 | float | datetime


class _Message(msgspec.Struct, gc=False):
    sensor: str
    time: Stamp
    values: dict[str, Number] | msgspec.UnsetType = msgspec.UNSET
    value: Number | msgspec.UnsetType = msgspec.UNSET
    quality: Quality | None = None
    seq: Int64 | None = None
    channel: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # that `value` is of; beside `values`, not looked at


_MESSAGE = msgspec.json.Decoder(_Message)
_CHANNEL = msgspec.json.Decoder(str | None)


class Stands(NamedTuple):
    """Where messages stand and when they came, (n,) each; see `Frame`."""

    partitions: IntArray
    places: IntArray
    received: IntArray

    @classmethod
    def of(cls, records: Sequence[Record]) -> Stands:
        """Of records that hold one reading each."""
        return cls(
            np.array([r.partition for r in records], np.int64),
            np.array([r.offset for r in records], np.int64) << ROW_BITS,
            np.array([r.timestamp for r in records], np.int64),
        )

    def take(self, rows: Sequence[int]) -> Stands:
        """Those at `rows`, in that order, each once."""
        if len(rows) == len(self.places):
            return self
        return Stands(self.partitions[rows], self.places[rows], self.received[rows])


@dataclass(frozen=True, slots=True)
class JsonReadings:
    """One reading a message; of a key that is given twice the last counts, fields it does not know are ignored."""

    content_type: ClassVar[str] = "application/json"
    max_bytes: int = MAX_BYTES

    def decode(self, records: Sequence[Record]) -> Decoded:
        """The reading of each record, or why there is none. The record's key is not looked at."""
        payloads = [r.value for r in records]
        faults = {} if self._nothing_odd(payloads) else self._odd(records)
        rows = [i for i in range(len(records)) if i not in faults]
        sound = [payload for payload in map(payloads.__getitem__, rows) if payload is not None]
        frames, others = frames_of(sound, Stands.of(records).take(rows))
        faults |= {rows[i]: fault for i, fault in others.items()}
        return Decoded(frames, [faults[i].of(records[i]) for i in sorted(faults)])

    def encode(self, reading: Reading) -> bytes:
        """The message that decodes to this reading; ValueError where a value is infinite."""
        if any(map(math.isinf, reading.values.values())):
            raise ValueError(f"sensor {reading.sensor!r} has an infinite value, which JSON cannot say")
        message: dict[str, object] = {"sensor": reading.sensor, "time": limits.milliseconds(reading.time)}
        if tuple(reading.values) == PLAIN:
            message["value"] = _number(reading.values["value"])
        else:
            message["values"] = {channel: _number(value) for channel, value in reading.values.items()}
        if reading.quality is not Quality.GOOD:
            message["quality"] = reading.quality.value
        if reading.seq is not None:
            message["seq"] = reading.seq
        return msgspec.json.encode(message)

    def _nothing_odd(self, payloads: Sequence[bytes | None]) -> bool:
        """Whether nothing has to be looked at before decoding; most polls are told here, at a look."""
        there = [payload for payload in payloads if payload is not None]
        longest = max(map(len, there), default=0)
        return (
            len(there) == len(payloads)
            and longest <= self.max_bytes
            and b"".join(there).isascii()
            and (longest <= json_faults.TOO_SHORT_TO_NEST or not any(map(json_faults.may_nest, there)))
        )

    def _odd(self, records: Sequence[Record]) -> dict[int, RefusedError]:
        faults = {}
        for i, record in enumerate(records):
            try:
                json_faults.must_be_decodable(limits.payload_of(record, self.max_bytes))
            except RefusedError as refused:
                faults[i] = refused
        return faults


def frames_of(payloads: Sequence[bytes], stands: Stands) -> tuple[list[Frame], dict[int, RefusedError]]:
    """One reading from each payload that `json_faults.must_be_decodable` passes, or its fault."""
    messages, faults = _messages(payloads)
    rows = list(range(len(payloads)))
    if faults:
        rows = [i for i in rows if i not in faults]
        stands = stands.take(rows)
    found, others = _columns(messages, stands)
    return found, faults | {rows[i]: fault for i, fault in others.items()}


def _messages(payloads: Sequence[bytes]) -> tuple[list[_Message], dict[int, RefusedError]]:
    messages: list[_Message] = []
    faults: dict[int, RefusedError] = {}
    left = iter(payloads)
    while True:
        try:
            messages.extend(map(_MESSAGE.decode, left))  # what came before a fault stays, and `left` is behind it
        except msgspec.DecodeError as error:
            at = len(messages) + len(faults)
            faults[at] = json_faults.diagnosed(payloads[at], error)
        else:
            return messages, faults


def _columns(messages: Sequence[_Message], stands: Stands) -> tuple[list[Frame], dict[int, RefusedError]]:
    """One frame for each set of channels; what is wrong with a reading is looked for in the order of the fields."""
    sensors = [m.sensor for m in messages]
    faults = limits.sensor_faults(sensors)
    times = _times([m.time for m in messages], faults)
    if set(map(type, [m.channel for m in messages])) != {msgspec.UnsetType}:
        _name_channels(messages, faults)
    alike = _by_channels(messages, faults)
    qualities = _codes([m.quality for m in messages])
    seqs = _seqs([m.seq for m in messages])
    whole = Frame(
        (), Names(sensors), times, np.empty((len(messages), 0)), qualities, seqs,
        stands.partitions, stands.places, stands.received,
    )  # fmt: skip
    frames = []
    for channels, rows in alike.items():
        sound = [i for i in rows if i not in faults] if faults else rows
        if sound:
            frames.append(_frame(whole, channels, messages, sound))
    return frames, faults


def _name_channels(messages: Sequence[_Message], faults: dict[int, RefusedError]) -> None:
    """Let those that name the channel of their one value be as if they had named it in `values`."""
    for i, m in enumerate(messages):
        if isinstance(m.channel, msgspec.UnsetType) or m.value is msgspec.UNSET or m.values is not msgspec.UNSET:
            continue
        try:
            channel = _CHANNEL.decode(m.channel)
        except msgspec.DecodeError as error:
            faults.setdefault(i, RefusedError(Reason.SCHEMA, f"`channel`: {error}"))
        else:
            if channel is not None:
                m.values, m.value = {channel: m.value}, msgspec.UNSET


def _frame(whole: Frame, channels: tuple[str, ...], messages: Sequence[_Message], rows: Sequence[int]) -> Frame:
    chosen = messages if len(rows) == len(messages) else [messages[i] for i in rows]
    if channels == PLAIN:  # said in either way
        columns = [[m.values["value"] if isinstance(m.values, dict) else m.value for m in chosen]]
    else:
        columns = [[m.values[channel] for m in chosen] for channel in channels]  # type: ignore[index]
    part = whole if chosen is messages else whole.take(np.array(rows))
    values = np.array(columns, np.float64).T  # null becomes NaN
    return Frame(
        channels, part.sensors, part.times, np.ascontiguousarray(values), part.qualities, part.seqs,
        part.partitions, part.places, part.received,
    )  # fmt: skip


def _times(stamps: Sequence[Stamp], faults: dict[int, RefusedError]) -> IntArray:
    if not stamps:
        return np.empty(0, np.int64)
    doubtful: Sequence[int] = range(len(stamps))
    if set(map(type, stamps)) <= {int, float}:
        times, taken = limits.all_microseconds(np.array(stamps))
        doubtful = np.flatnonzero(~taken).tolist()
    else:
        times = np.zeros(len(stamps), np.int64)
    for i in doubtful:
        try:
            times[i] = limits.microseconds(stamps[i])
        except RefusedError as refused:
            faults.setdefault(i, refused)
    return times


def _by_channels(
    messages: Sequence[_Message], faults: dict[int, RefusedError]
) -> Mapping[tuple[str, ...], Sequence[int]]:
    """Which rows name which channels."""
    named, plain = [m.values for m in messages], [m.value for m in messages]
    forms = set(map(type, named)), set(map(type, plain))
    if forms[0] == {msgspec.UnsetType} and msgspec.UnsetType not in forms[1]:
        return {PLAIN: range(len(messages))}
    alike: dict[tuple[str, ...], Sequence[int]] = {}
    if forms == ({dict}, {msgspec.UnsetType}) and len(kinds := set(map(tuple, named))) == 1:  # type: ignore[arg-type]
        alike = {kinds.pop(): range(len(messages))}
    else:
        alike |= _sorted_out(named, plain, faults)
    for channels in list(alike):
        try:
            limits.must_be_channels(channels)
        except RefusedError as refused:
            faults |= {i: faults.get(i, refused) for i in alike.pop(channels)}
    return alike


def _sorted_out(
    named: Sequence[dict[str, Number] | msgspec.UnsetType],
    plain: Sequence[Number | msgspec.UnsetType],
    faults: dict[int, RefusedError],
) -> dict[tuple[str, ...], list[int]]:
    alike: dict[tuple[str, ...], list[int]] = {}
    for i, (values, value) in enumerate(zip(named, plain, strict=True)):
        has_values, has_value = values is not msgspec.UNSET, value is not msgspec.UNSET
        if has_values == has_value:
            what = "both `values` and `value` are there; a reading has one of them"
            what = what if has_value else "neither `values` nor `value` is there"
            faults.setdefault(i, RefusedError(Reason.SCHEMA, what))
        else:
            alike.setdefault(tuple(values) if isinstance(values, dict) else PLAIN, []).append(i)
    return alike


def _codes(qualities: Sequence[Quality | None]) -> Codes:
    if set(map(type, qualities)) <= {type(None)}:
        return np.full(len(qualities), GOOD, np.uint8)
    return np.array([CODES[quality] for quality in qualities], np.uint8)


def _seqs(seqs: Sequence[int | None]) -> IntArray:
    if set(map(type, seqs)) <= {type(None)}:
        return np.full(len(seqs), NO_SEQ, np.int64)
    return np.array([NO_SEQ if seq is None else seq for seq in seqs], np.int64)


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
            fields[name] = limits.milliseconds(fields[name])
    return msgspec.json.encode(fields, enc_hook=_plain)


def decode_alert(payload: bytes) -> Alert:
    """The alert that `encode_alert` wrote; ValueError with a sentence for anything else."""
    try:
        fields = msgspec.json.decode(payload, type=dict[str, object])
        wire = msgspec.json.decode(payload, type=_AlertWire)
        restored = {
            "start": limits.from_milliseconds(wire.start),
            "last": limits.from_milliseconds(wire.last),
            "end": None if wire.end is None else limits.from_milliseconds(wire.end),
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
    """A JSON message with the reason and the payload, cut at 64 KiB; the headers keep reason and key."""
    payload = rejected.value
    text, binary = _shown(payload)
    letter = {
        "reason": rejected.reason.value,
        "detail": rejected.detail,
        "readings": rejected.readings,
        "topic": rejected.topic,
        "partition": rejected.partition,
        "offset": rejected.offset,
        "payload": text,
        "payload_base64": binary,
        "payload_bytes": None if payload is None else len(payload),
    }
    headers = [("content-type", JsonReadings.content_type.encode()), ("reason", rejected.reason.value.encode())]
    if rejected.key is not None:
        headers.append(("key", rejected.key[:MAX_DEAD_BYTES]))
    return msgspec.json.encode(letter), headers


def _shown(payload: bytes | None) -> tuple[str | None, str | None]:
    """The payload as text, or as Base64 where it is none."""
    if payload is None:
        return None, None
    start = payload[:MAX_DEAD_BYTES]
    try:
        payload.decode()
    except UnicodeDecodeError:
        return None, base64.b64encode(start).decode()
    return start.decode(errors="replace"), None  # the cut may go through a character
