"""The figures of an evaluation, by hand on series small enough to count."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.adapters.files import DataError
from training import nab
from training.evaluate import (
    EventFigures,
    Replay,
    best_threshold,
    evaluate,
    event_figures,
    events,
    hold_off,
    load,
    nab_scores,
    vus_pr,
)

DAY = "2026-01-01 00"


def rows(count: int, *at: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    flag = np.zeros(count, np.bool_)
    flag[list(at)] = True
    return flag


def replay(alert: np.ndarray[tuple[int], np.dtype[np.bool_]], *windows: tuple[int, int]) -> Replay:
    return Replay("a", np.arange(len(alert), dtype=np.int64), alert.astype(np.float64), alert, windows)


def silent_progress(what: str, done: int, of: int) -> None:
    assert done <= of, what


def test_alarms_at_most_a_hundred_rows_apart_are_one_event() -> None:
    assert events(rows(500, 10, 110, 211, 499)) == [(10, 110), (211, 211), (499, 499)]
    assert events(rows(5)) == []


def test_windows_are_found_missed_and_alarms_false() -> None:
    one = replay(rows(1000, 100, 104, 500), (102, 110), (800, 890))
    figures = event_figures([one], [one.alert])
    assert figures == EventFigures(
        precision=0.5,
        recall=0.5,
        f1=0.5,
        found=1,
        missed=1,
        false=1,
        alarmed=6 / 1000,
        false_per_10k=1e4 / 900,
        delay_rows=2,
    )


def test_an_event_that_spans_a_window_finds_it_without_a_delay() -> None:
    one = replay(rows(300, 100, 150), (120, 130))
    assert event_figures([one], [one.alert]).found == 1
    assert event_figures([one], [one.alert]).delay_rows is None


def test_the_best_threshold_may_not_alarm_more_than_a_tenth_of_the_time() -> None:
    scores = np.r_[np.zeros(500), np.linspace(0.5, 1, 500)]
    late = Replay("a", np.arange(1000, dtype=np.int64), scores, rows(1000), ((990, 999),))
    threshold, figures = best_threshold([late])
    assert threshold is not None
    assert 0.89 < threshold < 1
    assert (figures.f1, figures.false, figures.alarmed <= 0.1) == (1, 0, True)
    level = Replay("a", np.arange(1000, dtype=np.int64), np.ones(1000), rows(1000), ())
    assert best_threshold([level])[0] is None


def test_a_hold_off_keeps_the_first_of_a_hundred_rows() -> None:
    held = hold_off(rows(400, 3, 4, 103, 104, 204, 205))
    assert np.flatnonzero(held).tolist() == [3, 104, 205]


def test_nab_gives_a_window_its_earliest_alarm_and_charges_every_false_one() -> None:
    course = nab.Course.of(100, [(40, 59)])
    assert course.first_scored == 15
    early = nab.score([(course, rows(100, 5, 20, 40, 50))], windows=1)  # row 5 is on probation
    assert early["standard"] == pytest.approx(100 * (1 - 0.11 + 1) / 2)
    assert early["reward_low_FP_rate"] == pytest.approx(100 * (1 - 0.22 + 1) / 2)
    assert early["reward_low_FN_rate"] == pytest.approx(100 * (1 - 0.11 + 2) / 3)


def test_nab_fades_an_alarm_towards_and_behind_the_end_of_its_window() -> None:
    course = nab.Course.of(200, [(40, 59), (120, 120)])
    assert course.worth[59] == pytest.approx(math.tanh(2.5 / 20) / math.tanh(2.5))
    assert course.worth[60] == pytest.approx(-math.tanh(2.5 / 19))
    assert (course.worth[118], course.worth[39], course.worth[121]) == (-1, -1, -1)
    assert nab.score([(course, rows(200))], windows=2) == dict.fromkeys(nab.PROFILES, 0.0)
    assert nab.score([(course, rows(200, 40, 120))], windows=2) == dict.fromkeys(nab.PROFILES, 100.0)


def test_nab_judges_alerts_by_their_onset_and_needs_a_window() -> None:
    always = replay(np.r_[rows(40), np.ones(160, np.bool_)], (40, 59))
    assert nab_scores([always], silent_progress)["deployed"]["standard"] == 100
    with pytest.raises(DataError, match="needs at least one labelled window"):
        nab_scores([replay(rows(10))], silent_progress)


def test_the_volume_under_the_surface_tells_a_perfect_ranking_from_a_blind_one() -> None:
    told: list[tuple[str, int, int]] = []
    perfect, unlabelled = replay(rows(600, *range(300, 330)), (300, 329)), replay(rows(600))
    blind = Replay("b", perfect.times, np.random.default_rng(0).random(600), perfect.alert, perfect.windows)
    best = vus_pr([perfect, unlabelled], lambda *step: told.append(step))
    worst = vus_pr([blind], silent_progress)
    assert best is not None
    assert worst is not None
    assert best > 0.6 > 0.3 > worst
    assert told == [("VUS-PR", 1, 1)]
    assert vus_pr([unlabelled], silent_progress) is None


def write_replay(folder: Path, *lines: str) -> Path:
    path = folder / "hall/a.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["timestamp,score,alert", *lines]) + "\n")
    return path


def write_labels(folder: Path, windows: object) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps({"hall/a": windows}))
    return path


def test_a_replay_and_its_labels_meet_by_time_whatever_the_offset(tmp_path: Path) -> None:
    write_replay(tmp_path, f"{DAY}:00:00Z,0.5,0", f"{DAY}:01:00Z,3.5,1", f"{DAY}:02:00Z,-1,1", f"{DAY}:03:00Z,0,0")
    labels = write_labels(tmp_path, [[f"{DAY}:01:00", f"{DAY}:02:30"]])
    [found] = load(tmp_path, labels)
    assert (found.sensor, found.windows) == ("hall/a", ((1, 2),))
    assert found.scores.tolist() == [0.5, 3.5, -1, 0]
    assert found.onsets.tolist() == [False, True, False, False]
    figures = evaluate([found], with_vus=False, with_nab=True, head=2)
    assert (figures.series, figures.windows, figures.vus_pr) == (1, 1, None)
    assert figures.head == {"rows": 2, "alerts_per_series": 1}
    assert json.loads(figures.as_json())["nab"]["deployed"]["standard"] == pytest.approx(100)


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


def test_missing_scores_and_columns_are_named(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, [])
    with pytest.raises(DataError, match=r"hall/a\.csv: there are no scores of the labelled series 'hall/a'"):
        load(tmp_path, labels)
    write_replay(tmp_path).write_text(f"timestamp,value\n{DAY}:00:00,1\n")
    with pytest.raises(DataError, match="needs the columns timestamp, score, alert; it has value"):
        load(tmp_path, labels)
