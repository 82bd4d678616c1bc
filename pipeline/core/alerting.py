"""Scores to episodes: when an alert opens, grows more severe, and ends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core import thresholds
from pipeline.core.readings import BoolArray, FloatArray, IntArray
from pipeline.core.table import Clock, Columns, Count, Level

QUIET, OPEN, ACCEPTED = 0, 1, 2  # an accepted level is no news until it grows
WARNING, CRITICAL = 0, 1

RELEASE = 1.0  # an alert ends once the score stayed this far below the threshold
RELEASE_READINGS = 20
ACCEPT_READINGS = 200  # a level that lasts so long is how things are now
REGROWTH = 1.5  # times the peak: an accepted level has become something else
REFRACTORY_READINGS = 100  # from one onset to the next: one alarm an event
CRITICAL_ABOVE = 2.0  # decades above the threshold
SPENDING = 40.0  # allowed alarms: as many are counted at the most, and then the older ones count half
UPDATE_INTERVAL = 60_000_000  # µs of event time between two updates of one alert


class Transitions(NamedTuple):
    """Positions within the round, (k,) each."""

    opened: npt.NDArray[np.intp]
    worse: npt.NDArray[np.intp]
    returned: npt.NDArray[np.intp]
    accepted: npt.NDArray[np.intp]


def advance(
    arrays: Columns,
    rows: npt.NDArray[np.intp],
    scores: FloatArray,
    times: IntArray,
    offsets: IntArray,
    threshold: float,
    budget: float,
) -> Transitions:
    """Move the episode of each scored sensor by one reading; `budget` is the false alarms allowed per reading."""
    count, level, clock = arrays.count[rows], arrays.level[rows], arrays.clock[rows]
    state, hold = count[:, Count.STATE], np.maximum(count[:, Count.HOLD] - 1, 0)
    high = scores >= threshold
    grown = (state == ACCEPTED) & (scores > REGROWTH * level[:, Level.PEAK])
    opened = high & (((state == QUIET) & (hold == 0)) | grown)
    opened = _within_budget(opened, scores, count, level, threshold, budget)

    below = np.where(scores < threshold - RELEASE, count[:, Count.BELOW] + 1, 0)
    ended = (state != QUIET) & ~opened & (below >= RELEASE_READINGS)
    returned = ended & (state == OPEN)
    length = np.where(opened, 1, count[:, Count.OPEN] + 1)
    accepted = (state == OPEN) & ~ended & (length >= ACCEPT_READINGS)

    count[:, Count.STATE] = np.where(opened, OPEN, np.where(ended, QUIET, np.where(accepted, ACCEPTED, state)))
    count[:, Count.HOLD] = np.where(opened, REFRACTORY_READINGS, hold)
    count[:, Count.BELOW] = np.where(opened, 0, below)
    count[:, Count.OPEN] = length
    running = opened | (state == OPEN)
    peak = np.where(opened, scores, np.maximum(level[:, Level.PEAK], scores))
    level[:, Level.PEAK] = np.where(running, peak, level[:, Level.PEAK])

    clock[opened, Clock.ONSET] = times[opened]
    clock[opened, Clock.ONSET_OFFSET] = offsets[opened]
    severity = np.where(peak >= threshold + CRITICAL_ABOVE, CRITICAL, WARNING)
    due = times - clock[:, Clock.UPDATED] >= UPDATE_INTERVAL
    worse = running & ~opened & ~ended & ~accepted & (severity > count[:, Count.SEVERITY]) & due
    news = opened | worse
    clock[news, Clock.UPDATED] = times[news]
    count[news, Count.SEVERITY] = severity[news]
    told = worse | returned | accepted
    count[:, Count.REVISION] = np.where(opened, 1, count[:, Count.REVISION] + told)

    arrays.count[rows], arrays.level[rows], arrays.clock[rows] = count, level, clock
    return Transitions(*(np.flatnonzero(mask) for mask in (opened, worse, returned, accepted)))


def _within_budget(
    opens: BoolArray,
    scores: FloatArray,
    count: npt.NDArray[np.int32],
    level: npt.NDArray[np.float32],
    threshold: float,
    budget: float,
) -> BoolArray:
    """Those that open under what is asked of a sensor that has overdrawn its budget, and an entry in its account."""
    at = np.flatnonzero(opens)
    if len(at) == 0:
        return opens
    at_least = asked(count[at], threshold, budget)
    kept = scores[at] >= at_least
    opens[at[~kept]] = False
    at = at[kept]
    level[at, Level.ASKED] = at_least[kept]
    count[at, Count.ONSETS] += 1
    old = at[_allowed(count[at], budget) >= SPENDING]
    count[old, Count.ONSETS] //= 2
    count[old, Count.SPENT_FROM] += (count[old, Count.LEARNED] - count[old, Count.SPENT_FROM]) // 2
    return opens


def asked(count: npt.NDArray[np.int32], threshold: float, budget: float) -> FloatArray:
    """The score that opens an alert of each sensor, (n,): more than `threshold` where it has overdrawn its budget."""
    return threshold + thresholds.raised(count[:, Count.ONSETS], _allowed(count, budget))


def _allowed(count: npt.NDArray[np.int32], budget: float) -> FloatArray:
    """How many alarms the budget has allowed the sensors since they are counted, (n,)."""
    allowed: FloatArray = budget * (count[:, Count.LEARNED] - count[:, Count.SPENT_FROM]).astype(np.float64)
    return allowed


def open_rows(arrays: Columns, rows: npt.NDArray[np.intp]) -> BoolArray:
    """Whether a forecast alert is open, (n,)."""
    is_open: BoolArray = arrays.count[rows, Count.STATE] == OPEN
    return is_open
