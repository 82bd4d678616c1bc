"""A batch cut into rounds, so that all sensors move at once and the readings of each keep their order.

A compiled form may take in what is ordinary, one reading after another, and leave the rest to rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.core.events import Outcome
from pipeline.core.model import Model
from pipeline.core.readings import ReadingBatch
from pipeline.core.scoring import Weights
from pipeline.core.table import Columns

Rows = npt.NDArray[np.intp]


class Walker(Protocol):
    """Takes in the readings that nothing is to be said of, whatever stands beside them, as a round would.

    Which readings these are follows from each and from its sensor's state alone; so does every bit that they change.
    """

    def walk(self, arrays: Columns, batch: ReadingBatch, rows: Rows, todo: Rows, out: Outcome) -> tuple[Rows, Rows]:
        """Go through positions `todo`, in stream order, and return those that are left.

        First the one of each sensor that is not ordinary, for a round to take; then those of its sensor that follow it.
        """


Walkers = Callable[[Model, Weights, float, int], Walker | None]
"""For a model, what its features count, a threshold, and how far a reading may lie ahead (µs): what walks there."""


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
