"""Times that cannot be right: ahead of their record, behind what the sensor has sent before, or always the same.

A straggler is dropped and counted. A sensor whose clock was set back would be dropped for ever, so a run of rising
times that are all behind is believed once it is certain to be no repetition and no backlog: its readings are new, or
there are very many of them, and their records come as far apart as their times. A clock that stands still cannot be
believed, as it says nothing; it is told of. What was read from the topic before, by its offset, is never counted a
second time, nor taken in where a clock that was set back has made it look new.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core import scaling, sequence
from pipeline.core.readings import NO_SEQ, BoolArray, FloatArray, IntArray, ReadingBatch, Reason, Rejected
from pipeline.core.rounds import Round
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


def judge(arrays: Columns, arrived: Round, max_future: int) -> Stamps:
    """Compare the times with the sensors' last and with their records'; `max_future` is in µs."""
    rows, times, offsets, received = arrived.rows, arrived.times, arrived.offsets, arrived.received
    last, nobody = arrays.clock[rows, Clock.LAST], np.zeros(len(rows), np.bool_)
    future = ahead(arrived, max_future)
    behind = ~future & (times <= last)
    again = offsets < arrays.clock[rows, Clock.BELIEVED_OFFSET]  # read before the clock was set back
    watched = arrays.count[rows, Count.ASTRAY] | arrays.count[rows, Count.WRONG_CLOCK]
    resent = _sent_at_once_again(arrays, arrived)
    if not (future.any() or behind.any() or again.any() or watched.any() or resent.any()):
        _number(arrays, arrived, ~nobody, nobody)
        return Stamps(~nobody, nobody, nobody, nobody, nobody, nobody)
    clock, count = arrays.clock[rows], arrays.count[rows]
    duplicate = ~future & (again | resent | (behind & _repeats(arrays, arrived)))

    read_before = offsets <= np.maximum(clock[:, Clock.OFFSET], clock[:, Clock.ASTRAY_OFFSET])
    astray = np.flatnonzero((future | behind) & ~duplicate & ~read_before & (last != NEVER))
    believed, opened = nobody.copy(), nobody.copy()
    if len(astray):
        held = behind[astray] & _held(arrays, rows[astray], arrived.values[astray])
        goes_on = (count[astray, Count.ASTRAY] > 0) & (times[astray] >= clock[astray, Clock.ASTRAY])
        repeats = held & goes_on & (times[astray] == clock[astray, Clock.ASTRAY])  # one old message, over and over
        if arrived.seqs is not None:
            repeats &= arrived.seqs[astray] == NO_SEQ  # not if they are numbered
        for column, now in ((Clock.ASTRAY_FROM, times), (Clock.ASTRAY_RECEIVED, received)):
            clock[astray, column] = np.where(goes_on, clock[astray, column], now[astray])
        points = np.where(repeats, 0, np.where(held, HELD, NEW))
        run = np.where(goes_on, count[astray, Count.ASTRAY], 0) + points
        took, went = (
            received[astray] - clock[astray, Clock.ASTRAY_RECEIVED],
            times[astray] - clock[astray, Clock.ASTRAY_FROM],
        )
        flushed = behind[astray] & (2 * took < went)  # a backlog, sent at once
        sampled = (went == 0) & (took <= clock[astray, Clock.GAP_LIMIT])  # many readings under one stamp
        certain = (run >= CERTAIN) & ~((received[astray] > 0) & (flushed | sampled))
        believed[astray] = certain & behind[astray] & (went > 0)
        opened[astray] = certain & (count[astray, Count.WRONG_CLOCK] == 0) & arrived.usable[astray]
        clock[astray, Clock.ASTRAY], clock[astray, Clock.ASTRAY_OFFSET] = times[astray], offsets[astray]
        count[astray, Count.ASTRAY] = np.minimum(run, CERTAIN)
    fresh = ~(future | behind | again | resent) | believed
    ended = fresh & ~opened & (count[:, Count.WRONG_CLOCK] == 1) & arrived.usable
    count[fresh, Count.ASTRAY] = 0
    clock[opened, Clock.WRONG_SINCE] = last[opened]
    count[:, Count.WRONG_CLOCK] = np.where(opened, 1, np.where(ended, 0, count[:, Count.WRONG_CLOCK]))
    _set_back(clock, count, believed, times, offsets)
    clock[fresh, Clock.ASTRAY] = clock[fresh, Clock.ASTRAY_FROM] = NEVER  # its offset is behind that of this reading
    clock[fresh, Clock.ASTRAY_OFFSET], clock[fresh, Clock.ASTRAY_RECEIVED] = -1, 0
    arrays.clock[rows], arrays.count[rows] = clock, count
    _number(arrays, arrived, fresh, behind & ~read_before)
    return Stamps(fresh, future, duplicate, behind & ~duplicate & ~believed, opened, ended)


def ahead(arrived: Round | ReadingBatch, max_future: int) -> BoolArray:
    """Whose time lies further ahead of its record than `max_future` (µs), (n,)."""
    future: BoolArray = (arrived.received > 0) & (arrived.times > arrived.received + max_future)
    return future


def refusal(sensor: str, arrived: Round | ReadingBatch, i: int) -> Rejected:
    """What is said of the reading `i` that is ahead."""
    seconds = (arrived.times[i] - arrived.received[i]) / 1e6
    detail = f"{sensor}: the reading's time is {seconds:.0f} s ahead of its record's timestamp"
    return Rejected(Reason.FUTURE, detail, partition=int(arrived.partitions[i]), offset=int(arrived.offsets[i]))


def _repeats(arrays: Columns, arrived: Round) -> BoolArray:
    """Which readings that are behind have come before, (n,): by number where they have one, else time and values."""
    rows, seqs = arrived.rows, arrived.seqs
    same: BoolArray = (arrived.times == arrays.clock[rows, Clock.LAST]) & _same_values(arrays, arrived)
    if seqs is None:
        return same
    # a number that has started again, on a clock that was reset, comes with values of its own
    alike = _held(arrays, rows, arrived.values) | (arrays.count[rows, Count.FITTED] == UNFITTED)
    repeats: BoolArray = np.where(seqs == NO_SEQ, same, alike & sequence.seen(arrays.clock[rows], seqs))
    return repeats


def _sent_at_once_again(arrays: Columns, arrived: Round) -> BoolArray:
    """Which readings are the sensor's last, of the same number and values, stamped anew, (n,)."""
    if arrived.seqs is None:
        return np.zeros(len(arrived.rows), np.bool_)
    clock = arrays.clock[arrived.rows]
    after = arrived.times - clock[:, Clock.LAST]
    last = (arrived.seqs == clock[:, Clock.SEQ]) & (clock[:, Clock.SEQ_SEEN] != 0) & (arrived.seqs != NO_SEQ)
    soon = (after > 0) & (2 * after < clock[:, Clock.USUAL_STEP])  # later, it is a sensor that counts nothing
    again: BoolArray = _same_values(arrays, arrived) & last & soon
    return again


