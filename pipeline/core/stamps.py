"""Times that cannot be right: ahead of their record, or behind what the sensor has sent before.

A straggler is dropped and counted. A sensor whose clock was set back would be dropped for ever, so a run of rising
times that are all behind is believed once it is certain to be no repetition and no backlog: its readings are new, or
there are very many of them, and their records come as far apart as their times. What was read from the topic before, by
its offset, is never counted a second time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core import scaling
from pipeline.core.readings import BoolArray, FloatArray, IntArray
from pipeline.core.table import NEVER, UNFITTED, Clock, Columns, Count

CERTAIN = 100  # points: ten new readings in a row, or a hundred that the rolling window holds already
NEW, HELD = 10, 1


class Stamps(NamedTuple):
    """What the readings' times say, (n,) each."""

    fresh: BoolArray  # to be taken in
    future: BoolArray
    duplicate: BoolArray
    late: BoolArray
    opened: BoolArray  # the sensor's clock is wrong for certain
    ended: BoolArray  # it is right again, or believed


def judge(
    arrays: Columns,
    rows: npt.NDArray[np.intp],
    times: IntArray,
    offsets: IntArray,
    received: IntArray,
    values: FloatArray,
    max_future: int,
) -> Stamps:
    """Compare the times (n,) in µs of distinct rows with the sensors' last and with their records', `received`."""
    last, nobody = arrays.clock[rows, Clock.LAST], np.zeros(len(rows), np.bool_)
    future = (received > 0) & (times > received + max_future)
    behind = ~future & (times <= last)
    watched = arrays.count[rows, Count.ASTRAY] | arrays.count[rows, Count.WRONG_CLOCK]
    if not (future.any() or behind.any() or watched.any()):
        return Stamps(~nobody, nobody, nobody, nobody, nobody, nobody)
    clock, count = arrays.clock[rows], arrays.count[rows]
    same = ((values == arrays.raw[rows]) | np.isnan(values)).all(axis=1)
    duplicate = behind & (times == last) & same

    read_before = offsets <= np.maximum(clock[:, Clock.OFFSET], clock[:, Clock.ASTRAY_OFFSET])
    astray = np.flatnonzero((future | behind) & ~duplicate & ~read_before & (last != NEVER))
    believed, opened = nobody.copy(), nobody.copy()
    if len(astray):
        points = np.where(behind[astray] & _held(arrays, rows[astray], values[astray]), HELD, NEW)
        goes_on = times[astray] > clock[astray, Clock.ASTRAY]
        goes_on &= count[astray, Count.ASTRAY] > 0
        for column, now in ((Clock.ASTRAY_FROM, times), (Clock.ASTRAY_RECEIVED, received)):
            clock[astray, column] = np.where(goes_on, clock[astray, column], now[astray])
        run = np.where(goes_on, count[astray, Count.ASTRAY], 0) + points
        took = received[astray] - clock[astray, Clock.ASTRAY_RECEIVED]
        flushed = (received[astray] > 0) & (2 * took < times[astray] - clock[astray, Clock.ASTRAY_FROM])  # at once
        certain = (run >= CERTAIN) & ~(flushed & behind[astray])
        believed[astray] = certain & behind[astray]
        opened[astray] = certain & (count[astray, Count.WRONG_CLOCK] == 0)
        clock[astray, Clock.ASTRAY], clock[astray, Clock.ASTRAY_OFFSET] = times[astray], offsets[astray]
        count[astray, Count.ASTRAY] = np.minimum(run, CERTAIN)
    fresh = ~(future | behind) | believed
    ended = fresh & ~opened & (count[:, Count.WRONG_CLOCK] == 1)
    count[fresh, Count.ASTRAY] = 0
    clock[opened, Clock.WRONG_SINCE] = last[opened]
    count[:, Count.WRONG_CLOCK] = np.where(opened, 1, np.where(ended, 0, count[:, Count.WRONG_CLOCK]))
    _set_back(clock, count, believed, times)
    clock[fresh, Clock.ASTRAY] = clock[fresh, Clock.ASTRAY_FROM] = NEVER  # its offset is behind that of this reading
    clock[fresh, Clock.ASTRAY_OFFSET], clock[fresh, Clock.ASTRAY_RECEIVED] = -1, 0
    arrays.clock[rows], arrays.count[rows] = clock, count
    return Stamps(fresh, future, duplicate, behind & ~duplicate & ~believed, opened, ended)


def behind_partition(clock: npt.NDArray[np.int64]) -> IntArray:
    """The last readings' times (n,) as they would be had no sensor's clock been set back."""
    last: IntArray = clock[:, Clock.LAST] + clock[:, Clock.SET_BACK]
    return last


def _held(arrays: Columns, rows: npt.NDArray[np.intp], values: FloatArray) -> BoolArray:
    """Whether the rolling window holds a reading with these values already, (n,)."""
    held = np.zeros(len(rows), np.bool_)
    fitted = np.flatnonzero(arrays.count[rows, Count.FITTED] != UNFITTED)
    x = scaling.scaled(values[fitted], arrays.scale[rows[fitted]])
    match = (arrays.window[rows[fitted]] == x[:, None]) | np.isnan(x)[:, None]
    held[fitted] = match.all(axis=2).any(axis=1)
    return held


def _set_back(clock: npt.NDArray[np.int64], count: npt.NDArray[np.int32], believed: BoolArray, times: IntArray) -> None:
    """From here on these sensors' time is what they say it is: no gap, nothing learned before, a window to settle."""
    clock[believed, Clock.SET_BACK] += clock[believed, Clock.LAST] - clock[believed, Clock.ASTRAY_FROM]
    clock[believed, Clock.LAST] = times[believed] - 1
    clock[believed, Clock.LEARN_FROM] = np.minimum(clock[believed, Clock.LEARN_FROM], times[believed])
    clock[believed, Clock.UPDATED] = NEVER // 2
    count[believed, Count.SINCE] = 0
