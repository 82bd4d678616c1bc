"""What went wrong is found, ranked by how wrong it was, and shown on the channels that tell of it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.adapters.replay_folder import Signals
from training.cases import Case, cases, late, telling_channels, worst
from training.labelled import Allowance, Replay, Span

ALLOWANCE = Allowance("1/10000/sensor", 1e-4, 4.0)


def replay(alarmed: list[int], *windows: Span, peaks: dict[int, float] | None = None) -> Replay:
    alert, scores = np.zeros(3000, np.bool_), np.ones(3000)
    alert[alarmed] = True
    for row, score in (peaks or {}).items():
        scores[row] = score
    return Replay("a", np.arange(3000), scores, alert, windows, ALLOWANCE)


def case(margin: float, missed: bool) -> Case:
    return Case(replay([]), (0, 9), missed, ALLOWANCE.threshold + (-margin if missed else margin))


def test_a_case_is_a_window_without_an_alert_or_an_event_without_a_window() -> None:
    one = replay([100, 150, 1005, 2900], (1000, 1010), (2000, 2100), peaks={150: 7.0, 2050: 3.5, 2900: 4.5})
    assert [(c.span, c.missed, c.peak) for c in cases(one)] == [
        ((100, 150), False, 7.0),
        ((2000, 2100), True, 3.5),
        ((2900, 2900), False, 4.5),
    ]
    assert [c.margin for c in cases(one)] == [3.0, 0.5, 0.5]


def test_a_case_is_shown_in_its_surroundings_within_the_series() -> None:
    first, window, last = cases(replay([100, 2990], (1000, 1299)))
    assert first.surroundings == slice(0, 251)
    assert window.surroundings == slice(700, 1600)
    assert last.surroundings == slice(2840, 3000)


@pytest.mark.parametrize(
    ("missed", "false", "expected"), [(30, 30, (10, 10)), (30, 4, (16, 4)), (4, 30, (4, 16)), (3, 4, (3, 4))]
)
def test_the_worst_are_half_of_each_kind_as_far_as_there_are(
    missed: int, false: int, expected: tuple[int, int]
) -> None:
    every = [case(0.1 * i, True) for i in range(missed)] + [case(0.1 * i, False) for i in range(false)]
    shown = worst(every, 20)
    assert ([c.missed for c in shown]) == [True] * expected[0] + [False] * expected[1]
    assert shown[0].margin == pytest.approx(0.1 * (missed - 1))
    assert shown[-1].margin == pytest.approx(0.1 * (false - expected[1]))


def test_a_window_found_in_its_second_half_is_found_late() -> None:
    assert late(replay([105, 1006, 2500], (100, 110), (1000, 1010), (2000, 2010))) == 1


def signals(errors: dict[int, float]) -> Signals:
    """Five channels whose usual error is 2, off by so much in row 7."""
    values = np.zeros((20, 5))
    for channel, error in errors.items():
        values[7, channel] = error
    return Signals(tuple("abcde"), values, np.zeros((20, 5)), np.full((20, 5), 2.0))


def test_the_channels_that_tell_most_are_the_furthest_off_by_their_bands() -> None:
    assert telling_channels(signals({0: 8.0, 1: 20.0, 3: -30.0, 4: 10.0}), [(5, 9)]) == {3: 15.0, 1: 10.0, 4: 5.0}
    assert telling_channels(signals({3: 30.0, 2: 1.9}), []) == {3: 15.0}
    assert telling_channels(signals({3: 30.0}), [(10, 19)]) == {0: 0.0}


def test_a_channel_without_forecast_tells_nothing_and_one_without_band_everything() -> None:
    shown = signals({1: 4.0, 2: 100.0, 3: 0.5})
    shown.expected[:, 2] = np.nan
    shown.band[:, 3:] = 0.0
    assert telling_channels(shown, [(7, 7)]) == {3: np.inf, 1: 2.0}
