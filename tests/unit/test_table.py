"""Rows of state: found by name and partition, reused, carried whole, and bounded in size."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.core.model import Cell
from pipeline.core.table import Arrays, SensorTable, layout, row_bytes
from tests import models

NAME_BYTES = 150


def table(channels: int = 1) -> SensorTable:
    return SensorTable(layout(models.model(channels)))


def locate(rows: SensorTable, *names: str, partition: int = 0) -> tuple[list[int], list[int]]:
    found, made = rows.locate(names, np.full(len(names), partition, np.int64))
    return found.tolist(), made


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("channels", [1, 2, 8, 38, 55])
def test_state_stays_within_four_and_a_half_kilobytes_and_two_and_a_half_a_channel_beyond(
    channels: int, cell: Cell
) -> None:
    served = models.model(channels, cell=cell, hidden=32, window=256)  # as training builds them
    assert row_bytes(served, reorder=8) + NAME_BYTES <= 4_500 + 2_500 * (channels - 1)


def test_the_bytes_of_a_row_are_those_the_arrays_take() -> None:
    served = models.model(8, hidden=32, window=256)
    blank = SensorTable(layout(served)).blank(10)
    assert sum(blank[name].nbytes for name in layout(served)) == 10 * row_bytes(served)


def test_a_name_and_its_place_take_no_more_than_is_said() -> None:
    rows = table()
    tracemalloc.start()
    for i in range(2048):
        locate(rows, f"plant{i % 7}/hall/pump-{i:05d}")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    arrays = sum(rows.arrays[name].nbytes for name in rows.fields)
    assert (taken - arrays) / 2048 <= NAME_BYTES


def test_a_sensor_keeps_its_row_and_a_new_one_gets_the_next() -> None:
    rows = table()
    first, made = locate(rows, "a", "b", "a")
    assert first[0] == first[2] != first[1]
    assert made == [first[0], first[1]]
    assert locate(rows, "b", "a") == ([first[1], first[0]], [])
    assert len(rows) == 2


def test_a_sensor_in_two_partitions_is_two_rows() -> None:
    rows = table()
    [here], _ = locate(rows, "a", partition=0)
    [there], _ = locate(rows, "a", partition=3)
    assert here != there
    assert sorted(rows.find("a")) == sorted([here, there])
    assert rows.find("b") == []


def test_growing_moves_no_row_and_changes_no_state() -> None:
    rows = table()
    names = [f"s{i}" for i in range(200)]
    before, _ = locate(rows, *names[:60])
    rows.arrays.raw[before, 0] = np.arange(60)
    locate(rows, *names)
    assert locate(rows, *names[:60])[0] == before
    assert rows.arrays.raw[before, 0].tolist() == list(range(60))
    assert np.isnan(rows.arrays.raw[locate(rows, *names[60:])[0]]).all()


def test_a_row_that_is_used_again_remembers_nothing() -> None:
    rows = table()
    [row], _ = locate(rows, "a")
    for name in rows.fields:
        rows.arrays[name][row] = 1
    rows.remove(np.array([row]))
    assert len(rows) == 0
    assert rows.find("a") == []
    again, made = locate(rows, "b")
    assert made == again == [row]
    blank = rows.blank(1)
    for name in rows.fields:
        np.testing.assert_array_equal(rows.arrays[name][row], blank[name][0], err_msg=name)


def test_rows_are_ordered_by_partition_and_name_whatever_the_order_of_arrival() -> None:
    rows = table()
    locate(rows, "z", "b", partition=1)
    locate(rows, "y", "a", partition=0)
    assert [rows.names[row] for row in rows.rows_of()] == ["a", "y", "b", "z"]
    assert [rows.names[row] for row in rows.rows_of(1)] == ["b", "z"]
    assert rows.rows_of(7).tolist() == []


def test_what_is_gathered_is_put_back_whole_into_any_table_and_partition() -> None:
    rows, other = table(3), table(3)
    found, _ = locate(rows, "pump-é", "b", partition=1)
    rng = np.random.default_rng(0)
    for name, field in rows.fields.items():
        rows.arrays[name][found] = rng.integers(0, 100, (2, *field.shape)).astype(field.dtype)
    locate(other, "c", "d", partition=0)
    gathered = rows.gather(rows.rows_of(1))
    other.put(4, gathered)
    again = other.gather(other.rows_of(4))
    assert again.keys() == gathered.keys()
    for name in gathered:
        np.testing.assert_array_equal(again[name], gathered[name], err_msg=name)
    assert len(other) == 4


def test_a_snapshot_is_a_copy() -> None:
    rows = table()
    [row], _ = locate(rows, "a")
    gathered = rows.gather(rows.rows_of(0))
    rows.arrays.raw[row] = 7.0
    assert np.isnan(gathered["raw"]).all()


def test_nothing_at_all_can_be_gathered_and_put_back() -> None:
    rows = table()
    rows.put(0, rows.gather(rows.rows_of(0)))
    assert len(rows) == 0


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda arrays: arrays.pop("tail"), "state field tail: expected uint16"),
        (lambda arrays: arrays.update(raw=arrays["raw"][:, :1]), r"state field raw: expected float64\(2,\), found"),
        (lambda arrays: arrays.update(count=arrays["count"].astype(np.int64)), "found int64"),
    ],
)
def test_rows_of_another_layout_are_refused_and_nothing_is_taken_in(
    spoil: Callable[[Arrays], object], sentence: str
) -> None:
    rows, other = table(2), table(2)
    locate(rows, "a")
    gathered = rows.gather(rows.rows_of(0))
    spoil(gathered)
    with pytest.raises(ValueError, match=sentence):
        other.put(0, gathered)
    assert len(other) == 0


@pytest.mark.parametrize("names", [None, np.arange(2), np.array([[b"a"], [b"b"]])])
def test_rows_that_do_not_name_their_sensors_are_refused(names: np.ndarray | None) -> None:
    rows = table()
    found, _ = locate(rows, "a", "b")
    arrays = rows.gather(np.array(found))
    if names is None:
        del arrays["names"]
    else:
        arrays["names"] = names
    with pytest.raises(ValueError, match="state field names: expected bytes"):
        table().put(0, arrays)
