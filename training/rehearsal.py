"""The detector reads histories, as it would have live: what it has learned by their end, and every block maximum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.core import episodes, tails
from pipeline.core.detector import Detector
from pipeline.core.events import Outcome
from pipeline.core.model import Array, Model
from pipeline.core.readings import FloatArray, IntArray, ReadingBatch
from pipeline.core.table import BLOCKS, Columns, Count, flat

FEWEST_BLOCKS = 3


class Stretch(NamedTuple):
    """Readings of one sensor, or of what is to be taken for one."""

    sensor: str
    times: IntArray  # (n,) µs UTC, rising
    values: FloatArray  # (n, channels), NaN where missing


class Rehearsed(NamedTuple):
    """What came of it, in the order of the sensors' names."""

    arrays: Columns
    blocks: Array  # (sensors, B) all block maxima, NaN where a sensor has fewer


def rehearse(
    model: Model,
    stretches: Sequence[Stretch],
    on_row: Callable[[int, ReadingBatch, Outcome], None] | None = None,
    detector_of: Callable[[Model], Detector] = Detector,
) -> Rehearsed:
    """Read all stretches side by side, row by row; `on_row` is told each row and what came of it."""
    detector = detector_of(model)
    maxima: list[list[float]] = [[] for _ in stretches]
    for row, batch in enumerate(_rounds(stretches)):
        outcome = detector.step(batch)
        _note_full_blocks(detector, maxima)
        if on_row is not None:
            on_row(row, batch, outcome)
    whole = detector.snapshot(0)
    arrays = Columns(**{name: whole[name] for name in detector.table.fields})
    _settle(arrays)
    longest = max(1, *map(len, maxima))  # a column of none, where no sensor has filled a block
    padded = np.array([m + [np.nan] * (longest - len(m)) for m in maxima], np.float32)
    return Rehearsed(arrays, padded.reshape(len(maxima), longest))


def usual_episode(blocks: Array, quantile: float, anywhere: float = 50.0) -> tuple[float, float]:
    """Median and mean excess that are usual in a group: medians over its sensors with FEWEST_BLOCKS (n, B) maxima.

    Shrunk to what is usual anywhere, by that many blocks: a few short histories do not tell.
    """
    counted = np.isfinite(blocks).sum(axis=1)
    enough = counted >= FEWEST_BLOCKS
    if not enough.any():
        return episodes.USUAL, episodes.EXCESS
    usual, excess = episodes.calibrated(blocks[enough], np.zeros((int(enough.sum()), 3), np.float32), quantile)
    weight = float(counted[enough].sum())

    def shrunk(value: float, default: float) -> float:
        return (weight * value + anywhere * default) / (weight + anywhere)

    return shrunk(float(np.median(usual)), episodes.USUAL), shrunk(float(np.median(excess)), episodes.EXCESS)


def _rounds(stretches: Sequence[Stretch]) -> Iterator[ReadingBatch]:
    """Row k of every stretch that has one, k = 0, 1, ..."""
    for row in range(max(len(s.times) for s in stretches)):
        here = [s for s in stretches if row < len(s.times)]
        nothing = np.zeros(len(here), np.int64)
        yield ReadingBatch(
            sensors=[s.sensor for s in here],
            times=np.array([s.times[row] for s in here], np.int64),
            values=np.stack([s.values[row] for s in here]),
            usable=np.ones(len(here), np.bool_),
            partitions=nothing,
            offsets=nothing + row,
            received=nothing,
        )


def _note_full_blocks(detector: Detector, maxima: list[list[float]]) -> None:
    """The detector itself keeps the last BLOCKS only. All sensors have been seen since the first row."""
    arrays, rows = detector.table.arrays, detector.table.rows_of()
    filled = arrays.count[rows, Count.LEARNED] // episodes.BLOCK_READINGS
    for i in np.flatnonzero(filled > [len(m) for m in maxima]).tolist():
        maxima[i] += [float(arrays.blocks[rows[i], block % BLOCKS]) for block in range(len(maxima[i]), int(filled[i]))]


def _settle(arrays: Columns) -> None:
    """Let what waits for its delay enter the tails: nothing after the history can be excused by it."""
    tail, pending = flat(arrays.tail), flat(arrays.pending)
    every = np.arange(len(tail))
    for block in (0, 1):
        tails.enter(tail, pending, every, np.full(len(every), block, np.int32))
