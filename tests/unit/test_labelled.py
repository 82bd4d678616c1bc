"""Scores and labels meet by time, and what does not fit together is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.adapters.files import DataError
from pipeline.adapters.replay_folder import GroupRun, Run, write_run
from training.labelled import Allowance, Replay, events, load, touched

DAY = "2026-01-01 00"
GROUP = GroupRun("flow-1min", "3", "ab", interval_us=60_000_000, threshold=3.0, allowed=1e-3, sensors=("hall/a",))


def write_replay(folder: Path, *lines: str) -> Path:
    path = folder / "hall/a.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["timestamp,score,alert", *lines]) + "\n")
    return path


def write_labels(folder: Path, windows: object) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps({"hall/a": windows}))
    return path


def test_alarms_at_most_a_hundred_rows_apart_are_one_event() -> None:
    alarm = np.zeros(500, np.bool_)
    assert events(alarm) == []
    alarm[[10, 110, 211, 499]] = True
    assert events(alarm) == [(10, 110), (211, 211), (499, 499)]


def test_spans_touch_where_they_share_a_row() -> None:
    assert touched((5, 9), [(0, 1), (9, 12)])
    assert not touched((5, 9), [(0, 4), (10, 12)])


def test_rows_in_and_outside_windows_are_counted() -> None:
    one = Replay("a", np.arange(9), np.zeros(9), np.zeros(9, np.bool_), ((1, 2), (8, 8)))
    assert one.inside.tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 1]
    assert one.rows_outside == 6


def test_a_replay_and_its_labels_meet_by_time_whatever_the_offset(tmp_path: Path) -> None:
    write_replay(tmp_path, f"{DAY}:00:00Z,0.5,0", f"{DAY}:01:00Z,3.5,1", f"{DAY}:02:00Z,-1,1", f"{DAY}:03:00Z,0,0")
    [found] = load(tmp_path, write_labels(tmp_path, [[f"{DAY}:01:00", f"{DAY}:02:30"]]))
    assert (found.sensor, found.windows, found.allowance) == ("hall/a", ((1, 2),), None)
    assert found.scores.tolist() == [0.5, 3.5, -1, 0]
    assert found.onsets.tolist() == [False, True, False, False]


def test_what_a_replay_was_allowed_comes_from_beside_its_scores(tmp_path: Path) -> None:
    write_replay(tmp_path, f"{DAY}:00:00Z,0.5,0")
    write_run(tmp_path, Run("10/10000/sensor", 1, {"flow-1min": GROUP}))
    [found] = load(tmp_path, write_labels(tmp_path, []))
    assert found.allowance == Allowance("10/10000/sensor", 1e-3, 3.0)


@pytest.mark.parametrize(
    ("line", "windows", "sentence"),
    [
        (f"{DAY}:00:00,nan,0", [], "the score in row 1 is not a finite number"),
        (f"{DAY}:00:00,1,0", [["2027-01-01", "2027-01-02"]], "window that begins at 2027-01-01T00:00:00"),
        (f"{DAY}:00:00,1,0", [["soon", "later"]], "labels.json: is not .series: .* Invalid isoformat"),
        (f"{DAY}:00:00,1,0", 7, "labels.json: is not .series"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, line: str, windows: object, sentence: str) -> None:
    write_replay(tmp_path, line)
    with pytest.raises(DataError, match=sentence):
        load(tmp_path, write_labels(tmp_path, windows))


def test_missing_series_scores_and_columns_are_named(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, [])
    with pytest.raises(DataError, match=r"hall/a\.csv: there are no scores of the labelled series 'hall/a'"):
        load(tmp_path, labels)
    write_replay(tmp_path).write_text(f"timestamp,value\n{DAY}:00:00,1\n")
    with pytest.raises(DataError, match="needs the columns timestamp, score, alert; it has value"):
        load(tmp_path, labels)
    labels.write_text("{}")
    with pytest.raises(DataError, match=r"labels\.json: names no series"):
        load(tmp_path, labels)
