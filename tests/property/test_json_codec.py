"""Any bytes give readings or a reason; any reading survives the wire; no message changes what its neighbours say."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.codecs import decode
from pipeline.codecs.json import JsonReadings, decode_alert, encode_alert
from pipeline.codecs.limits import LATEST
from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Severity, State
from pipeline.core.readings import NO_SEQ, Quality, Reading, Record
from tests.contract.codec import expanded, must_be_well_formed

CODEC = JsonReadings()
patiently = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # the first text loads Unicode's tables

names = st.text(min_size=1, max_size=256).filter(lambda name: name.isprintable() and not name.isspace())
numbers = st.floats(allow_infinity=False)
times = st.integers(0, LATEST - 1)
readings = st.builds(
    Reading,
    sensor=names,
    time=times,
    values=st.dictionaries(names, numbers, min_size=1, max_size=8),
    quality=st.sampled_from(Quality),
    seq=st.none() | st.integers(-(2**63), 2**63 - 1).filter(lambda seq: seq != NO_SEQ),
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
near_misses = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("sensor", "time", "values", "value", "quality", "seq"), documents)
)


def record(value: bytes) -> Record:
    return Record("sensor.readings", 3, 17, 5, None, value)


def exact(reading: Reading) -> str:
    return repr(reading)  # tells nan from nan and -0.0 from 0.0, which == does not


@given(st.binary())
@example(b"[" * 200_000)
@example(b'{"sensor":"\xf0\x9f')
def test_any_bytes_give_readings_or_a_reason(value: bytes) -> None:
    must_be_well_formed(CODEC.decode([record(value)]))


@patiently
@given(near_misses)
def test_any_json_that_looks_like_a_reading_gives_readings_or_a_reason(document: dict[str, object]) -> None:
    must_be_well_formed(CODEC.decode([record(json.dumps(document).encode())]))


@patiently
@given(readings)
def test_any_reading_survives_the_wire(reading: Reading) -> None:
    decoded = CODEC.decode([record(CODEC.encode(reading))])
    assert decoded.rejected == []
    (found,) = expanded(decoded)
    assert exact(found) == exact(reading._replace(partition=3, offset=17, received=5))


@patiently
@given(
    st.lists(st.binary(max_size=40) | near_misses.map(lambda d: json.dumps(d).encode()) | readings.map(CODEC.encode))
)
def test_a_message_is_decoded_as_if_it_were_alone(values: list[bytes]) -> None:
    records = [record(value)._replace(offset=offset) for offset, value in enumerate(values)]
    together, refused = decode(records)
    alone = [decode([one]) for one in records]
    assert list(map(exact, together)) == [exact(reading) for found, _ in alone for reading in found]
    assert refused == [rejected for _, found in alone for rejected in found]


@patiently
@given(
    times,
    times,
    st.none() | times,
    st.dictionaries(names, numbers),
    st.dictionaries(names, st.tuples(numbers, numbers)),
)
def test_any_alert_survives_the_wire(
    start: int, last: int, end: int | None, values: dict[str, float], band: dict[str, tuple[float, float]]
) -> None:
    alert = Alert(
        "0" * 16, 1, State.FIRING, Kind.GAP, Severity.WARNING, "pump", start, last,
        Evidence(0, 1, 2), ModelRef("m", "1", ""), end=end, expected=values, actual=values, band=band,
    )  # fmt: skip
    assert repr(decode_alert(encode_alert(alert))) == repr(alert)
