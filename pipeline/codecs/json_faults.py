"""What is wrong with a JSON message, in words that name the field: the decoder's own name neither that nor NaN."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from datetime import datetime
from typing import Annotated

import msgspec

from pipeline.codecs.limits import MAX_CHANNELS, RefusedError, too_many_channels
from pipeline.core.names import MAX_SENSOR_CHARACTERS
from pipeline.core.readings import Quality, Reason

MAX_NESTING = 64  # a fixed depth: the interpreter's own limit depends on how deep the caller stands
TOO_SHORT_TO_NEST = 2 * MAX_NESTING + 2  # bytes: what has no more cannot be sound and nested deeper

TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive: linear on any bytes
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
SQUARE = bytes.maketrans(b"{}", b"[]")

Number = float | None
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

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


def must_be_decodable(payload: bytes) -> None:
    """RefusedError for what the decoder would pass over: text that is not UTF-8, and nesting, in fields it skips."""
    if not payload.isascii():
        _must_be_utf8(payload)
    if may_nest(payload):
        _must_be_shallow(payload)


def may_nest(payload: bytes) -> bool:
    """Whether there are brackets enough to be nested too deep."""
    return payload.count(b"[") + payload.count(b"{") > MAX_NESTING


def _must_be_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(
            Reason.UNREADABLE, f"the message is not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def _must_be_shallow(payload: bytes) -> None:
    brackets = TEXT.sub(b"", payload).translate(SQUARE, NO_BRACKETS)
    for _ in range(MAX_NESTING):
        if b"[]" not in brackets:
            break
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    if brackets:
        raise RefusedError(Reason.UNREADABLE, f"brackets are unbalanced, or nested deeper than {MAX_NESTING} levels")


def fields_of(payload: bytes, error: msgspec.DecodeError | None = None) -> dict[str, msgspec.Raw]:
    """The fields of a message, of which the decoder said `error`; RefusedError where it is no object."""
    try:
        return _FIELDS.decode(payload)
    except msgspec.ValidationError:
        detail = "the message is JSON, but not an object with `sensor`, `time` and `values`"
        raise RefusedError(Reason.SCHEMA, detail) from None
    except msgspec.DecodeError:
        constant = _non_finite_constant(payload)
        if constant:
            detail = f"{constant} is not a JSON number; send null where there is no value"
            raise RefusedError(Reason.VALUE, detail) from None
        raise RefusedError(Reason.UNREADABLE, f"the message is not JSON: {error}") from None


def object_of(raw: msgspec.Raw, field: str) -> dict[str, msgspec.Raw]:
    """What a field holds by its keys; RefusedError where it is no object."""
    try:
        return _FIELDS.decode(raw)
    except msgspec.DecodeError as error:
        raise RefusedError(Reason.SCHEMA, f"`{field}`: {error}") from None


def diagnosed(payload: bytes, error: msgspec.DecodeError) -> RefusedError:
    """Which field of a reading is at fault."""
    try:
        fault = _wrong_field(fields_of(payload, error))
    except RefusedError as refused:
        return refused
    return fault or RefusedError(Reason.SCHEMA, f"a key that is given twice is wrong once: {error}")


def _wrong_field(fields: dict[str, msgspec.Raw]) -> RefusedError | None:
    for field, wanted, reason in _EXPECTED:
        if field in fields:
            fault = _fault(fields[field], wanted)
            if fault:
                return RefusedError(reason, f"`{field}`: {fault}")
        elif field in _REQUIRED:
            return RefusedError(reason, f"`{field}` is missing")
    channels = _FIELDS.decode(fields.get("values", b"{}"))
    for channel, raw in itertools.islice(channels.items(), MAX_CHANNELS):
        fault = _fault(raw, Number)
        if fault:
            return RefusedError(Reason.VALUE, f"channel {channel[:MAX_SENSOR_CHARACTERS]!a}: {fault}")
    if len(channels) > MAX_CHANNELS:
        return too_many_channels(len(channels))
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
