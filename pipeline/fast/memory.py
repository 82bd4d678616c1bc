"""Has this lane ever had such a value, or such a pattern? `core.novelty` for one lane."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.core.model import Array
from pipeline.core.novelty import BIN_WIDTH, EMPTY, LEADER_RADIUS
from pipeline.core.table import NOVELTY_BINS
from pipeline.fast.compile import compiled

PER_BIN, WIDTH = np.float32(1 / BIN_WIDTH), np.float32(BIN_WIDTH)
MIDDLE, FAR = np.float32(125), np.uint8(255)
OLDEST = np.uint16(0xFFFF)
Bytes = npt.NDArray[np.uint8]


@compiled
def value_bin(z: np.float32) -> int:
    """The bin of asinh(x)."""
    return min(max(int(np.rint(z * PER_BIN)) + NOVELTY_BINS // 2, 0), NOVELTY_BINS - 1)


@compiled
def occupied(known: npt.NDArray[np.uint32], where: int) -> bool:
    """Whether the lane had a value in this bin; `known` (words,)."""
    return bool((known[where >> 5] >> np.uint32(where & 31)) & np.uint32(1) != 0)


@compiled
def distance_to_known(known: npt.NDArray[np.uint32], where: int, fresh: int) -> np.float32:
    """Distance in asinh(x) to the nearest occupied bin, counting `fresh`, which is about to be set (-1: none)."""
    if where == fresh or occupied(known, where):
        return np.float32(0)
    nearest = NOVELTY_BINS if fresh < 0 else abs(where - fresh)
    for steps in range(1, nearest):
        low, high = where - steps, where + steps
        if (low >= 0 and occupied(known, low)) or (high < NOVELTY_BINS and occupied(known, high)):
            return np.float32(steps) * WIDTH
        if low < 0 and high >= NOVELTY_BINS:
            break
    return np.float32(0) if fresh < 0 else np.float32(nearest) * WIDTH


@compiled
def quantise(context: Bytes, x: np.float32, means: Array) -> None:
    """(value, three means) as bytes, one step a bin."""
    for k in range(4):
        z = np.arcsinh(x if k == 0 else means[k - 1])
        context[k] = np.uint8(min(max(np.rint(z * PER_BIN) + MIDDLE, np.float32(0)), np.float32(250)))


@compiled
def nearest_prototype(prototypes: Bytes, context: Bytes, apart: Bytes) -> int:
    """The first of the nearest of (4, prototypes); `apart` (prototypes,) receives each distance in steps."""
    n = len(apart)
    for j in range(n):
        apart[j] = FAR if prototypes[0, j] == EMPTY else np.uint8(0)
    for k in range(4):
        c = context[k]
        for j in range(n):
            p = prototypes[k, j]
            apart[j] = max(apart[j], np.uint8(max(p, c) - min(p, c)))
    smallest = FAR
    for j in range(n):
        smallest = min(smallest, apart[j])
    for j in range(n):
        if apart[j] == smallest:
            return j
    return 0


@compiled
def remember_context(
    prototypes: Bytes, hits: npt.NDArray[np.uint16], context: Bytes, now: np.uint16, apart: Bytes
) -> None:
    """Let a context that is far from every prototype replace the one that was hit least recently."""
    if apart[nearest_prototype(prototypes, context, apart)] <= LEADER_RADIUS:
        return
    oldest, most = 0, -1
    for j in range(len(hits)):
        age = OLDEST if prototypes[0, j] == EMPTY else np.uint16(now - hits[j])
        if int(age) > most:
            oldest, most = j, int(age)
    for k in range(4):
        prototypes[k, oldest] = context[k]
    hits[oldest] = now
