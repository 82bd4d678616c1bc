"""Has this sensor ever had such a value? Two small memories per lane: single values, and values in their context.

Values enter `MEMORY_DELAY` readings late, so that an anomaly does not excuse itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.core.model import Array
from pipeline.core.table import NOVELTY_BINS

MEMORY_DELAY = 32  # readings
SILENT_UNTIL = 192  # values; before, everything is new and nothing is news
BIN_WIDTH = 0.05  # of asinh(x)
LEADER_RADIUS = 2  # steps of BIN_WIDTH
EMPTY = np.uint8(255)  # the coordinates of a prototype that is not there
BIT_INDEX = np.arange(NOVELTY_BINS, dtype=np.int32)


def value_bins(z: Array) -> npt.NDArray[np.int32]:
    """The bin of asinh(x), over about +-8 million robust deviations."""
    bins = np.rint(z * np.float32(1 / BIN_WIDTH)).astype(np.int32) + NOVELTY_BINS // 2
    inside: npt.NDArray[np.int32] = np.minimum(np.maximum(bins, 0), NOVELTY_BINS - 1)
    return inside


def remember_values(known: npt.NDArray[np.uint32], lanes: npt.NDArray[np.intp], bins: npt.NDArray[np.int32]) -> None:
    """Set each lane's bit; `known` is the whole table's (lanes, words), `lanes` are distinct."""
    known[lanes, bins >> 5] |= np.left_shift(np.uint32(1), (bins & 31).astype(np.uint32))


def distance_to_known(known: npt.NDArray[np.uint32], lanes: npt.NDArray[np.intp], bins: npt.NDArray[np.int32]) -> Array:
    """Distance in asinh(x) from each bin to the nearest one ever occupied; 0 for the bin itself or an empty memory."""
    distance = np.zeros(len(lanes), np.float32)
    word = known[lanes, bins >> 5]
    unseen = np.flatnonzero((word >> (bins & 31).astype(np.uint32)) & 1 == 0)  # one reading in a hundred
    if len(unseen):
        words = known[lanes[unseen]].astype("<u4", copy=False)
        occupied = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little") == 1
        steps = np.where(occupied, np.abs(BIT_INDEX - bins[unseen, None]), NOVELTY_BINS).min(axis=1)
        distance[unseen] = np.where(steps == NOVELTY_BINS, 0, steps).astype(np.float32) * np.float32(BIN_WIDTH)
    return distance


def quantised(context: Array) -> npt.NDArray[np.uint8]:
    """Contexts (4, n) of asinh values as bytes (n, 4), one step a BIN_WIDTH, 0 to 250."""
    steps = np.rint(context * np.float32(1 / BIN_WIDTH)) + np.float32(125)
    return np.ascontiguousarray(np.clip(steps, 0, 250).astype(np.uint8).T)


def nearest_prototype(
    prototypes: npt.NDArray[np.uint8], contexts: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """Chebyshev distance in steps and index of the nearest of (n, 4, prototypes) to each context (n, 4); 255: none."""
    c = contexts[:, :, None]
    apart = (np.maximum(prototypes, c) - np.minimum(prototypes, c)).max(axis=1)
    apart |= -(prototypes[:, 0] == EMPTY).view(np.uint8)  # an empty place is near nothing, not even the largest values
    nearest = apart.argmin(axis=1)
    return apart[np.arange(len(apart)), nearest], nearest


def remember_contexts(
    prototypes: npt.NDArray[np.uint8],
    hits: npt.NDArray[np.uint16],
    lanes: npt.NDArray[np.intp],
    contexts: npt.NDArray[np.uint8],
    now: npt.NDArray[np.uint16],
) -> None:
    """Leader clustering (Hartigan 1975): a context far from every prototype replaces the one hit least recently."""
    apart, _ = nearest_prototype(prototypes[lanes], contexts)
    leaders = apart > LEADER_RADIUS
    lanes, contexts, now = lanes[leaders], contexts[leaders], now[leaders]
    if len(lanes):
        empty = prototypes[lanes, 0] == EMPTY
        age = np.where(empty, np.uint16(0xFFFF), now[:, None] - hits[lanes])
        oldest = age.argmax(axis=1)
        prototypes[lanes, :, oldest] = contexts
        hits[lanes, oldest] = now
