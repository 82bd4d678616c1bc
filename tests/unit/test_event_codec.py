"""An operator's event on the wire: what is one, what is refused, and that it keeps its place among the readings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.codecs import decode, decode_frames
from pipeline.codecs.events import (
    CONTENT_TYPE,
    MAX_BYTES,
    decode_event,
    encode_maintenance,
    encode_retirement,
    is_event,
    parted,
)
from pipeline.core.events import Maintain, Retire
from pipeline.core.frames import ROW_BITS
from pipeline.core.readings import Reason, Record, Rejected
from tests.contract.codec import record as reading_record

HEADERS = (("content-type", CONTENT_TYPE.encode()),)
EVENTS = sorted((Path(__file__).parents[1] / "corpus" / "readings").glob("*"))


def record(value: bytes | None, offset: int = 7) -> Record:
    return Record("sensor.readings", 2, offset, 1_795_347_600_000_000, b"a", value, HEADERS)


@pytest.mark.parametrize("time", [None, 1_795_347_600_123_456])
def test_a_retirement_comes_back_with_its_place_and_time(time: int | None) -> None:
    value, headers = encode_retirement("plant1/pump-7", time)
    sent = record(value)._replace(headers=tuple(headers))
    assert is_event(sent)
    assert decode_event(sent) == Retire("plant1/pump-7", time or sent.timestamp, 2, 7 << ROW_BITS)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.UNREADABLE),
        (b"{", Reason.UNREADABLE),
        (b"\xff", Reason.UNREADABLE),
        (b"[" * 100_000, Reason.TOO_LARGE),
        (b"[" * (MAX_BYTES - 1), Reason.UNREADABLE),
        (b'{"event":"explode","sensor":"a"}', Reason.SCHEMA),
        (b'{"sensor":"a"}', Reason.SCHEMA),
        (b'{"event":"retire"}', Reason.SCHEMA),
        (b'{"event":"retire","sensor":""}', Reason.SENSOR),
        (b'{"event":"retire","sensor":"a","time":1e300}', Reason.TIME),
        (b'{"event":"maintenance","sensor":"a"}', Reason.SCHEMA),
        (b'{"event":"maintenance","sensor":"a","until":1e300}', Reason.TIME),
    ],
)
def test_what_is_no_event_is_refused_with_its_reason(value: bytes | None, reason: Reason) -> None:
    refused = decode_event(record(value))
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.offset, refused.value) == (reason, 7, value)


def test_a_maintenance_comes_back_with_its_span() -> None:
    value, headers = encode_maintenance("plant1/pump-7", 1_795_347_600_000_000, 1_795_354_800_000_000)
    sent = record(value)._replace(headers=tuple(headers))
    span = 1_795_347_600_000_000, 1_795_354_800_000_000
    assert decode_event(sent) == Maintain("plant1/pump-7", *span, 2, sent.timestamp)


@given(st.binary(max_size=60) | st.sampled_from(EVENTS).map(Path.read_bytes))
@example(b'{"event":"retire","sensor":"a","time":"2026-01-01T00:00:00Z"}')
def test_whatever_it_holds_an_event_is_decoded_or_refused(value: bytes) -> None:
    assert isinstance(decode_event(record(value)), Retire | Maintain | Rejected)


def test_events_part_the_records_where_they_stand() -> None:
    readings = [reading_record(b"{}")._replace(offset=offset) for offset in range(4)]
    events = [record(b"1", 10), record(b"2", 11)]
    found = list(parted([readings[0], events[0], events[1], readings[1], readings[2]]))
    assert found == [([readings[0]], events[0]), ([], events[1]), (readings[1:3], None)]
    assert list(parted(readings)) == [(readings, None)]


def test_an_event_is_neither_a_reading_nor_a_fault_to_whoever_reads_history() -> None:
    value, _ = encode_retirement("a")
    assert decode([record(value)]) == ([], [])
    assert decode_frames([record(value)]).rejected == []


def test_a_name_that_no_sensor_can_have_is_not_retired() -> None:
    with pytest.raises(ValueError, match="empty"):
        encode_retirement(" ")
