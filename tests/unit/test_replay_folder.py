"""What a replay leaves is read back as it was, and nothing but scores is taken for scores or readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.adapters.files import DataError, Series, read
from pipeline.adapters.replay_folder import (
    RUN,
    GroupRun,
    Run,
    Signals,
    read_run,
    read_signals,
    write_run,
    write_scores,
    write_signals,
)

ROWS = 50
SERIES = Series("hall/a", 60_000_000 * np.arange(ROWS, dtype=np.int64), ("flow", "expected:flow"), np.zeros((ROWS, 2)))
RUN_OF_ONE = Run(
    "1/week/sensor", 1, {"flow-1min": GroupRun("flow-1min", "3", "ab", 60_000_000, 4.0, 1e-4, ("hall/a",))}
)


def signals() -> Signals:
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=ROWS), 1e9 + rng.normal(size=ROWS)], axis=1)
    expected, band = values + 0.1 * rng.normal(size=(ROWS, 2)), rng.random((ROWS, 2))
    values[3] = expected[4] = band[4] = np.nan
    band[5] = 0.0
    return Signals(SERIES.channels, values, expected, band)


def test_signals_come_back_to_a_256th_of_their_band(tmp_path: Path) -> None:
    written = signals()
    path = write_signals(tmp_path, SERIES, written)
    found = read_signals(tmp_path, "hall/a", ROWS)
    assert path == tmp_path / "_signals/hall/a.parquet"
    assert found is not None
    assert found.channels == written.channels
    np.testing.assert_array_equal(found.values, written.values)
    off = np.abs(found.expected - written.expected)
    assert np.nanmax(off - written.band / 256) <= 0
    np.testing.assert_allclose(found.band, written.band, rtol=1 / 256)
    np.testing.assert_array_equal(np.isnan(found.expected), np.isnan(written.expected))
    np.testing.assert_array_equal(found.expected[5], written.expected[5])


def test_signals_that_do_not_go_with_the_scores_are_named(tmp_path: Path) -> None:
    assert read_signals(tmp_path, "hall/a", ROWS) is None
    path = write_signals(tmp_path, SERIES, signals())
    with pytest.raises(DataError, match=r"a\.parquet: has 50 rows, but there are 7 scores; replay once more"):
        read_signals(tmp_path, "hall/a", 7)
    pq.write_table(pq.read_table(path).drop_columns(["band:flow"]), path)
    with pytest.raises(DataError, match="has no column 'band:flow'"):
        read_signals(tmp_path, "hall/a", ROWS)


def test_a_run_comes_back_and_one_that_is_none_is_named(tmp_path: Path) -> None:
    assert read_run(tmp_path) is None
    write_run(tmp_path, RUN_OF_ONE)
    assert read_run(tmp_path) == RUN_OF_ONE
    (tmp_path / RUN).write_text('{"budget": 7}')
    with pytest.raises(DataError, match=r"_replay\.json: Expected `str`, got `int`"):
        read_run(tmp_path)
    write_run(tmp_path, Run("1/week/sensor", 1, {}, format=99))
    with pytest.raises(DataError, match="is of format 99, this release reads 1"):
        read_run(tmp_path)


def test_what_lies_beside_the_scores_is_neither_a_csv_nor_a_series(tmp_path: Path) -> None:
    write_scores(tmp_path, SERIES, np.zeros(ROWS), np.zeros(ROWS, np.bool_))
    write_signals(tmp_path, SERIES, signals())
    write_run(tmp_path, RUN_OF_ONE)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csv")] == ["hall/a.csv"]
    assert [(series.sensor, series.channels) for series in read(tmp_path)] == [("hall/a", ("score", "alert"))]


def test_a_sensor_name_cannot_lead_out_of_the_scores_folder(tmp_path: Path) -> None:
    outside = Series("../../etc/passwd", SERIES.times, SERIES.channels, SERIES.values)
    with pytest.raises(DataError, match="would be written outside"):
        write_scores(tmp_path / "scores", outside, np.zeros(ROWS), np.zeros(ROWS, np.bool_))
    with pytest.raises(DataError, match="would be written outside"):
        write_signals(tmp_path / "scores", outside, signals())
