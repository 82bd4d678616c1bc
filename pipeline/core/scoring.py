"""Features of one reading, turned into tail probabilities and combined into one surprise a sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.core import tails
from pipeline.core.features import Lanes
from pipeline.core.model import Array
from pipeline.core.table import FEATURES, Columns, flat


@dataclass(frozen=True, slots=True)
class Weights:
    """What each kind of feature counts, relative to the others."""

    errors: float = 1 / 6  # each of the one-step error, the error that no horizon expected, the bias
    scaled: float = 0.5  # error against the lane's own usual error
    novel: float = 0.45  # a new value; for one channel also a new pattern
    lasting: float = 0.35  # error that lasts, for many channels
    out_of_range: float = 0.1
    unseen_range: float = 0.5  # where nothing was fitted to the sensor, leaving its first range says as much as errors
    loudest: float = 2.0  # over the channels: the share of the loudest; a mean drowns one channel's fault in the others
    unseen_loudest: float = 4.0  # where nothing was fitted, the many are less of a witness

    def of(self, targets: int, unseen: bool) -> Array:
        """(FEATURES,), summing to 1. Novelty and range of one channel among many count less.

        Some channel always does something for the first time.
        """
        fourth = self.novel if targets == 1 else self.lasting * (1 - 1 / targets)
        out_of_range = self.unseen_range if unseen else self.out_of_range / targets
        each = [self.errors] * 3 + [self.novel / targets, fourth, self.scaled, out_of_range]
        return (np.array(each) / sum(each)).astype(np.float32)

    def loud(self, targets: int, unseen: bool) -> np.float32:
        """The share of the loudest channel, at most half."""
        return np.float32(min((self.unseen_loudest if unseen else self.loudest) / targets, 0.5))


def combine(
    arrays: Columns, on: Lanes, values: Array, sensors: int, targets: int, weights: Weights
) -> tuple[Array, Array]:
    """The surprise of each sensor (n,), the mean of its channels and its loudest, and of each (n, targets).

    The lanes that learn are counted afterwards.
    """
    where = tails.bins(values)
    rank = tails.surprise(flat(arrays.tail), on.lanes, values, where, targets)
    usual, unseen = weights.of(targets, unseen=False), weights.of(targets, unseen=True)
    voice = np.zeros(len(on.lanes), np.float32)
    for f in range(FEATURES):
        voice += np.where(on.unseen, unseen[f], usual[f]) * rank[f]
    each = np.zeros(sensors * targets, np.float32)
    each[on.at] = voice
    voices = each.reshape(sensors, targets)
    total, loudest = np.zeros(sensors, np.float32), np.zeros(sensors, np.float32)
    for c in range(targets):  # in a fixed order: a pairwise sum would depend on the batch
        total += voices[:, c]
        loudest = np.maximum(loudest, voices[:, c])
    learns = np.flatnonzero(on.learns)
    tails.count(
        flat(arrays.tail), flat(arrays.pending), on.lanes[learns], where[:, learns], on.learned[learns], targets
    )
    present = np.maximum(np.bincount(on.at // targets, minlength=sensors), 1).astype(np.float32)
    loud = np.zeros(sensors, np.float32)
    loud[on.at // targets] = np.where(
        on.unseen, weights.loud(targets, unseen=True), weights.loud(targets, unseen=False)
    )
    return (1 - loud) * total / present + loud * loudest, voices
