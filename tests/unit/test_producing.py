"""What `foreshock produce` sends is what the files hold, every sensor in its own partition."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as reference

from pipeline.adapters.files import Series
from pipeline.codecs import decode
from pipeline.codecs.keys import murmur2, partition_of
from pipeline.core.readings import Record
from pipeline.producing import Flush, Format, format_of, messages, paced
from tests.models import INTERVAL, START

PARTITIONS = 5


def series(sensor: str, rows: int, *channels: str) -> Series:
    values = np.random.default_rng(len(sensor)).normal(size=(rows, len(channels)))
    return Series(sensor, START + np.arange(rows) * INTERVAL, channels, values)


HISTORY = [
    *(series(f"plant1/pump-{i}", 20 + i, "temperature", "vibration") for i in range(8)),
    *(series(f"plant1/tank-{i}", 5, "level") for i in range(3)),
]


@given(st.binary(max_size=40))
@example(b"")
def test_keys_are_hashed_as_the_java_clients_do(key: bytes) -> None:
    assert murmur2(key) & 0x7FFFFFFF == reference(key) & 0x7FFFFFFF


@pytest.mark.parametrize(("form", "size"), [("json", 1), ("batch-json", 7), ("batch-msgpack", 7), ("batch-json", 1)])
def test_every_reading_arrives_once_in_order_and_in_its_sensors_partition(form: Format, size: int) -> None:
    flushes = list(messages(HISTORY, PARTITIONS, form, size))
    records = [
        Record("t", f.partition, offset, 0, f.key, f.value, tuple(f.headers)) for offset, f in enumerate(flushes)
    ]
    readings, rejected = decode(records)
    assert rejected == []
    found: dict[str, list[tuple[int, tuple[float, ...]]]] = defaultdict(list)
    for reading in readings:
        assert reading.partition == partition_of(reading.sensor, PARTITIONS)
        found[reading.sensor].append((reading.time, tuple(reading.values.values())))
    assert found == {
        s.sensor: [(time, tuple(row)) for time, row in zip(s.times.tolist(), s.values.tolist(), strict=True)]
        for s in HISTORY
    }
    assert max(f.readings for f in flushes) == size
    assert all(f.key is None or partition_of(f.key.decode(), PARTITIONS) == f.partition for f in flushes)


def test_a_batch_of_one_sensor_is_keyed_by_it_and_one_of_several_by_nothing() -> None:
    keys = [f.key for f in messages(HISTORY[:1], PARTITIONS, "batch-msgpack", 6)]
    assert keys == [b"plant1/pump-0"] * 4
    assert next(messages(HISTORY[:8], 1, "batch-msgpack", 6)).key is None


def test_the_rate_is_kept_however_long_sending_takes() -> None:
    now, sent = [0.0], list[float]()

    def send(_: Flush) -> None:
        sent.append(now[0])
        now[0] += 0.01

    def sleep(seconds: float) -> None:
        now[0] += seconds

    flushes = (Flush(0, None, b"", "", 50) for _ in range(10))
    assert paced(flushes, send, 1000.0, lambda _: None, lambda: now[0], sleep) == (500, 10)
    assert sent == pytest.approx([i * 0.05 for i in range(10)])


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="'xml' is no format; there are json, batch-json, batch-msgpack"):
        format_of("xml")


def test_a_gateway_needs_numpy_and_msgspec_and_nothing_else() -> None:
    code = (
        "import sys; from pipeline.codecs import MSGPACK_BATCHES; from pipeline.codecs.keys import partition_of; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    needless = {"kafka", "pydantic", "structlog", "prometheus_client", "rich", "typer", "starlette", "pyarrow"}
    assert needless.isdisjoint(loaded)
