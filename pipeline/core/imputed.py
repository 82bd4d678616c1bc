"""Which values of the rolling window never came: a forecast stands in for them, and nothing is learned from it.

A bit a reading of the window and target channel, and how many are set, so that a whole window costs nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.core.readings import BoolArray
from pipeline.core.table import MARK_BITS, Columns, Count

MOST_FILLED = 0.25  # of a window; a sensor that misses more does not keep the grid, and is read as it comes


def mark(arrays: Columns, rows: npt.NDArray[np.intp], slots: npt.NDArray[np.int64], missing: BoolArray) -> None:
    """Say of ring positions `slots` (n,) which targets (n, targets) have no value of their own there."""
    word, bit = slots // MARK_BITS, np.left_shift(np.uint32(1), (slots % MARK_BITS).astype(np.uint32))[:, None]
    words = arrays.filled[rows, :, word]
    was = (words & bit) != 0
    arrays.filled[rows, :, word] = np.where(missing, words | bit, words & ~bit)
    arrays.count[rows, Count.FILLED] += missing.sum(axis=1, dtype=np.int32) - was.sum(axis=1, dtype=np.int32)


def marked(arrays: Columns, rows: npt.NDArray[np.intp], slots: npt.NDArray[np.int64]) -> BoolArray:
    """Which targets were filled in at ring positions `slots` (n,), (n, targets)."""
    bit = np.left_shift(np.uint32(1), (slots % MARK_BITS).astype(np.uint32))[:, None]
    found: BoolArray = (arrays.filled[rows, :, slots // MARK_BITS] & bit) != 0
    return found


def over(arrays: Columns, rows: npt.NDArray[np.intp], slots: npt.NDArray[np.int64]) -> BoolArray:
    """Which targets were filled in at the ring positions `slots` (n, readings) of each row, (n, readings, targets)."""
    words = np.take_along_axis(arrays.filled[rows], (slots // MARK_BITS)[:, None], axis=2)
    found: BoolArray = (np.right_shift(words, (slots % MARK_BITS).astype(np.uint32)[:, None]) & 1) != 0
    return found.transpose(0, 2, 1)


def missed(steps: npt.NDArray[np.int64], interval: int) -> npt.NDArray[np.int64]:
    """How many readings fit into steps (n,) in µs from one reading to the next, to the nearest."""
    return (2 * steps + interval) // (2 * interval) - 1
