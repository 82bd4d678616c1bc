"""Many readings in one message: what is read, which rows are refused and why, what is refused whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.codecs import JSON_BATCHES, MSGPACK_BATCHES, Codec
from pipeline.codecs.batch_json import JsonBatches
from pipeline.codecs.batch_msgpack import MsgpackBatches
from pipeline.core.frames import MAX_ROWS
from pipeline.core.readings import Quality, Reading, Reason
from tests.contract.codec import NOW, CodecContract, expanded, record, refusal

BOTH = pytest.mark.parametrize("codec", [JSON_BATCHES, MSGPACK_BATCHES], ids=["json", "msgpack"])
MS = NOW // 1000


class BatchContract(CodecContract):
    codec_type: type[JsonBatches] | type[MsgpackBatches]

    @pytest.fixture
    def codec(self) -> Codec:
        return self.codec_type()

    def message(self, reading: Reading) -> bytes:
        values = {channel: [value] for channel, value in reading.values.items()}
        seqs = None if reading.seq is None else [reading.seq]
        return self.codec_type().encode([reading.sensor], [reading.time], values, [reading.quality], seqs)


class TestJsonBatches(BatchContract):
    codec_type = JsonBatches

    def corpus(self) -> Sequence[bytes]:
        return [
            as_json(),
            as_json(values={"x": [1, True, 3]}),
            as_json(sensor=["a", "", "a"]),
            as_json(time=[MS, 0, -1]),
        ]


class TestMsgpackBatches(BatchContract):
    codec_type = MsgpackBatches

    def corpus(self) -> Sequence[bytes]:
        table = {"names": ["a"], "index": raw([0, 1, 0], "u1")}
        times, values = raw([MS, np.nan, NOW], "f8"), {"x": raw([1, -np.inf, 3])}
        return [msgpack(), msgpack(sensor=table), msgpack(time=times), msgpack(values=values)]


@BOTH
def test_many_readings_of_many_sensors_survive_the_wire_in_their_order(codec: JsonBatches | MsgpackBatches) -> None:
    rng = np.random.default_rng(3)
    names = [f"pump-{i}" for i in rng.integers(0, 40, 500)]
    times = NOW + np.sort(rng.integers(0, 10**9, 500))
    values = {"temperature": rng.normal(size=500), "vibration": np.where(rng.random(500) < 0.1, np.nan, 1.5)}
    qualities = [Quality.BAD if i % 7 == 0 else Quality.GOOD for i in range(500)]
    decoded = codec.decode([record(codec.encode(names, times, values, qualities, np.arange(500)))])
    (frame,) = decoded.frames
    assert (decoded.rejected, list(frame.sensors), frame.channels) == ([], names, ("temperature", "vibration"))
    np.testing.assert_array_equal(frame.times, times)
    np.testing.assert_array_equal(frame.values, np.stack(list(values.values()), axis=1))
    assert (frame.qualities != 0).tolist() == [i % 7 == 0 for i in range(500)]
    assert frame.seqs.tolist() == list(range(500))
    assert frame.places.tolist() == [(17 << 16) + row for row in range(500)]


@BOTH
def test_one_name_and_one_list_of_values_will_do(codec: JsonBatches | MsgpackBatches) -> None:
    readings = expanded(codec.decode([record(codec.encode("pump", [NOW, NOW + 1000], [1.0, 2.0]))]))
    assert [(r.sensor, r.time, r.values) for r in readings] == [
        ("pump", NOW, {"value": 1.0}),
        ("pump", NOW + 1000, {"value": 2.0}),
    ]


@BOTH
@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("pump", [], []), "no reading"),
        (("pump", [NOW], [1.0, 2.0]), "has 2 entries, `time` has 1"),
        ((["a", "b"], [NOW], [1.0]), "`sensor` has 2 entries"),
        (("pump", [NOW], [np.inf]), "infinite"),
        (("", [NOW], [1.0]), "name is empty"),
        (("pump", [NOW * 1000], [1.0]), "1970 to 2199"),
        (("pump", [NOW], {}), "names no channel"),
        (("pump", [NOW], [1.0], [Quality.GOOD] * 2), "`quality` has 2"),
        (("pump", np.full(MAX_ROWS + 1, NOW), np.ones(MAX_ROWS + 1)), "the limit is 65536"),
        (("pump", np.full(MAX_ROWS, NOW), {"a": np.ones(MAX_ROWS), "b": np.ones(MAX_ROWS)}), "the limit is 1048576"),
    ],
)  # fmt: skip
def test_what_would_be_refused_is_not_encoded(
    codec: JsonBatches | MsgpackBatches, words: tuple[Any, ...], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        codec.encode(*words)


# -- messages written by others


def raw(values: object, dtype: str = "f8") -> tuple[str, bytes]:
    return dtype, np.asarray(values, f"<{dtype}").tobytes()


SOUND: dict[str, Any] = {
    "sensor": {"names": ["a", "b"], "index": raw([0, 1, 0], "u1")},
    "time": raw([MS, MS, MS + 1000], "i8"),
    "values": {"x": raw([1, 2, 3]), "y": raw([4, 5, 6], "f4")},
}
SOUND_JSON: dict[str, Any] = {
    "sensor": ["a", "b", "a"],
    "time": [MS, MS, MS + 1000],
    "values": {"x": [1, 2, 3], "y": [4, 5, 6]},
}
SOMEWHERE = float("nan")


def msgpack(**others: object) -> bytes:
    fields = {key: value for key, value in (SOUND | others).items() if value is not SOMEWHERE}
    return msgspec.msgpack.encode(fields)


def as_json(**others: object) -> bytes:
    return json.dumps({key: value for key, value in (SOUND_JSON | others).items() if value is not SOMEWHERE}).encode()


def test_both_forms_say_the_same() -> None:
    first, second = (
        expanded(codec.decode([record(message)]))
        for codec, message in ((MSGPACK_BATCHES, msgpack()), (JSON_BATCHES, as_json()))
    )
    assert first == second
    assert [(r.sensor, r.time - NOW, r.values) for r in first] == [
        ("a", 0, {"x": 1, "y": 4}), ("b", 0, {"x": 2, "y": 5}), ("a", 1_000_000, {"x": 3, "y": 6}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("others", "reason", "what"),
    [
        ({"time": raw([MS, MS], "i8")}, Reason.SCHEMA, "`sensor` has 3 entries, `time` has 2"),
        ({"values": {"x": raw([1, 2])}}, Reason.SCHEMA, "channel 'x' has 2 entries, `time` has 3"),
        ({"values": {"x": raw([1, 2, 3], "i8")}}, Reason.SCHEMA, "has the type 'i8', not f8 or f4"),
        ({"values": {"x": raw([1, 2, 3], "f2")}}, Reason.SCHEMA, "has the type 'f2'"),
        ({"values": {"x": ("O", b"x" * 24)}}, Reason.SCHEMA, "has the type 'O'"),
        ({"values": {"x": ("f8", b"x" * 23)}}, Reason.SCHEMA, "23 bytes, no multiple of 8"),
        ({"values": {"x": [1.0, 2.0, 3.0]}}, Reason.SCHEMA, "no batch"),
        ({"values": {"x": ["f8", [[[b"x"]]]]}}, Reason.SCHEMA, "no batch"),
        ({"values": {}}, Reason.SCHEMA, "names no channel"),
        ({"values": {"": raw([1, 2, 3])}}, Reason.SCHEMA, "name of a channel is empty"),
        ({"values": {f"c{i}": raw([1, 2, 3], "f4") for i in range(1025)}}, Reason.TOO_LARGE, "1025 channels"),
        ({"values": SOMEWHERE}, Reason.SCHEMA, "either `values` or `value`"),
        ({"value": raw([1, 2, 3])}, Reason.SCHEMA, "either `values` or `value`"),
        ({"time": raw([], "i8")}, Reason.SCHEMA, "no reading"),
        ({"time": raw(np.full(70_000, MS), "i8"), "sensor": "a"}, Reason.TOO_LARGE, "70000 readings"),
        ({"time": raw([1, 2, 3], "i4")}, Reason.SCHEMA, "has the type 'i4'"),
        ({"time": SOMEWHERE}, Reason.SCHEMA, "missing required field `time`"),
        ({"sensor": SOMEWHERE}, Reason.SCHEMA, "missing required field `sensor`"),
        ({"sensor": ["a", "b", "a"]}, Reason.SCHEMA, "no batch"),
        ({"sensor": ""}, Reason.SENSOR, "name is empty"),
        ({"sensor": {"names": [], "index": raw([0, 0, 0], "u1")}}, Reason.SENSOR, "table of `sensor` is empty"),
        ({"sensor": {"names": ["a"], "index": raw([0, 0], "u1")}}, Reason.SCHEMA, "the index of `sensor` has 2"),
        ({"sensor": {"names": ["a"], "index": raw([0, 0, 0], "i1")}}, Reason.SCHEMA, "has the type 'i1'"),
        ({"quality": "splendid"}, Reason.SCHEMA, "'splendid' is none of good, bad, maintenance"),
        ({"quality": raw([0, 0], "u1")}, Reason.SCHEMA, "`quality` has 2"),
        ({"seq": raw([0, 0], "i8")}, Reason.SCHEMA, "`seq` has 2"),
        ({"extra": {"deep": [[[[[]]]]]}}, Reason.SCHEMA, "unknown field `extra`"),
    ],
)  # fmt: skip
def test_a_message_of_raw_arrays_that_does_not_hold_together_is_refused_whole(
    others: dict[str, object], reason: Reason, what: str
) -> None:
    found = refusal(MSGPACK_BATCHES.decode([record(msgpack(**others))]))
    assert found.reason is reason
    assert what in found.detail


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\x7f\xff\xff\xff",
        b"\x81\xa6sensor\x81\xa5names\xdd\x7f\xff\xff\xff",
        b"\x81\xa6sensor\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa6sensor\xa2\xff\xfe",
        b"\x81\xa2\xff\xfe\xa1x",
        b"\x81\xa1x" + b"\x91" * 500_000,
        b"\x81" * 500_000,
        b"\xc1",
        b"\xc0",
        msgpack() + b"\x00",
    ],
    ids=[
        "huge-list", "huge-table", "huge-text", "huge-map", "latin-1", "latin-1-key", "deep", "deep-map", "reserved",
        "nil", "trailing",
    ],
)  # fmt: skip
def test_hostile_messagepack_is_refused(payload: bytes) -> None:
    assert refusal(MSGPACK_BATCHES.decode([record(payload)])).reason in (Reason.UNREADABLE, Reason.SCHEMA)


@pytest.mark.parametrize(
    ("others", "reason", "what"),
    [
        ({"sensor": {"names": ["a"], "index": raw([0, 1, 0], "u1")}}, Reason.SENSOR, "row 1: `sensor` 1 of a table"),
        ({"sensor": {"names": ["a", " "], "index": raw([0, 1, 0], "u1")}}, Reason.SENSOR, "row 1: the sensor's name"),
        ({"time": raw([MS, np.nan, MS], "f8")}, Reason.TIME, "row 1: time nan is not a number"),
        ({"time": raw([MS, np.inf, MS], "f8")}, Reason.TIME, "row 1: time inf is not a number"),
        ({"time": raw([MS, NOW, MS], "i8")}, Reason.TIME, "microseconds where milliseconds are due?"),
        ({"time": raw([MS, -(2**63), MS], "i8")}, Reason.TIME, "1970 to 2199"),
        ({"values": {"x": raw([1, -np.inf, 3])}}, Reason.VALUE, "row 1: channel 'x' is -inf"),
        ({"quality": raw([0, 3, 0], "u1")}, Reason.SCHEMA, "row 1: `quality` 3 is none of 0 to 2"),
    ],
)  # fmt: skip
def test_a_bad_row_among_raw_arrays_costs_that_row(others: dict[str, object], reason: Reason, what: str) -> None:
    decoded = MSGPACK_BATCHES.decode([record(msgpack(**others))])
    (rejected,) = decoded.rejected
    assert (rejected.reason, rejected.readings, rejected.offset) == (reason, 1, 17)
    assert what in rejected.detail
    assert [place & 0xFFFF for frame in decoded.frames for place, _ in frame.readings()] == [0, 2]


@pytest.mark.parametrize(
    ("others", "reason", "what"),
    [
        ({"sensor": ["a", 7, "a"]}, Reason.SENSOR, "row 1: `sensor`: Expected `str`, got `int`"),
        ({"sensor": ["a", "", "a"]}, Reason.SENSOR, "row 1: the sensor's name is empty"),
        ({"time": [MS, "noon", MS]}, Reason.TIME, "row 1: `time`"),
        ({"time": [MS, NOW, MS]}, Reason.TIME, "microseconds where milliseconds are due?"),
        ({"time": [MS, None, MS]}, Reason.TIME, "row 1: `time`"),
        ({"values": {"x": [1, True, 3]}}, Reason.VALUE, "row 1: channel 'x': Expected `float | null`, got `bool`"),
        ({"values": {"x": [1, [[2]], 3]}}, Reason.VALUE, "row 1: channel 'x'"),
        ({"quality": ["good", "splendid", None]}, Reason.SCHEMA, "row 1: `quality`"),
        ({"seq": [1, 1.5, None]}, Reason.SCHEMA, "row 1: `seq`"),
    ],
)
def test_a_bad_row_among_lists_costs_that_row(others: dict[str, object], reason: Reason, what: str) -> None:
    decoded = JSON_BATCHES.decode([record(as_json(**others))])
    (rejected,) = decoded.rejected
    assert (rejected.reason, rejected.readings) == (reason, 1)
    assert what in rejected.detail
    assert [place & 0xFFFF for frame in decoded.frames for place, _ in frame.readings()] == [0, 2]


@pytest.mark.parametrize(
    ("others", "reason", "what"),
    [
        ({"time": [MS, MS]}, Reason.SCHEMA, "has 3 entries, `time` has 2"),
        ({"values": {"x": [1, 2]}}, Reason.SCHEMA, "channel 'x' has 2 entries"),
        ({"values": {"x": [1, True]}}, Reason.SCHEMA, "channel 'x' has 2 entries"),
        ({"values": {"x": 1}}, Reason.VALUE, "`x` is no list"),
        ({"values": [1, 2, 3]}, Reason.SCHEMA, "`values`"),
        ({"values": {}}, Reason.SCHEMA, "names no channel"),
        ({"values": SOMEWHERE}, Reason.SCHEMA, "either `values` or `value`"),
        ({"value": [1, 2, 3]}, Reason.SCHEMA, "either `values` or `value`"),
        ({"time": MS}, Reason.TIME, "`time` is no list"),
        ({"time": SOMEWHERE}, Reason.TIME, "`time` is missing"),
        ({"sensor": SOMEWHERE}, Reason.SENSOR, "`sensor` is missing"),
        ({"time": []}, Reason.SCHEMA, "no reading"),
        ({"sensor": "a", "time": [0] * 66_000, "values": {"x": [0] * 66_000}}, Reason.TOO_LARGE, "66000 readings"),
        ({"quality": ["good"]}, Reason.SCHEMA, "`quality` has 1"),
        ({"values": {"x": [1, float("nan"), 3]}}, Reason.VALUE, "NaN is not a JSON number"),
    ],
)
def test_a_message_of_lists_that_does_not_hold_together_is_refused_whole(
    others: dict[str, object], reason: Reason, what: str
) -> None:
    found = refusal(JSON_BATCHES.decode([record(as_json(**others))]))
    assert found.reason is reason
    assert what in found.detail


def test_lists_may_hold_stamps_and_nulls_as_single_readings_may() -> None:
    message = as_json(time=["2026-11-22T11:40:00.123+01:00", MS, MS + 0.5], values={"x": [None, 2, 3]}, note=[[]])
    first, _, third = expanded(JSON_BATCHES.decode([record(message)]))
    assert (repr(first.values), third.time) == ("{'x': nan}", NOW + 500)
    assert first.time == expanded(JSON_BATCHES.decode([record(as_json(time=[first.time / 1000] * 3))]))[0].time


def test_refusals_of_rows_are_as_few_as_their_reasons_however_many_rows_there_are() -> None:
    rows = 60_000
    names = [""] * rows
    index = raw(np.arange(rows), "u2")
    message = msgpack(
        sensor={"names": names, "index": index},
        time=raw(np.full(rows, -1), "i8"),
        values={"x": raw(np.full(rows, np.inf), "f4")},
    )
    decoded = MSGPACK_BATCHES.decode([record(message)])
    (rejected,) = decoded.rejected
    assert (decoded.frames, rejected.reason, rejected.readings) == ([], Reason.SENSOR, rows)
    assert "row 0 and 59999 more" in rejected.detail


def test_duplicate_names_in_a_table_are_one_sensor() -> None:
    message = msgpack(sensor={"names": ["a", "a", "unused"], "index": raw([0, 1, 0], "u1")})
    (frame,) = MSGPACK_BATCHES.decode([record(message)]).frames
    assert list(frame.sensors) == ["a", "a", "a"]
