"""From surprise to score: how often an episode this high is to be expected of this sensor.

An episode is what the largest surprise of BLOCK_READINGS readings stands for. Block maxima exceed their median as an
exponential does (Coles, "Statistical Modeling of Extreme Values", 2001, ch. 3, with shape 0); median and mean excess
are the sensor's own, shrunk towards those of its training, and these towards its group's (James & Stein, 1961).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.core.model import Array
from pipeline.core.readings import FloatArray
from pipeline.core.table import BLOCKS, Columns, Count, Level

BLOCK_READINGS = 50
BLOCK_DELAY = 4  # blocks: 200 readings, the longest an episode stays open
GROUP_BLOCKS = 20.0  # what the group's usual episode weighs against a sensor's own blocks
MOST_OWN_BLOCKS = 100.0  # of its training that a sensor goes on being judged by
UNSEEN_BLOCKS = 60.0  # what the group weighs for a sensor that the model was not trained on
USUAL, EXCESS, LEAST_EXCESS = 1.05, 0.2, 0.05  # of block maxima, where nothing is known of the group
NO_GROUP = (USUAL, EXCESS, USUAL, EXCESS, GROUP_BLOCKS)  # the learned columns of `Level` without a prior
# quantile of the block maxima: a few incidents, however high, cannot move the mean excess; many channels have more
WINSORED, WINSORED_MANY = 0.85, 0.75


def score(surprise: Array, usual: Array, excess: Array) -> FloatArray:
    """-log10 of the false episodes expected per reading at this combined surprise (n,).

    The median block maximum `usual` is reached once in 2 * BLOCK_READINGS.
    """
    past = (surprise.astype(np.float64) - usual) / excess
    expected: FloatArray = np.log10(2.0 * BLOCK_READINGS) + past * np.log10(np.e)
    return expected


def winsored(targets: int) -> float:
    """The quantile that maxima above it count as, for sensors of so many channels."""
    return WINSORED if targets == 1 else WINSORED_MANY


def calibrated(blocks: Array, prior: Array, quantile: float) -> tuple[Array, Array]:
    """Median and mean excess (n,) of block maxima (n, B), NaN where absent, shrunk to `prior` (n, 3).

    A prior is a median, a mean excess, and how many blocks they weigh. Maxima above their `quantile` w count as that
    quantile; of an exponential's mean excess that leaves 1 - 2 (1 - w), which is made up for.
    """
    ordered = np.sort(blocks, axis=1).astype(np.float64)  # NaN last
    rows, places = np.arange(len(blocks)), np.arange(blocks.shape[1])
    present = np.isfinite(ordered).sum(axis=1)
    last = np.maximum(present - 1, 0)
    median = np.where(present > 0, ordered[rows, np.minimum(present // 2, last)], 0)
    high = np.where(present > 0, ordered[rows, np.minimum((present * quantile).astype(np.int64), last)], 0)
    upper = (places >= (present // 2)[:, None]) & (places < present[:, None])
    above = np.where(upper, np.minimum(ordered, high[:, None]) - median[:, None], 0)
    # as running sums: a pairwise sum would depend on how many absent blocks stand beside
    mean = above.cumsum(axis=1)[:, -1] / np.maximum(upper.sum(axis=1), 1) / (1 - 2 * (1 - quantile))
    weight = present + prior[:, 2].astype(np.float64)
    usual = (present * median + prior[:, 2] * prior[:, 0]) / weight
    excess = (present * mean + prior[:, 2] * prior[:, 1]) / weight
    return usual.astype(np.float32), np.maximum(excess, LEAST_EXCESS).astype(np.float32)


def learn(arrays: Columns, rows: npt.NDArray[np.intp], surprise: Array) -> None:
    """Take the surprise (n,) into the running block of each row; a full block moves the calibration of its sensor."""
    count, level = arrays.count, arrays.level
    learned = count[rows, Count.LEARNED]
    level[rows, Level.BLOCK] = np.maximum(level[rows, Level.BLOCK], surprise)
    full = np.flatnonzero((learned + 1) % BLOCK_READINGS == 0)
    if len(full) == 0:
        return
    ended, block = rows[full], learned[full] // BLOCK_READINGS
    arrays.blocks[ended, block % BLOCKS] = level[ended, Level.BLOCK]
    level[ended, Level.BLOCK] = 0
    prior = level[ended, Level.OWN_USUAL : Level.OWN_BLOCKS + 1]
    usual, excess = calibrated(entered(arrays.blocks[ended], block + 1), prior, winsored(arrays.lane.shape[1]))
    level[ended, Level.USUAL], level[ended, Level.EXCESS] = usual, excess


def entered(blocks: Array, written: npt.NDArray[np.int32]) -> Array:
    """The block maxima that are old enough to count: all but the last BLOCK_DELAY of a ring written `written` times."""
    age = (written[:, None] - 1 - np.arange(BLOCKS)) % BLOCKS
    return np.where(age >= BLOCK_DELAY, blocks, np.float32(np.nan))
