"""JSON as people and gateways send it: what is read, what is refused and why, and what goes out."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from pipeline.codecs import Codec, decode
from pipeline.codecs.json import (
    MAX_DEAD_BYTES,
    JsonReadings,
    decode_alert,
    encode_alert,
    encode_dead_letter,
)
from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Resolution, Severity, State
from pipeline.core.readings import Reading, Reason, Rejected
from tests.contract.codec import NOW, CodecContract, expanded, record, refusal

CORPUS = sorted((Path(__file__).parents[1] / "corpus" / "readings").iterdir())
START = b'{"sensor":"plant1/pump-7","time":1795347600123,'
ALERT = Alert(
    alert_id="0123456789abcdef",
    revision=2,
    state=State.RESOLVED,
    kind=Kind.FORECAST,
    severity=Severity.CRITICAL,
    sensor="plant1/pump-7",
    start=NOW,
    last=NOW + 456,
    end=NOW + 1_000_001,
    evidence=Evidence(3, 17, 42, "sensor.readings", "3-17"),
    model=ModelRef("pumps", "7", "ab" * 32),
    resolution=Resolution.RETURNED,
    score=6.5,
    threshold=4.0,
    expected={"temperature": 71.3},
    actual={"temperature": 99.0},
    band={"temperature": (70.0, 72.5)},
    contributions={"temperature": 1.0},
    detection_delay_ms=250,
)


def read(message: bytes) -> Reading:
    decoded = JsonReadings().decode([record(message)])
    assert decoded.rejected == []
    (reading,) = expanded(decoded)
    return reading


def refused(message: bytes) -> Rejected:
    return refusal(JsonReadings().decode([record(message)]))


class TestJsonReadings(CodecContract):
    @pytest.fixture
    def codec(self) -> Codec:
        return JsonReadings()

    def message(self, reading: Reading) -> bytes:
        return JsonReadings().encode(reading)

    def corpus(self) -> Sequence[bytes]:
        return [path.read_bytes() for path in CORPUS]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_is_read_or_refused_as_its_names_say(path: Path) -> None:
    expected = path.name.partition("--")[0]
    decoded = JsonReadings().decode([record(path.read_bytes())])
    assert (decoded.rejected[0].reason if decoded.rejected else "good") == expected


def test_the_corpus_holds_every_reason_a_small_message_can_be_refused_for() -> None:
    reasons = {path.name.partition("--")[0] for path in CORPUS} - {"good"}
    assert reasons == set(Reason) - {Reason.TOO_LARGE, Reason.FUTURE, Reason.NO_GROUP}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (START + b'"value":1,"note":"' + b"x" * 5_000_000 + b'"}', Reason.TOO_LARGE),
        (START + b'"values":{' + b",".join(b'"c%d":1' % i for i in range(1025)) + b"}}", Reason.TOO_LARGE),
        (START + b'"value":' + b"[" * 200_000, Reason.UNREADABLE),
        (START + b'"value":1,"note":' + b"[" * 64 + b"]" * 64 + b"}", Reason.UNREADABLE),
        (START + b'"value":1,"note":' + b'{"a":[' * 32 + b"]}" * 32 + b"}", Reason.UNREADABLE),
        (START + b'"value":' + b"9" * 100_000 + b"}", Reason.VALUE),
        (START + b'"value":1,"quality":"' + b"x" * 100_000 + b'"}', Reason.SCHEMA),
        (b'{"sensor":"' + b"p" * 100_000 + b'","time":1,"value":1}', Reason.SENSOR),
        (START + b'"note":[' + b"[]," * 40 + b'"' + b'\\"' * 400_000, Reason.UNREADABLE),
    ],
    ids=[
        "5-mb",
        "1025-channels",
        "200000-deep",
        "65-deep",
        "65-deep-by-turns",
        "100000-digits",
        "long-quality",
        "long-sensor",
        "quotes",
    ],
)
def test_what_is_too_much_is_refused_in_a_short_sentence(message: bytes, reason: Reason) -> None:
    rejected = refused(message)
    assert rejected.reason is reason
    assert len(rejected.detail) <= 400


def test_brackets_in_a_text_and_many_flat_objects_are_not_nesting() -> None:
    flat = START + b'"value":1,"note":"' + b"[{" * 500 + b'","tags":[' + b"{}," * 500 + b"{}]}"
    deep = START + b'"value":1,"note":' + b"[" * 63 + b"]" * 63 + b"}"
    assert read(flat).values == read(deep).values == {"value": 1.0}


def test_the_refusal_names_the_channel_at_fault() -> None:
    detail = refused(START + b'"values":{"temperature":71.3,"vibration":true}}').detail
    assert detail == "channel 'vibration': Expected `float | null`, got `bool`"


def test_microseconds_sent_as_milliseconds_are_recognised() -> None:
    assert "microseconds" in refused(b'{"sensor":"pump","time":1000000000000000,"value":1}').detail


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1795347600123", NOW),
        ("1795347600123.0", NOW),
        ("1795347600123.456", NOW + 456),
        ("1.795347600123e12", NOW),
        ('"2026-11-22T11:40:00.123Z"', NOW),
        ('"2026-11-22T11:40:00.123"', NOW),
        ('"2026-11-22 12:40:00.123+01:00"', NOW),
        ("0", 0),
        ("7258118399999.999", 7_258_118_399_999_999),
    ],
)
def test_a_stamp_is_read_to_the_microsecond(time: str, expected: int) -> None:
    assert read(b'{"sensor":"pump","time":%s,"value":1}' % time.encode()).time == expected


def test_a_key_given_twice_counts_the_last_time() -> None:
    assert read(START + b'"value":1,"value":2}').values == {"value": 2.0}


def test_an_infinite_value_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="infinite"):
        JsonReadings().encode(Reading("pump", NOW, {"value": math.inf}))


def test_one_channel_named_value_is_sent_in_the_short_form() -> None:
    assert JsonReadings().encode(Reading("pump", NOW, {"value": 71.3})) == (
        b'{"sensor":"pump","time":1795347600123,"value":71.3}'
    )


def test_a_channel_named_value_may_be_said_in_either_way_among_others() -> None:
    messages = [START + b'"values":{"value":1}}', START + b'"value":2}', START + b'"values":{"value":3}}', b"{"]
    for order in ([0, 1, 2, 3], [1, 0, 3, 2]):
        decoded = JsonReadings().decode([record(messages[i], offset) for offset, i in enumerate(order)])
        assert [r.values["value"] for r in expanded(decoded)] == [i + 1 for i in order if i < 3]
        assert [r.offset for r in decoded.rejected] == [order.index(3)]


def test_an_unknown_content_type_is_refused_by_name() -> None:
    good = JsonReadings().encode(Reading("pump", NOW, {"value": 71.3}))
    readings, rejected = decode([record(good, 1, "application/x-pickle"), record(good, 2)])
    assert [r.offset for r in readings] == [2]
    assert rejected[0].reason is Reason.UNREADABLE
    assert "application/x-pickle" in rejected[0].detail


def test_the_last_content_type_header_counts() -> None:
    headers = (("content-type", b"text/csv"), ("trace", b"\xff"), ("content-type", b"application/json"))
    readings, _ = decode([record(START + b'"value":1}')._replace(headers=headers)])
    assert len(readings) == 1


@pytest.mark.parametrize("alert", [ALERT, replace(ALERT, end=None, resolution=None, score=None, state=State.FIRING)])
def test_an_alert_survives_the_wire(alert: Alert) -> None:
    assert decode_alert(encode_alert(alert)) == alert


def test_an_alert_says_its_times_in_milliseconds() -> None:
    fields = json.loads(encode_alert(ALERT))
    assert [fields[name] for name in ("start", "last", "end")] == [1795347600123, 1795347600123.456, 1795347601123.001]
    assert fields["evidence"]["first_offset"] == 17


def test_an_alert_may_hold_missing_values_and_what_numpy_returns() -> None:
    odd = replace(ALERT, actual={"temperature": math.nan}, score=np.float64(6.5), expected=MappingProxyType({"a": 1.0}))
    found = decode_alert(encode_alert(odd))
    assert math.isnan(found.actual["temperature"])
    assert (found.score, found.expected) == (6.5, {"a": 1.0})


@pytest.mark.parametrize(
    "message", [b"", b"[]", b"{}", b"\xff", b'{"alert_id":"\xff"}', b"[" * 100_000, START + b'"value":1}']
)
def test_what_is_no_alert_raises_a_sentence(message: bytes) -> None:
    with pytest.raises(ValueError, match="is not an alert"):
        decode_alert(message)


def test_a_field_that_a_later_version_adds_to_an_alert_is_ignored() -> None:
    later = json.loads(encode_alert(ALERT)) | {"mood": "calm"}
    assert decode_alert(json.dumps(later).encode()) == ALERT


def test_a_dead_letter_says_why_and_from_where() -> None:
    letter, headers = encode_dead_letter(refused(START + b'"value":true}'))
    assert json.loads(letter) == {
        "reason": "value",
        "detail": "`value`: Expected `float | null`, got `bool`",
        "readings": 1,
        "topic": "sensor.readings",
        "partition": 3,
        "offset": 17,
        "payload": '{"sensor":"plant1/pump-7","time":1795347600123,"value":true}',
        "payload_base64": None,
        "payload_bytes": 60,
    }
    assert dict(headers) == {"content-type": b"application/json", "reason": b"value", "key": b"plant1/pump-7"}


def test_a_dead_letter_stays_small_and_readable_whatever_the_payload() -> None:
    for payload in (b"\x00\xff" * 2_500_000, b"\x01" * 5_000_000, "°".encode() * 2_500_000):
        letter, _ = encode_dead_letter(refused(payload))
        found = json.loads(letter)
        assert len(letter) < 10 * MAX_DEAD_BYTES
        assert found["payload_bytes"] == 5_000_000


def test_a_dead_letter_of_bytes_that_are_no_text_can_be_sent_again() -> None:
    letter, _ = encode_dead_letter(refused(b"\x81\xff"))
    found = json.loads(letter)
    assert (found["payload"], base64.b64decode(found["payload_base64"])) == (None, b"\x81\xff")


def test_a_dead_letter_of_a_tombstone_has_no_payload() -> None:
    letter, headers = encode_dead_letter(Rejected(Reason.UNREADABLE, "a tombstone"))
    assert json.loads(letter)["payload"] is None
    assert "key" not in dict(headers)
