"""The compiled walk in the detector's hands: which models it serves, and what it is handed."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import tails
from pipeline.core.events import Outcome
from pipeline.core.lstm import halved
from pipeline.core.model import Model
from pipeline.core.readings import ReadingBatch
from pipeline.core.rounds import Rows
from pipeline.core.scoring import Weights
from pipeline.core.table import Columns, Scalar
from pipeline.fast.addresses import addresses
from pipeline.fast.state import Net, Scoring, scratch
from pipeline.fast.walk import walk

UNNUMBERED = np.empty(0, np.int64)
COLUMNS = attrgetter(*(field.name for field in fields(Columns)))


def serves(model: Model) -> bool:
    """Whether there is a compiled form: one LSTM layer whose state is carried. The others are stepped in rounds."""
    network = model.network
    return network.cell == "lstm" and network.mode == "carried" and len(network.layers) == 1


def walker(model: Model, weights: Weights, threshold: float, max_future: int) -> Walk | None:
    """What walks for this model; None where only rounds do."""
    return Walk(model, weights, threshold, max_future) if serves(model) else None


class Walk:
    """Serves one model under one threshold. Owns no state of any sensor."""

    def __init__(self, model: Model, weights: Weights, threshold: float, max_future: int) -> None:
        network, targets = model.network, len(model.targets)
        (layer,) = network.layers
        folded = halved(layer, network.cell)
        horizons = np.array(network.horizons, np.int64)
        net = Net(
            np.array(folded.kernel, np.float32, order="C"),
            np.array(folded.bias[:, 0], np.float32, order="C"),
            np.array(network.head, np.float32, order="C"),
            np.array(network.head_bias[:, 0], np.float32, order="C"),
            horizons,
            np.concatenate([[0], np.cumsum(horizons)[:-1]]).astype(np.int64),
            model.target_columns,
        )
        scoring = Scoring(
            weights.of(targets, unseen=False),
            weights.of(targets, unseen=True),
            np.array([weights.loud(targets, unseen) for unseen in (False, True)], np.float32),
            tails.LOG10,
            tails.EDGES,
            tails.CENTRES,
        )
        self._kept = net, scoring, scratch(model)
        self._net, self._scoring, self._scratch = (addresses(*arrays) for arrays in self._kept)
        self._columns: tuple[npt.NDArray[Any], ...] = (np.empty(0),)
        self._threshold, self._max_future = float(threshold), int(max_future)

    def walk(self, arrays: Columns, batch: ReadingBatch, rows: Rows, todo: Rows, out: Outcome) -> tuple[Rows, Rows]:
        """Take in what is ordinary of the readings at positions `todo`; the positions left, in stream order.

        First those of which a round takes one for each sensor, then those that wait for them.
        """
        if arrays.clock is not self._columns[0]:  # the table has grown: its arrays, all of them, lie elsewhere
            self._columns = COLUMNS(arrays)
            self._table, self._waiting = addresses(*self._columns), np.zeros(len(arrays.clock), np.bool_)
        left = np.empty((2, len(todo)), np.intp)
        taken, firsts, others = walk(
            self._table, self._net, self._scoring, self._scratch, self._threshold, self._max_future,
            rows, whole(batch.times), whole(batch.values), whole(batch.usable), whole(batch.offsets),
            whole(batch.received), UNNUMBERED if batch.seqs is None else whole(batch.seqs),
            out.scores, out.alerting, out.expected, out.band, out.imputed, todo, self._waiting, left,
        )  # fmt: skip
        out.count("scored", taken)
        return left[0, :firsts], left[1, :others]


def whole(column: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """The column as it was compiled for: without gaps, and not marked read-only."""
    fits = column.flags.c_contiguous and column.flags.writeable
    return column if fits else np.array(column, order="C")
