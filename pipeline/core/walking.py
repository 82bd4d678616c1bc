"""What takes in ordinary readings one after another, in a compiled form that is no part of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from pipeline.core.events import Outcome
from pipeline.core.model import Model
from pipeline.core.readings import ReadingBatch
from pipeline.core.rounds import Rows, rounds
from pipeline.core.scoring import Weights
from pipeline.core.table import Columns


class Walker(Protocol):
    """Takes in the readings that nothing is to be said of, whatever stands beside them, as a round would.

    Which readings these are follows from each and from its sensor's state alone; so does every bit that they change.
    """

    def walk(self, arrays: Columns, batch: ReadingBatch, rows: Rows, todo: Rows, out: Outcome) -> tuple[Rows, Rows]:
        """Go through positions `todo`, in stream order, and return those that are left; `rows` is one a position.

        First the one of each sensor that is not ordinary, for a round to take; then those of its sensor that follow it.
        """


Walkers = Callable[[Model, Weights, float, int], Walker | None]
"""For a model, what its features count, a threshold, and how far a reading may lie ahead (µs): what walks there."""


def steps(
    walker: Walker | None, arrays: Columns, batch: ReadingBatch, rows: Rows, todo: Rows, out: Outcome
) -> Iterator[Rows]:
    """Positions, in rounds, of the readings that rounds are to take: all, or those that a walker leaves, one by one.

    `rows` is one for each position of the batch, `todo` the positions to go through.
    """
    if walker is None:
        for at in rounds(rows[todo]):
            yield todo[at]
        return
    while len(todo):
        at, todo = walker.walk(arrays, batch, rows, todo, out)
        if len(at):
            yield at
