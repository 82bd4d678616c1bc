"""How rare is a feature's value for this lane: its rank among those counted before, as -log10 of a tail probability.

Beyond the 95 % quantile an exponential tail is fitted to the counts; one channel keeps to its rank, many channels
lean on the fit, since a mean over channels needs to see how far one of them is out (Coles, "Statistical Modeling of
Extreme Values", 2001, ch. 4, with shape 0).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.core.model import Array
from pipeline.core.table import FEATURES, TAIL_BINS

LOWEST_DECADE = -2.0  # below a hundredth of the scale an error is no error
PER_DECADE = 6.4  # 32 bins over 0.01 .. 1000
EDGES = (10.0 ** (LOWEST_DECADE + np.arange(TAIL_BINS + 1) / PER_DECADE)).astype(np.float32)
CENTRES = np.sqrt(EDGES[1:] * EDGES[:-1])
MOST_COUNTS = 3000  # then a lane's tail is settled, or slow drift would become normal
BLOCK_ROWS = 150  # counts enter between one and two blocks late, so that a fault does not excuse itself
COMPRESSED = np.float32(40.0)  # decades: how far the fit may lead the rank before it is trusted less and less
FIT_FROM = 0.05  # the share of counts the exponential tail is fitted on
LOG10 = np.log10(np.arange(1, 2**16 + 1)).astype(np.float32)  # of a count plus one
WHICH = np.arange(FEATURES)[:, None]


def bins(values: Array) -> npt.NDArray[np.intp]:
    """Histogram bin of each feature value, any shape; the outermost bins are open."""
    decades = np.log10(values + np.float32(1e-9))
    steps = np.floor((decades - np.float32(LOWEST_DECADE)) * np.float32(PER_DECADE))
    where: npt.NDArray[np.intp] = np.minimum(np.maximum(steps, 0), TAIL_BINS - 1).astype(np.intp)
    return where


def surprise(
    tail: npt.NDArray[np.uint16], lanes: npt.NDArray[np.intp], values: Array, where: npt.NDArray[np.intp], channels: int
) -> Array:
    """-log10 of the tail probability, (FEATURES, n), for values (FEATURES, n) in bins `where`.

    `tail` is the whole table's (lanes, FEATURES, TAIL_BINS): how many counted values lie in this bin or above.
    """
    above = tail[lanes, WHICH, where]
    total = tail[lanes, WHICH, 0]
    rank: Array = LOG10[total] - LOG10[above]
    if channels == 1:
        return rank
    beyond = np.nonzero(above < FIT_FROM * total)
    if len(beyond[0]):
        counts = tail[lanes[beyond[1]], beyond[0]].astype(np.float32)  # (m, TAIL_BINS)
        fitted = _exponential(counts, total[beyond].astype(np.float32), values[beyond])
        gain = np.maximum(fitted - rank[beyond], 0) * np.float32(1 - 1 / channels)
        gain = COMPRESSED * np.log1p(gain / COMPRESSED)
        rank[beyond] = np.minimum(rank[beyond] + gain, channels * LOG10[total[beyond]])
    return rank


def _exponential(counts: Array, total: Array, values: Array) -> Array:
    """-log10 P(value) under an exponential tail above the 95 % bin, from cumulative counts (m, TAIL_BINS)."""
    rows = np.arange(len(counts))
    at = (counts >= np.float32(FIT_FROM) * total[:, None]).sum(axis=1) - 1  # the bin that holds the quantile
    edge = EDGES[at + 1]
    above = np.concatenate([counts, np.zeros((len(counts), 1), np.float32)], axis=1)
    exceeding = above[rows, at + 1]
    # sums from each bin up, as running sums: a pairwise sum would depend on the batch
    sizes = ((above[:, :-1] - above[:, 1:]) * CENTRES)[:, ::-1].cumsum(axis=1)[:, ::-1]
    larger = np.where(at + 1 < TAIL_BINS, sizes[rows, np.minimum(at + 1, TAIL_BINS - 1)], np.float32(0))
    excess = larger - edge * exceeding
    scale = np.maximum((excess + np.float32(0.25) * edge) / (exceeding + 1), np.float32(1e-3))
    past = np.maximum(values - edge, 0) / scale * np.float32(np.log10(np.e))
    fitted: Array = LOG10[total.astype(np.int64)] - LOG10[exceeding.astype(np.int64)] + past
    return fitted


def count(
    tail: npt.NDArray[np.uint16],
    pending: npt.NDArray[np.uint8],
    lanes: npt.NDArray[np.intp],
    where: npt.NDArray[np.intp],
    learned: npt.NDArray[np.int32],
    channels: int,
) -> None:
    """Count values in bins `where` (FEATURES, n) of distinct lanes; `learned` is how many readings were counted before.

    `pending` (lanes, 2, FEATURES, TAIL_BINS) holds the last two blocks; a block enters when its place is needed again,
    in every channel of the sensor: one that has no value just then may never have one at such a reading.
    """
    block = (learned // BLOCK_ROWS) % 2
    full = np.flatnonzero(learned % BLOCK_ROWS == 0)
    if len(full):
        sensors, first = np.unique(lanes[full] // channels, return_index=True)
        every = (sensors[:, None] * channels + np.arange(channels)).ravel()
        enter(tail, pending, every, np.repeat(block[full[first]], channels))
    pending[lanes, block, WHICH, where] += np.uint8(1)


def enter(
    tail: npt.NDArray[np.uint16],
    pending: npt.NDArray[np.uint8],
    lanes: npt.NDArray[np.intp],
    block: npt.NDArray[np.int32],
) -> None:
    """Move one pending block of each lane into its tail, unless that is settled, and empty it."""
    unsettled = tail[lanes, 0, 0] < MOST_COUNTS
    waiting = pending[lanes, block].astype(np.uint16)
    cumulative = waiting[..., ::-1].cumsum(axis=-1, dtype=np.uint16)[..., ::-1]
    tail[lanes[unsettled]] += cumulative[unsettled]
    pending[lanes, block] = 0
