"""What every codec of readings keeps, whatever its bytes look like; a codec's tests inherit `CodecContract`."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from pipeline.codecs import CODECS, Codec, decode, reading_codec
from pipeline.codecs.limits import LATEST
from pipeline.core.frames import ROW_BITS, Decoded
from pipeline.core.readings import Quality, Reading, Reason, Record, Rejected
from tests.contract.mutation import mutations
from tests.faults import Said

FUZZED = 100_000
TOGETHER = 50  # messages that are decoded at once
NOW = 1_795_347_600_123_000  # µs
READINGS = [
    Reading("plant1/pump-7", NOW, {"value": 71.3}),
    Reading("plant1/pump-7", NOW + 1, {"temperature": 71.3, "vibration": -0.0}),
    Reading("завод/насос 7", 0, {"°C": 5e-324}, Quality.MAINTENANCE, seq=0),
    Reading('a "quoted" \\ name', NOW, {"value": 1.7976931348623157e308}, Quality.BAD, seq=-(2**63)),
]


def record(value: bytes | None, offset: int = 17, content_type: str | None = None) -> Record:
    """A record at a place that differs in every number, so that none can be mistaken for another."""
    headers = (("Content-Type", content_type.encode()),) if content_type else ()
    return Record("sensor.readings", 3, offset, NOW + 250_000, b"plant1/pump-7", value, headers)


def expanded(decoded: Decoded) -> list[Reading]:
    """One by one, in the order of their places."""
    rows = sorted((row for frame in decoded.frames for row in frame.readings()), key=lambda row: row[0])
    return [reading for _, reading in rows]


def refusal(decoded: Decoded) -> Rejected:
    """The only thing that came of it."""
    assert not decoded.frames
    (rejected,) = decoded.rejected
    return rejected


def must_be_well_formed(decoded: Decoded) -> None:
    """Readings that a detector may see, and refusals that say something; one of them at least."""
    assert decoded.frames or decoded.rejected
    for rejected in decoded.rejected:
        assert isinstance(rejected.reason, Reason)
        assert 0 < len(rejected.detail) <= 400
        assert rejected.readings >= 1
    for frame in decoded.frames:
        assert len(frame) > 0
        assert frame.values.shape == (len(frame), len(frame.channels))
        assert all(len(column) == len(frame) for column in (frame.sensors, frame.seqs, frame.qualities, frame.places))
        for reading in (reading for _, reading in frame.readings()):
            assert 0 <= reading.time < LATEST
            assert reading.sensor
            assert not reading.sensor.isspace()
            assert reading.values
            assert not any(map(math.isinf, reading.values.values()))


class CodecContract:
    @pytest.fixture
    def codec(self) -> Codec:
        raise NotImplementedError("a codec's tests say which codec they test")

    def message(self, reading: Reading) -> bytes:
        raise NotImplementedError("a codec's tests say how a reading is sent")

    def corpus(self) -> Sequence[bytes]:
        """What the fuzzer starts from, beside the messages that the codec writes: good ones and bad ones."""
        return []

    @pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.sensor)
    def test_a_reading_survives_the_wire(self, codec: Codec, reading: Reading) -> None:
        decoded = codec.decode([record(self.message(reading))])
        assert decoded.rejected == []
        assert expanded(decoded) == [reading._replace(partition=3, offset=17, received=NOW + 250_000)]

    def test_no_value_survives_the_wire(self, codec: Codec) -> None:
        message = self.message(Reading("pump", NOW, {"temperature": float("nan"), "vibration": 0.5}))
        (reading,) = expanded(codec.decode([record(message)]))
        assert {channel: repr(value) for channel, value in reading.values.items()} == {
            "temperature": "nan",
            "vibration": "0.5",
        }

    def test_a_tombstone_is_refused(self, codec: Codec) -> None:
        assert refusal(codec.decode([record(None)])).reason is Reason.UNREADABLE

    @pytest.mark.parametrize("value", [b"", b"\x00", b"\xff" * 40, b"[" * 200_000, b"{" * 200_000, b" " * 5_000_000])
    def test_hostile_bytes_are_refused_in_a_sentence(self, codec: Codec, value: bytes) -> None:
        assert 0 < len(refusal(codec.decode([record(value)])).detail) <= 400

    def test_every_cut_of_a_message_is_refused(self, codec: Codec) -> None:
        message = self.message(READINGS[1])
        for length in range(len(message)):
            refusal(codec.decode([record(message[:length])]))

    @pytest.mark.fault(
        "100,000 mutated messages, {suite}", expected="each gives readings or a reason; nothing raises, no inf passes"
    )
    def test_a_hundred_thousand_mutated_messages_give_readings_or_a_reason(self, codec: Codec, seen: Said) -> None:
        outcomes: Counter[str] = Counter()
        seeds = [*map(self.message, READINGS), *self.corpus()]
        longest = 0.0
        left = enumerate(mutations(seeds, FUZZED))
        while some := [record(value, offset) for offset, value in itertools.islice(left, TOGETHER)]:
            began = time.perf_counter()
            decoded = codec.decode(some)
            longest = max(longest, time.perf_counter() - began)
            must_be_well_formed(decoded)
            read = {int(place) >> ROW_BITS for frame in decoded.frames for place in frame.places}
            assert read | {r.offset for r in decoded.rejected} == {each.offset for each in some}
            outcomes.update(["good"] * len(read))
            outcomes.update(str(rejected.reason) for rejected in decoded.rejected)
        assert outcomes.keys() >= {"good", *map(str, self.refusals())}
        said = ", ".join(f"{how_many:,} {what}" for what, how_many in outcomes.most_common())
        seen(f"{said}; the slowest {TOGETHER} took {longest * 1e3:.1f} ms")

    def refusals(self) -> set[Reason]:
        """Reasons that the fuzzer has to meet, or it does not reach what it should."""
        return {Reason.UNREADABLE, Reason.SCHEMA, Reason.VALUE, Reason.SENSOR, Reason.TIME}

    def test_a_refusal_says_where_the_message_stands_and_keeps_it(self, codec: Codec) -> None:
        found = refusal(codec.decode([record(b"\xff")]))
        assert found[2:] == ("sensor.readings", 3, 17, b"plant1/pump-7", b"\xff", 1)

    def test_nothing_decodes_to_nothing(self, codec: Codec) -> None:
        assert codec.decode([]) == ([], [])

    def test_a_bad_neighbour_changes_nothing(self, codec: Codec) -> None:
        good = [record(self.message(reading), offset, codec.content_type) for offset, reading in enumerate(READINGS)]
        bad = record(b"\xff", 99, codec.content_type)
        mixed = [bad, good[0], bad, bad, *good[1:], bad]
        readings, rejected = decode(mixed)
        assert readings == decode(good)[0]
        assert len(readings) == len(READINGS)
        assert [r.offset for r in rejected] == [99] * 4

    def test_the_content_type_in_the_header_chooses_it(self, codec: Codec) -> None:
        assert reading_codec(codec.content_type.upper() + "; charset=utf-8") is CODECS[codec.content_type]
