"""Files in any shape become the same series, and what cannot be read is named in a sentence."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.adapters.columns import DataError
from pipeline.adapters.files import Series, iter_batches, read
from pipeline.adapters.replay_folder import write_scores

NEW_YEAR = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z in µs
MINUTE = 60_000_000


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def minutes(sensor: str, rows: int, channel: str = "value") -> Series:
    times = NEW_YEAR + MINUTE * np.arange(rows, dtype=np.int64)
    return Series(sensor, times, (channel,), np.arange(rows, dtype=np.float64)[:, None])


def test_a_wide_file_keeps_its_rows_in_order_duplicates_and_backward_stamps_included(tmp_path: Path) -> None:
    file = write(
        tmp_path / "pump.csv",
        "timestamp,flow,pressure",
        "2026-01-01 00:01:00,1.5,6",
        "2026-01-01 00:00:00,2.5,7",
        "2026-01-01 00:00:00,3.5,8",
    )
    [series] = read(file)
    assert (series.sensor, series.channels) == ("pump", ("flow", "pressure"))
    assert (series.times - NEW_YEAR).tolist() == [MINUTE, 0, 0]
    assert series.values.tolist() == [[1.5, 6], [2.5, 7], [3.5, 8]]


def test_a_folder_names_each_sensor_by_its_path(tmp_path: Path) -> None:
    write(tmp_path / "hall/a.1.csv", "time,value", "2026-01-01,1")
    write(tmp_path / "b.csv", "time,value", "2026-01-01,1")
    write(tmp_path / "sensors.csv", "sensor,unit", "b,bar")
    write(tmp_path / ".cache/c.csv", "not readings")
    assert [series.sensor for series in read(tmp_path)] == ["b", "hall/a.1"]


@pytest.mark.parametrize(
    "stamp",
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T01:00:00+01:00",
        "2026-01-01 00:00:00.000000000",
        "2026-01-01",
        "1767225600",
        "1767225600.0",
        "1767225600000",
        "1767225600000000",
        "1767225600000000000",
    ],
)
def test_a_time_may_be_iso_text_or_an_epoch_number_in_any_unit(tmp_path: Path, stamp: str) -> None:
    [series] = read(write(tmp_path / "a.csv", "ts,value", f"{stamp},1"))
    assert series.times.tolist() == [NEW_YEAR]


def test_stamps_with_and_without_offset_may_be_mixed(tmp_path: Path) -> None:
    lines = ("ts,value", "2026-01-01T00:00:00Z,1", "2026-01-01T02:00:00+01:00,1", "2026-01-01T02:00:00,1")
    [series] = read(write(tmp_path / "a.csv", *lines))
    assert (series.times - NEW_YEAR).tolist() == [0, 60 * MINUTE, 120 * MINUTE]


def test_naive_stamps_are_read_in_the_zone_that_is_asked_for(tmp_path: Path) -> None:
    lines = ("timestamp,value", "2026-01-01 01:00:00,1", "2026-07-01 02:00:00,1")
    [series] = read(write(tmp_path / "a.csv", *lines), timezone="Europe/Berlin")
    july = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp()) * 1_000_000
    assert series.times.tolist() == [NEW_YEAR, july]
    text = write_scores(tmp_path / "scores", series, np.zeros(2), np.zeros(2, np.bool_)).read_text()
    assert text.splitlines()[1:] == ["2026-01-01 01:00:00,0.0,0", "2026-07-01 02:00:00,0.0,0"]


def test_a_first_column_that_reads_as_time_needs_no_name(tmp_path: Path) -> None:
    [series] = read(write(tmp_path / "a.csv", "when,value", "2026-01-01,1"))
    assert series.channels == ("value",)


def test_empty_and_non_finite_cells_are_missing_and_booleans_are_numbers(tmp_path: Path) -> None:
    lines = ("ts,a,b,c", "2026-01-01,,nan,true", '2026-01-02," ",1e999,False', "2026-01-03,1,-inf,true")
    [series] = read(write(tmp_path / "a.csv", *lines))
    np.testing.assert_array_equal(series.values, [[np.nan, np.nan, 1], [np.nan, np.nan, 0], [1, np.nan, 1]])


def test_a_channel_without_any_value_is_kept(tmp_path: Path) -> None:
    [series] = read(write(tmp_path / "a.csv", "ts,a,b", "2026-01-01,,1", "2026-01-02,,1"))
    assert series.channels == ("a", "b")
    assert np.isnan(series.values[:, 0]).all()


def test_semicolons_an_index_column_and_a_byte_order_mark_are_taken_in_stride(tmp_path: Path) -> None:
    [series] = read(write(tmp_path / "a.csv", "\ufeff;timestamp; flow", "0;2026-01-01;7"))
    assert series.channels == ("flow",)
    assert series.values.tolist() == [[7.0]]


def test_long_rows_are_split_by_sensor_and_continue_over_files(tmp_path: Path) -> None:
    write(tmp_path / "day1.csv", "sensor,timestamp,value", "b,2026-01-01,1", "a,2026-01-01,2", "b,2026-01-02,3")
    write(tmp_path / "day2.csv", "sensor,timestamp,value", "b,2026-01-03,4")
    b, a = read(tmp_path)
    assert (b.sensor, b.values[:, 0].tolist()) == ("b", [1, 3, 4])
    assert (a.sensor, a.values[:, 0].tolist()) == ("a", [2])


def test_long_channels_become_columns_and_a_repeated_channel_begins_another_row(tmp_path: Path) -> None:
    file = write(
        tmp_path / "all.csv",
        "sensor,timestamp,channel,value",
        "p,2026-01-02,flow,1",
        "p,2026-01-02,heat,2",
        "q,2026-01-01,heat,9",
        "p,2026-01-01,flow,3",
        "p,2026-01-02,flow,4",
    )
    p, q = read(file)
    assert (p.channels, q.channels) == (("flow", "heat"), ("heat",))
    assert ((p.times - NEW_YEAR) // (1440 * MINUTE)).tolist() == [1, 0, 1]
    np.testing.assert_array_equal(p.values, [[1, 2], [3, np.nan], [4, np.nan]])


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    table = pa.table(
        {
            "timestamp": pa.array([NEW_YEAR * 1000, NEW_YEAR * 1000 + 1], pa.timestamp("ns", "Europe/Berlin")),
            "count": pa.array([1, None], pa.int64()),
            "open": pa.array([True, False]),
            "site": pa.array(["7", "8"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    [series] = read(tmp_path / "a.parquet")
    assert series.times.tolist() == [NEW_YEAR, NEW_YEAR]
    assert series.zone == "UTC"
    np.testing.assert_array_equal(series.values, [[1, 1, 7], [np.nan, 0, 8]])


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["ts,a", "2026-01-01,1", "2026-01-02,wet"], "column 'a' holds text: row 2 is 'wet'; leave the cell empty"),
        (["ts,a", "2026-01-01,1", "soon,1"], "column 'ts' is not a time in row 2: 'soon'; write RFC 3339"),
        (["ts,a", ",1"], "column 'ts' has no time in row 1"),
        (["ts,a", "1e30,1"], "column 'ts' is not a time in row 1: 1e.30; write epoch"),
        (["a,b", "71.3,1"], "has no timestamp column: none is called .*'a', does not read as time .row 1 is '71.3'"),
        (["ts", "2026-01-01"], "has no column of values beside 'ts'"),
        (["ts,a,a", "2026-01-01,1,2"], "two columns are named 'a'"),
        (["ts,a", "2026-01-01,1,2"], "does not read as CSV: .*Expected 2 columns, got 3"),
        (["ts,a"], "has no rows"),
        (["sensor,ts,value", ",2026-01-01,1"], "column 'sensor' is empty in row 1"),
        (["ts,channel,value,unit", "2026-01-01,a,1,bar"], "names channels in 'channel', so column 'unit' has no"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(tmp_path: Path, lines: list[str], sentence: str) -> None:
    with pytest.raises(DataError, match=rf"bad\.csv: {sentence}"):
        read(write(tmp_path / "bad.csv", *lines))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"ts,gr\xf6\xdfe\n2026-01-01,1\n", "is not UTF-8 text .byte 5"),
        ("a.csv", b"ts,a\n" + b"2026-01-01,1\n" * 1000 + b"2026-01-01,\xff\n", "is not UTF-8 text"),
        ("a.parquet", b"PAR1 no more", "does not read as Parquet"),
        ("readme.txt", b"", "holds no .csv or .parquet file"),
    ],
)
def test_what_is_not_a_table_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)


def test_without_pyarrow_the_extra_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.csv", "ts,a", "2026-01-01,1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow: install the extra `files`"):
        read(file)


def test_a_path_that_is_not_there_and_an_unknown_zone_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="'Mars/Base' is not a time zone"):
        read(write(tmp_path / "a.csv", "ts,a", "2026-01-01,1"), timezone="Mars/Base")


def test_two_wide_files_may_not_claim_one_sensor(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "ts,value", "2026-01-01,1")
    pq.write_table(pa.table({"ts": [1], "value": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: sensor 'a' is in .*a\.csv too"):
        read(tmp_path)


def test_a_replay_moves_all_sensors_on_together_and_loses_no_row() -> None:
    long, short = minutes("long", 7), minutes("short", 3)
    batches = list(iter_batches([long, short], ["extra", "value"], rows=4))
    order = [(name, row) for b in batches for name, row in zip(b.sensors, b.offsets.tolist(), strict=True)]
    together = [(name, row) for row in range(3) for name in ("long", "short")]
    assert order == together + [("long", row) for row in range(3, 7)]
    assert max(map(len, batches)) <= 4
    assert all(np.isnan(b.values[:, 0]).all() and (b.values[:, 1] == b.offsets).all() for b in batches)


def test_scores_are_written_one_line_a_reading_as_the_stamps_came(tmp_path: Path) -> None:
    lines = ("timestamp,value", "2026-01-01T00:00:00,1", "2026-01-01T00:00:00,1", "2025-12-31T23:59:59.5,1")
    [series] = read(write(tmp_path / "hall/a.csv", *lines).parent.parent)
    path = write_scores(tmp_path / "scores", series, np.array([0.1, 2.0, 1e-17]), np.array([False, True, False]))
    assert path == tmp_path / "scores/hall/a.csv"
    assert path.read_text().splitlines() == [
        "timestamp,score,alert",
        "2026-01-01 00:00:00.000000,0.1,0",
        "2026-01-01 00:00:00.000000,2.0,1",
        "2025-12-31 23:59:59.500000,1e-17,0",
    ]
