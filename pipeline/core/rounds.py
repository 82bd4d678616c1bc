"""A batch cut into rounds, so that all sensors move at once and the readings of each keep their order.

A compiled form may take in what is ordinary, one reading after another, and leave the rest to rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.readings import BoolArray, FloatArray, IntArray, ReadingBatch

Rows = npt.NDArray[np.intp]


class Round(NamedTuple):
    """At most one reading of each sensor, as columns (n,): where its state and its outcome stand, and what it says."""

    rows: Rows  # of the table
    at: Rows  # positions in the batch
    partitions: IntArray
    offsets: IntArray
    times: IntArray  # µs UTC
    received: IntArray  # µs UTC, 0 where event time is not bounded
    usable: BoolArray
    values: FloatArray  # (n, channels)
    seqs: IntArray | None  # NO_SEQ where there is none; None where no reading has one

    @classmethod
    def of(cls, batch: ReadingBatch, rows: Rows, at: Rows) -> Round:
        """The readings at positions `at`, whose sensors' rows of the table are `rows`."""
        return cls(
            rows, at, batch.partitions[at], batch.offsets[at], batch.times[at], batch.received[at], batch.usable[at],
            batch.values[at], None if batch.seqs is None else batch.seqs[at],
        )  # fmt: skip

    def only(self, chosen: BoolArray) -> Round:
        """Those of them where `chosen`."""
        if chosen.all():
            return self
        return Round(
            self.rows[chosen], self.at[chosen], self.partitions[chosen], self.offsets[chosen], self.times[chosen],
            self.received[chosen], self.usable[chosen], self.values[chosen],
            None if self.seqs is None else self.seqs[chosen],
        )  # fmt: skip


def rounds(rows: Rows) -> Iterator[Rows]:
    """Positions in stream order, cut so that each cut holds a row at most once and a row's positions stay in order."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = (
        np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(rows) else np.empty(0, np.intp)
    )
    lengths = np.diff(np.concatenate([starts, [len(rows)]]))
    if len(rows) and lengths.max() == 1:
        yield np.arange(len(rows))
        return
    occurrence = np.empty(len(rows), np.intp)
    occurrence[order] = np.arange(len(rows)) - np.repeat(starts, lengths)
    by_round = np.argsort(occurrence, kind="stable")
    for start, stop in zip(*_edges(occurrence[by_round]), strict=True):
        yield by_round[start:stop]


def _edges(ordered: Rows) -> tuple[list[int], list[int]]:
    if len(ordered) == 0:
        return [], []
    cuts = (np.flatnonzero(np.diff(ordered)) + 1).tolist()
    return [0, *cuts], [*cuts, len(ordered)]
