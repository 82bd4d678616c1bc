"""Histories whose channels are apart: the sensors that the service would have joined them to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.adapters import kafka_history
from pipeline.adapters.files import Series
from pipeline.adapters.files import read as as_written
from pipeline.adapters.joined import read
from pipeline.codecs.events import encode_maintenance
from pipeline.core.readings import SECOND, Quality, Record
from pipeline.core.tags import Tags
from pipeline.settings_schema import KafkaSettings
from tests.unit.test_joined_messages import TAG

ROWS, STEP, START = 40, 60, 1_700_000_000  # s
LATE = 5  # s, c1 behind c0
LOST = 7  # the row whose c1 did not come


def rows(channel: int) -> list[tuple[int, float]]:
    """Seconds and values of one channel."""
    return [
        (START + STEP * row + LATE * channel, row + 0.5 * channel)
        for row in range(ROWS)
        if (channel, row) != (1, LOST)
    ]  # fmt: skip


def must_be_whole(series: list[Series]) -> None:
    (one,) = series
    assert (one.sensor, one.channels) == ("p", ("c0", "c1"))
    np.testing.assert_array_equal(one.times, (START + STEP * np.arange(ROWS)) * SECOND)
    expected = np.arange(ROWS)[:, None] + [0.0, 0.5]
    expected[LOST, 1] = np.nan
    np.testing.assert_array_equal(one.values, expected)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Channels in rows, those of a reading some seconds apart."""
    lines = sorted((at, f"c{c}", value) for c in (0, 1) for at, value in rows(c))
    text = "".join(f"p,{at},{channel},{value}\n" for at, channel, value in lines)
    (tmp_path / "long.csv").write_text(f"sensor,timestamp,channel,value\n{text}", encoding="utf-8")
    return tmp_path


def test_rows_that_name_a_part_of_the_channels_become_readings_where_that_is_asked_for(long: Path) -> None:
    assert len(as_written(long)[0]) == 2 * ROWS - 1
    must_be_whole(read(long, join=True))


def test_a_file_for_each_tag_becomes_one_sensor(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for c in (0, 1):
        text = "".join(f"{at},{value}\n" for at, value in rows(c))
        (tmp_path / "p" / f"c{c}.csv").write_text(f"timestamp,value\n{text}", encoding="utf-8")
    must_be_whole(read(tmp_path, tag=TAG))


def test_a_history_of_whole_readings_stays_as_it_is(tmp_path: Path) -> None:
    lines = "".join(f"{START + STEP * row},{row},{row % 3}\n" for row in range(ROWS))
    (tmp_path / "p.csv").write_text(f"timestamp,c0,c1\n{lines}", encoding="utf-8")
    (one,), (other,) = read(tmp_path, join=True), as_written(tmp_path)
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.values, other.values)


def test_a_topic_of_tags_is_the_history_of_their_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = sorted((at, c, value) for c in (0, 1) for at, value in rows(c))

    def records(*_: object) -> Iterator[list[Record]]:
        for offset, (at, c, value) in enumerate(sent):
            quality = "bad" if at < START + STEP else "good"
            said = json.dumps({"sensor": f"p/c{c}", "time": at * 1000, "value": value, "quality": quality}).encode()
            yield [Record("t", 0, offset, at * SECOND, None, said)]

    monkeypatch.setattr(kafka_history, "records_since", records)
    found = kafka_history.read_readings(KafkaSettings(bootstrap_servers="b:9092"), "t", 0, SECOND, tags=Tags(TAG))
    (one,) = found.series
    assert np.isnan(one.values[0]).all(), "what was not good has no value"
    assert found.quality["p"].tolist() == [list(Quality).index(Quality.BAD)] + [0] * (ROWS - 1)
    one.values[0] = [0.0, 0.5]
    must_be_whole(found.series)


def test_what_was_said_to_be_maintenance_is_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def records(*_: object) -> Iterator[list[Record]]:
        value, headers = encode_maintenance("p", (START + 3 * STEP) * SECOND, (START + 5 * STEP) * SECOND)
        event = Record("t", 0, 0, START * SECOND, b"p", value, tuple(headers))
        times = [START + STEP * row for row in range(8)]
        said = [json.dumps({"sensor": "p", "time": at * 1000, "value": 1}).encode() for at in times]
        readings = [Record("t", 0, 1 + i, times[i] * SECOND, b"p", one) for i, one in enumerate(said)]
        yield [event, *readings]

    monkeypatch.setattr(kafka_history, "records_since", records)
    found = kafka_history.read_readings(KafkaSettings(bootstrap_servers="b:9092"), "t", 0, SECOND)
    worked_on = list(Quality).index(Quality.MAINTENANCE)
    assert found.quality["p"].tolist() == [0, 0, 0, worked_on, worked_on, 0, 0, 0]


def test_a_tag_that_is_no_pattern_is_refused(long: Path) -> None:
    with pytest.raises(ValueError, match="sensor"):
        read(long, tag="temperature")
