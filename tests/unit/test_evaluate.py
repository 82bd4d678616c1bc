"""The figures of an evaluation, by hand on series small enough to count."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.files import DataError
from training import nab
from training.evaluate import (
    BudgetFigures,
    EventFigures,
    best_threshold,
    budget_figures,
    evaluate,
    event_figures,
    hold_off,
    nab_scores,
    vus_pr,
)
from training.labelled import Allowance, Replay, Span


def rows(count: int, *at: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    flag = np.zeros(count, np.bool_)
    flag[list(at)] = True
    return flag


def replay(alert: np.ndarray[tuple[int], np.dtype[np.bool_]], *windows: tuple[int, int]) -> Replay:
    return Replay("a", np.arange(len(alert), dtype=np.int64), alert.astype(np.float64), alert, windows)


def silent_progress(what: str, done: int, of: int) -> None:
    assert done <= of, what


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
    assert best["a"] > 0.6 > 0.3 > worst["b"]
    assert told == [("VUS-PR", 1, 1)]
    assert vus_pr([unlabelled], silent_progress) == {}


def test_realised_false_alarms_are_compared_with_the_budget_over_the_rows_outside_windows() -> None:
    under = Allowance("10/10000/sensor", per_reading=1e-3, threshold=3.0)
    short = replace(replay(rows(1000, 100, 500), (102, 601)), allowance=under)
    long = replace(replay(rows(4000, 3000, 3500)), allowance=replace(under, per_reading=2e-3))
    assert budget_figures([short, long], 17) == BudgetFigures("10/10000/sensor", 8.5, 17, 2.0)
    assert evaluate([short, long], with_vus=False).budget == BudgetFigures("10/10000/sensor", 8.5, 3, 3 / 8.5)


def test_there_is_no_budget_to_compare_with_where_one_series_has_none() -> None:
    under = Allowance("10/10000/sensor", per_reading=1e-3, threshold=3.0)
    one = replay(rows(1000))
    assert budget_figures([replace(one, allowance=under), one], 0) is None
    assert budget_figures([replace(replay(rows(10), (0, 9)), allowance=under)], 0) is None


def test_figures_are_json_with_null_where_there_is_none() -> None:
    figures = evaluate([replay(rows(400, 100), (90, 110))], with_vus=False, with_nab=True, head=50)
    told = json.loads(figures.as_json())
    assert (told["series"], told["windows"], told["vus_pr"], told["budget"]) == (1, 1, None, None)
    assert told["head"] == {"rows": 50, "alerts_per_series": 0}
    assert set(told["nab"]) == {"deployed", "oracle"}


@st.composite
def labelled_alarms(draw: st.DrawFn) -> Replay:
    length = draw(st.integers(1, 600))
    row = st.integers(0, length - 1)
    alert = rows(length, *draw(st.lists(row, max_size=6)))
    edges = sorted(draw(st.lists(row, max_size=6, unique=True)))
    return replay(alert, *zip(edges[::2], edges[1::2], strict=False))


@given(st.lists(labelled_alarms(), min_size=1, max_size=3))
def test_event_figures_are_what_counting_row_by_row_gives(replays: list[Replay]) -> None:
    figures = event_figures(replays, [r.alert for r in replays])
    found = missed = false = alarmed = outside = 0
    delays = []
    for one in replays:
        under = under_alarm(one.alert.tolist())
        alarmed += sum(len(event) for event in under)
        for first, last in one.windows:
            hit = any(event & set(range(first, last + 1)) for event in under)
            found, missed = found + hit, missed + (not hit)
            delays += [next(iter(at - first for at in range(first, last + 1) if one.alert[at]), None)]
        labelled = {row for first, last in one.windows for row in range(first, last + 1)}
        outside += len(one) - len(labelled)
        false += sum(not event & labelled for event in under)
    in_time = [delay for delay in delays if delay is not None]
    assert (figures.found, figures.missed, figures.false) == (found, missed, false)
    assert figures.alarmed == alarmed / sum(map(len, replays))
    assert figures.false_per_10k == pytest.approx(1e4 * false / max(outside, 1))
    assert figures.delay_rows == (np.median(in_time) if in_time else None)
    assert figures.f1 == pytest.approx(2 * found / max(2 * found + false + missed, 1))


def under_alarm(alert: list[bool]) -> list[set[int]]:
    """The rows of each event: from its first alarm to its last, none more than 100 rows from the next."""
    spans: list[Span] = []
    for row in (row for row, on in enumerate(alert) if on):
        if spans and row - spans[-1][1] <= 100:
            spans[-1] = spans[-1][0], row
        else:
            spans.append((row, row))
    return [set(range(first, last + 1)) for first, last in spans]
