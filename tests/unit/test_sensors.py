"""sensors.csv says what is known of a sensor beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.adapters.columns import DataError
from pipeline.adapters.sensors import SensorRow, read_sensors_csv


def test_a_line_describes_every_channel_its_patterns_cover(tmp_path: Path) -> None:
    path = tmp_path / "sensors.csv"
    path.write_text("sensor,channel,unit,low,high,interval,constant\nplant/pump-*,flow,m3/h,0,120,5 min,\n*,,,,,,yes\n")
    pump, rest = read_sensors_csv(path)
    assert pump == SensorRow("plant/pump-*", "flow", "m3/h", 0.0, 120.0, 300_000_000, None)
    assert rest == SensorRow("*", constant=True)
    assert pump.covers("plant/pump-7", "flow")
    assert not pump.covers("plant/tank-1", "flow")
    assert rest.covers("plant/tank-1", "level")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sensor,hihg\na,1\n", "column 'hihg' is unknown; the columns are sensor, channel"),
        ("unit\nbar\n", "there is no column 'sensor'"),
        ("sensor,low\n,1\n", "line 2: the sensor is empty"),
        ("sensor,low\na,cold\n", "line 2: low is 'cold'; write a number"),
        ("sensor,low\na,nan\n", "line 2: low is 'nan'"),
        ("sensor,low,high\na,2,1\n", "low 2 is not below high 1"),
        ("sensor,interval\na,often\n", "interval is 'often'"),
        ("sensor,interval\na,0\n", "interval is '0'"),
        ("sensor,constant\na,maybe\n", "constant is 'maybe'"),
        ("sensor,unit\na,b,c\n", "has more cells than the header"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "sensors.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_sensors_csv(path)
