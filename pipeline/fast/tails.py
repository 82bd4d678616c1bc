"""How rare is a feature's value for this lane? `core.tails` for one lane."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.core.table import FEATURES, TAIL_BINS
from pipeline.core.tails import BLOCK_ROWS, COMPRESSED, FIT_FROM, LOWEST_DECADE, MOST_COUNTS, PER_DECADE
from pipeline.fast.compile import compiled
from pipeline.fast.state import Scoring

TINY, LOWEST, PER = np.float32(1e-9), np.float32(LOWEST_DECADE), np.float32(PER_DECADE)
ONE, QUARTER, LEAST = np.float32(1), np.float32(0.25), np.float32(1e-3)
LOG10_E, SHARE = np.float32(np.log10(np.e)), np.float32(FIT_FROM)
Counts = npt.NDArray[np.uint16]


@compiled
def tail_bin(value: np.float32) -> int:
    """Histogram bin of a feature's value."""
    steps = np.floor((np.log10(value + TINY) - LOWEST) * PER)
    return int(min(max(steps, np.float32(0)), np.float32(TAIL_BINS - 1)))


@compiled
def surprise(counts: Counts, value: np.float32, where: int, channels: int, scoring: Scoring) -> np.float32:
    """-log10 of the tail probability; `counts` (TAIL_BINS,): how many lie in this bin or above."""
    log10 = scoring.log10
    total, above = int(counts[0]), int(counts[where])
    rank = log10[total] - log10[above]
    if channels == 1 or above >= FIT_FROM * total:
        return np.float32(rank)
    gain = max(exponential(counts, value, scoring) - rank, np.float32(0)) * np.float32(1 - 1 / channels)
    gain = COMPRESSED * np.log1p(gain / COMPRESSED)
    return np.float32(min(rank + gain, np.float32(channels) * log10[total]))


@compiled
def exponential(counts: Counts, value: np.float32, scoring: Scoring) -> np.float32:
    """-log10 P(value) under an exponential tail above the 95 % bin."""
    total = np.float32(counts[0])
    at = -1  # the bin that holds the quantile
    for k in range(TAIL_BINS):
        if np.float32(counts[k]) >= SHARE * total:
            at += 1
    edge = scoring.edges[at + 1]
    exceeding = np.float32(counts[at + 1]) if at + 1 < TAIL_BINS else np.float32(0)
    larger = np.float32(0)
    for k in range(TAIL_BINS - 1, at, -1):
        over = np.float32(counts[k + 1]) if k + 1 < TAIL_BINS else np.float32(0)
        larger += (np.float32(counts[k]) - over) * scoring.centres[k]
    excess = larger - edge * exceeding
    scale = max((excess + QUARTER * edge) / (exceeding + ONE), LEAST)
    past = max(value - edge, np.float32(0)) / scale * LOG10_E
    return np.float32(scoring.log10[int(total)] - scoring.log10[int(exceeding)] + past)


@compiled
def enter(tail: Counts, pending: npt.NDArray[np.uint8], learned: int) -> None:
    """Before the first of a block is counted: move the block that waited in its place into the tails, and empty it.

    tail (targets, FEATURES, TAIL_BINS), pending (targets, 2, FEATURES, TAIL_BINS)
    """
    block = learned // BLOCK_ROWS % 2
    for t in range(len(tail)):
        unsettled = tail[t, 0, 0] < MOST_COUNTS
        for f in range(FEATURES):
            above = np.uint16(0)
            for k in range(TAIL_BINS - 1, -1, -1):
                above += np.uint16(pending[t, block, f, k])
                pending[t, block, f, k] = 0
                if unsettled:
                    tail[t, f, k] += above
