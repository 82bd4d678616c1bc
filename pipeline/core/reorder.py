"""Readings that come out of order, put back: each waits until so many later ones of its sensor have come.

What comes out, comes out where the reading stands that let it go, and its offset is that one's: what is decided then
is known there, and not before. Nothing leaves by the clock, so when a partition is looked at changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core import stamps
from pipeline.core.readings import NO_SEQ, BoolArray, IntArray
from pipeline.core.rounds import Round, Rows
from pipeline.core.table import NEVER, Arrays, Clock, Columns, Held


class Turn(NamedTuple):
    """What came of a round of readings."""

    out: Round  # at most one of each sensor, in order of time, or behind what it has sent before
    waited: BoolArray  # (out,) it had come before
    kept: Round  # from which nothing comes out now
    duplicate: int
    late: int  # another has the same time
    reordered: int  # that came after a later one


def turn(arrays: Columns, arrived: Round, max_future: int) -> Turn:
    """Let the readings wait, and take out those that have waited for long enough; `max_future` is in µs.

    One that cannot be put in order, since it is ahead of its record or behind what was taken in, comes out at once.
    """
    rows, offsets, clock = arrived.rows, arrived.offsets, arrays.clock[arrived.rows]
    straight = stamps.ahead(arrived, max_future) | (arrived.times <= clock[:, Clock.LAST])
    straight |= offsets < clock[:, Clock.BELIEVED_OFFSET]
    waiting = arrays.held[rows, :, Held.TIME]  # (n, bound), NEVER where nothing does
    twin = waiting == arrived.times[:, None]
    read_before = ~straight & (offsets < clock[:, Clock.OFFSET])
    doubled = ~straight & ~read_before & twin.any(axis=1)
    like = arrays.held_values[rows, twin.argmax(axis=1)]
    same = doubled & ((like == arrived.values) | (np.isnan(like) & np.isnan(arrived.values))).all(axis=1)

    taken = ~(straight | read_before | doubled)
    slot, earliest = waiting.argmin(axis=1), waiting.min(axis=1)
    enters = taken & (arrived.times > earliest)
    leaves = enters & (earliest != NEVER)
    arrays.clock[rows[taken], Clock.OFFSET] = offsets[taken]
    out = _exchanged(arrays, arrived, slot, enters, leaves)
    comes_out = straight | leaves | (taken & ~enters)
    return Turn(
        out.only(comes_out),
        leaves[comes_out],
        arrived.only(~comes_out),
        int((read_before | same).sum()),
        int((doubled & ~same).sum()),
        int((taken & (arrived.times < waiting.max(axis=1))).sum()),
    )


def forget(arrays: Columns, rows: Rows) -> int:
    """Nothing of these sensors waits any more; how many readings did."""
    waited = int((arrays.held[rows, :, Held.TIME] != NEVER).sum())
    arrays.held[rows] = NEVER
    return waited


def newest(arrays: Columns, rows: Rows) -> IntArray:
    """The largest time that the sensors have sent, (n,) µs, whether it waits or not; NEVER where there is none."""
    waiting = arrays.held[rows, :, Held.TIME].max(axis=1, initial=NEVER)
    latest: IntArray = np.maximum(arrays.clock[rows, Clock.LAST], waiting)
    return latest


def heard(arrays: Columns, rows: Rows) -> IntArray:
    """When the sensors were last heard, (n,) µs, as if no clock had been set back."""
    last: IntArray = newest(arrays, rows) + arrays.clock[rows, Clock.SET_BACK]
    return last


def fitted(arrays: Mapping[str, npt.NDArray[Any]], bound: int) -> Mapping[str, npt.NDArray[Any]]:
    """A snapshot made under another bound, under this one: of what waits, the earliest are dropped if they must be."""
    held, values = arrays.get("held"), arrays.get("held_values")
    if held is None or values is None or held.ndim != 3 or values.ndim != 3 or held.shape[1] == bound:
        return arrays
    latest = np.argsort(-held[:, :, Held.TIME], axis=1, kind="stable")[:, :bound, None]
    free = ((0, 0), (0, max(bound - held.shape[1], 0)), (0, 0))
    changed: Arrays = {
        "held": np.pad(np.take_along_axis(held, latest, axis=1), free, constant_values=NEVER),
        "held_values": np.pad(np.take_along_axis(values, latest, axis=1), free, constant_values=np.nan),
    }
    return {**arrays, **changed}


def _exchanged(arrays: Columns, arrived: Round, slot: Rows, enters: BoolArray, leaves: BoolArray) -> Round:
    """The readings that `leaves` their slot in the place of those that let them go, and `enters` where they were."""
    rows, seqs = arrived.rows, np.full(len(slot), NO_SEQ, np.int64) if arrived.seqs is None else arrived.seqs.copy()
    times, received, usable, values = (
        arrived.times.copy(), arrived.received.copy(), arrived.usable.copy(), arrived.values.copy()
    )  # fmt: skip
    came = np.stack([times, received, seqs, usable], axis=1)[enters]  # the columns of `Held`
    gone = arrays.held[rows[leaves], slot[leaves]]
    values[leaves] = arrays.held_values[rows[leaves], slot[leaves]]
    arrays.held[rows[enters], slot[enters]] = came
    arrays.held_values[rows[enters], slot[enters]] = arrived.values[enters]
    times[leaves], received[leaves] = gone[:, Held.TIME], gone[:, Held.RECEIVED]
    seqs[leaves], usable[leaves] = gone[:, Held.SEQ], gone[:, Held.USABLE] != 0
    return arrived._replace(times=times, received=received, usable=usable, values=values, seqs=seqs)
