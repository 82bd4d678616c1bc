"""What every codec of readings keeps, whatever its bytes look like; a codec's tests inherit `CodecContract`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from pipeline.codecs import CODECS, Codec, decode, reading_codec
from pipeline.codecs.json import LATEST
from pipeline.core.readings import Quality, Reading, Reason, Record, Rejected
from tests.contract.mutation import mutations
from tests.faults import Said

FUZZED = 100_000
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


def well_formed(decoded: list[Reading] | Rejected) -> bool:
    """What everything behind a codec may rely on."""
    if isinstance(decoded, Rejected):
        return isinstance(decoded.reason, Reason) and 0 < len(decoded.detail) <= 400
    return all(
        isinstance(reading.time, int)
        and 0 <= reading.time < LATEST
        and reading.sensor
        and reading.values
        and not any(map(math.isinf, reading.values.values()))
        for reading in decoded
    )


class CodecContract:
    @pytest.fixture
    def codec(self) -> Codec:
        raise NotImplementedError("a codec's tests say which codec they test")

    def corpus(self) -> Sequence[bytes]:
        """What the fuzzer starts from, beside the messages that the codec writes: good ones and bad ones."""
        return []

    def readings(self, codec: Codec, value: bytes) -> list[Reading]:
        decoded = codec.decode(record(value))
        assert not isinstance(decoded, Rejected), decoded.detail
        return decoded

    @pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.sensor)
    def test_a_reading_survives_the_wire(self, codec: Codec, reading: Reading) -> None:
        expected = reading._replace(partition=3, offset=17, received=NOW + 250_000)
        assert self.readings(codec, codec.encode(reading)) == [expected]

    def test_no_value_survives_the_wire(self, codec: Codec) -> None:
        message = codec.encode(Reading("pump", NOW, {"temperature": float("nan"), "vibration": 0.5}))
        (reading,) = self.readings(codec, message)
        assert {channel: repr(value) for channel, value in reading.values.items()} == {
            "temperature": "nan",
            "vibration": "0.5",
        }

    def test_a_tombstone_is_refused(self, codec: Codec) -> None:
        decoded = codec.decode(record(None))
        assert isinstance(decoded, Rejected)
        assert decoded.reason is Reason.UNREADABLE

    @pytest.mark.parametrize("value", [b"", b"\x00", b"\xff" * 40, b"[" * 200_000, b"{" * 200_000, b" " * 5_000_000])
    def test_hostile_bytes_are_refused_in_a_sentence(self, codec: Codec, value: bytes) -> None:
        decoded = codec.decode(record(value))
        assert isinstance(decoded, Rejected)
        assert 0 < len(decoded.detail) <= 400

    def test_every_cut_of_a_message_is_refused(self, codec: Codec) -> None:
        message = codec.encode(READINGS[1])
        for length in range(len(message)):
            assert isinstance(codec.decode(record(message[:length])), Rejected), message[:length]

    @pytest.mark.fault(
        "100,000 mutated messages, {suite}", expected="each gives readings or a reason; nothing raises, no inf passes"
    )
    def test_a_hundred_thousand_mutated_messages_give_readings_or_a_reason(self, codec: Codec, seen: Said) -> None:
        outcomes: Counter[str] = Counter()
        seeds = [*map(codec.encode, READINGS), *self.corpus()]
        longest = 0.0
        for value in mutations(seeds, FUZZED):
            began = time.perf_counter()
            decoded = codec.decode(record(value))
            longest = max(longest, time.perf_counter() - began)
            assert well_formed(decoded), value
            outcomes[decoded.reason if isinstance(decoded, Rejected) else "good"] += 1
        assert outcomes.keys() >= {"good", *map(str, self.refusals())}
        said = ", ".join(f"{how_many:,} {what}" for what, how_many in outcomes.most_common())
        seen(f"{said}; the slowest took {longest * 1e3:.1f} ms")

    def refusals(self) -> set[Reason]:
        """Reasons that the fuzzer has to meet, or it does not reach what it should."""
        return {Reason.UNREADABLE, Reason.SCHEMA, Reason.VALUE, Reason.SENSOR, Reason.TIME}

    def test_a_refusal_says_where_the_message_stands_and_keeps_it(self, codec: Codec) -> None:
        decoded = codec.decode(record(b"\xff"))
        assert isinstance(decoded, Rejected)
        assert decoded[2:] == ("sensor.readings", 3, 17, b"plant1/pump-7", b"\xff")

    def test_a_bad_neighbour_changes_nothing(self, codec: Codec) -> None:
        good = [record(codec.encode(reading), offset, codec.content_type) for offset, reading in enumerate(READINGS)]
        bad = record(b"\xff", 99, codec.content_type)
        mixed = [bad, good[0], bad, bad, *good[1:], bad]
        readings, rejected = decode(mixed)
        assert readings == decode(good)[0]
        assert len(readings) == len(READINGS)
        assert [r.offset for r in rejected] == [99] * 4

    def test_the_content_type_in_the_header_chooses_it(self, codec: Codec) -> None:
        assert reading_codec(codec.content_type.upper() + "; charset=utf-8") is CODECS[codec.content_type]
