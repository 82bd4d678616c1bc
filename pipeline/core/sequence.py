"""Which numbered readings of a sensor have been seen: the newest number, and a bit for each of the 63 before it.

The anti-replay window of RFC 6479, except that a number that starts again is no replay: the window starts with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.core.readings import NO_SEQ, BoolArray, IntArray
from pipeline.core.table import Clock

SPAN = 64  # numbers


def seen(clock: npt.NDArray[np.int64], seqs: IntArray) -> BoolArray:
    """Whether rows of `clock` know the numbers (n,) of their readings."""
    age = clock[:, Clock.SEQ] - seqs
    within = (seqs != NO_SEQ) & (age >= 0) & (age < SPAN)
    known: BoolArray = within & ((clock[:, Clock.SEQ_SEEN] & _bit(np.where(within, age, 0))) != 0)
    return known


def note(clock: npt.NDArray[np.int64], seqs: IntArray, fresh: BoolArray, late: BoolArray) -> None:
    """Take in the numbers of readings that are `fresh` (n,), and those that were missed and come `late`."""
    ahead, bits = seqs - clock[:, Clock.SEQ], clock[:, Clock.SEQ_SEEN]
    behind = (ahead <= 0) & (ahead > -SPAN) & (bits != 0) & ~seen(clock, seqs)
    on = (ahead > 0) & (ahead < SPAN) & (bits != 0)
    joined = bits | _bit(np.where(behind, -ahead, 0))
    moved = np.where(on, np.left_shift(bits, np.where(on, ahead, 0)) | 1, 1)  # else it starts, or starts again
    fresh, late = fresh & (seqs != NO_SEQ), late & behind & (seqs != NO_SEQ)
    newest = fresh & ~behind
    clock[:, Clock.SEQ] = np.where(newest, seqs, clock[:, Clock.SEQ])
    clock[:, Clock.SEQ_SEEN] = np.where(newest, moved, np.where(late | (fresh & behind), joined, bits))


def _bit(age: IntArray) -> IntArray:
    """The bit of a number so much older than the newest."""
    bit: IntArray = np.left_shift(np.int64(1), age)
    return bit