def _same_values(arrays: Columns, arrived: Round) -> BoolArray:
    same: BoolArray = ((arrived.values == arrays.raw[arrived.rows]) | np.isnan(arrived.values)).all(axis=1)
    return same


def _number(arrays: Columns, arrived: Round, fresh: BoolArray, late: BoolArray) -> None:
    if arrived.seqs is not None:
        clock = arrays.clock[arrived.rows]
        sequence.note(clock, arrived.seqs, fresh, late)
        arrays.clock[arrived.rows] = clock


def _held(arrays: Columns, rows: npt.NDArray[np.intp], values: FloatArray) -> BoolArray:
    """Whether the rolling window holds a reading with these values already, (n,)."""
    held = np.zeros(len(rows), np.bool_)
    fitted = np.flatnonzero(arrays.count[rows, Count.FITTED] != UNFITTED)
    x = scaling.scaled(values[fitted], arrays.scale[rows[fitted]])
    match = (arrays.window[rows[fitted]] == x[:, None]) | np.isnan(x)[:, None]
    held[fitted] = match.all(axis=2).any(axis=1)
    return held


def _set_back(
    clock: npt.NDArray[np.int64],
    count: npt.NDArray[np.int32],
    believed: BoolArray,
    times: IntArray,
    offsets: IntArray,
) -> None:
    """From here on these sensors' time is what they say it is: no gap, nothing learned before, a window to settle."""
    clock[believed, Clock.SET_BACK] += clock[believed, Clock.LAST] - clock[believed, Clock.ASTRAY_FROM]
    clock[believed, Clock.LAST] = times[believed] - 1
    clock[believed, Clock.BELIEVED_OFFSET] = offsets[believed]
    clock[believed, Clock.LEARN_FROM] = np.minimum(clock[believed, Clock.LEARN_FROM], times[believed])
    clock[believed, Clock.UPDATED] = NEVER // 2
    count[believed, Count.SINCE] = 0
