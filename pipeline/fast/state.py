"""What the compiled functions are handed, and the names of its columns: they know no classes of ours but tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.model import Array, Model
from pipeline.core.readings import BoolArray, FloatArray, IntArray
from pipeline.core.table import BLOCKS, FEATURES, Clock, Count, Lane, Level, Tally, layout
from pipeline.fast.addresses import block, cube, matrix, stack, vector
from pipeline.fast.compile import entered

LEARN_FROM, GAP_LIMIT, LAST, OFFSET = Clock.LEARN_FROM, Clock.GAP_LIMIT, Clock.LAST, Clock.OFFSET
UPDATED, GAP_FROM, SET_BACK = Clock.UPDATED, Clock.GAP_FROM, Clock.SET_BACK
BELIEVED_OFFSET, USUAL_STEP, SEQ, SEQ_SEEN = Clock.BELIEVED_OFFSET, Clock.USUAL_STEP, Clock.SEQ, Clock.SEQ_SEEN
NETWORK, FITTED, LEARNED, SEEN, SINCE = Count.NETWORK, Count.FITTED, Count.LEARNED, Count.SEEN, Count.SINCE
HOLD, STATE, BELOW, LENGTH, SEVERITY = Count.HOLD, Count.STATE, Count.BELOW, Count.OPEN, Count.SEVERITY
ASTRAY, WRONG_CLOCK, FILLED = Count.ASTRAY, Count.WRONG_CLOCK, Count.FILLED
USUAL, EXCESS, OWN_USUAL, OWN_EXCESS = Level.USUAL, Level.EXCESS, Level.OWN_USUAL, Level.OWN_EXCESS
OWN_BLOCKS, BLOCK, PEAK, SCORE = Level.OWN_BLOCKS, Level.BLOCK, Level.PEAK, Level.SCORE
LOG_ERROR, LOW, HIGH, MEAN, MEAN_THEN = Lane.LOG_ERROR, Lane.LOW, Lane.HIGH, Lane.MEAN, Lane.MEAN_THEN
BIAS, SCALED, OUTSIDE, LASTING, CORRECTION = Lane.BIAS, Lane.SCALED, Lane.BEYOND, Lane.LASTING, Lane.OFFSET
STEP, MOVED, STEPPED = Lane.STEP, Lane.MOVED, Lane.STEPPED
STUCK_LIMIT, SHOWN, RUN, STUCK = Tally.STUCK_LIMIT, Tally.SEEN, Tally.RUN, Tally.STUCK
NOVEL_BITS, BEYOND, BACK, MISSED = Tally.NOVEL_BITS, Tally.BEYOND, Tally.BACK, Tally.MISSED


class Table(NamedTuple):
    """The arrays of `core.table.Columns`, in their order, but for the readings that wait: they are never ordinary."""

    clock: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int32]
    level: Array
    blocks: Array
    scale: npt.NDArray[np.float64]
    lane: Array
    tally: npt.NDArray[np.int32]
    known: npt.NDArray[np.uint32]
    prototypes: npt.NDArray[np.uint8]
    hits: npt.NDArray[np.uint16]
    tail: npt.NDArray[np.uint16]
    pending: npt.NDArray[np.uint8]
    bounds: npt.NDArray[np.float64]
    since: npt.NDArray[np.int64]
    raw: npt.NDArray[np.float64]
    carried: Array
    window: Array
    filled: npt.NDArray[np.uint32]
    forecast: Array


class Batch(NamedTuple):
    """The readings, and the table's row of each."""

    rows: npt.NDArray[np.intp]  # (n,)
    times: IntArray  # (n,)
    values: FloatArray  # (n, channels)
    usable: BoolArray  # (n,)
    offsets: IntArray  # (n,)
    received: IntArray  # (n,)
    seqs: IntArray  # (n,), or (0,) where no reading has a number


class Said(NamedTuple):
    """The arrays of `core.events.Outcome`."""

    scores: FloatArray  # (n,)
    alerting: BoolArray  # (n,)
    expected: FloatArray  # (n, targets)
    band: FloatArray  # (n, targets)
    imputed: IntArray  # (n,)


class Net(NamedTuple):
    """A network of one LSTM layer: M sets of weights, its sigmoids' inner half folded in."""

    kernel: Array  # (M, inputs + hidden, 4 * hidden)
    bias: Array  # (M, 4 * hidden)
    head: Array  # (M, hidden + inputs, horizons * targets)
    head_bias: Array  # (M, horizons * targets)
    horizons: IntArray  # (horizons,)
    slots: IntArray  # (horizons,) where each horizon's ring begins
    targets: npt.NDArray[np.intp]  # (targets,) their places among the channels


class Scoring(NamedTuple):
    """What a feature counts, and the tables that logarithms are read from."""

    usual: Array  # (FEATURES,) for a sensor that was trained on
    unseen: Array  # (FEATURES,) for one that was not
    loud: Array  # (2,) the share of the loudest channel, for each
    log10: Array  # of a count plus one
    edges: Array
    centres: Array


class Scratch(NamedTuple):
    """What one reading needs until it is certain that this form takes it in."""

    x: Array  # (channels,)
    before: Array  # (channels,) the reading before
    then: Array  # (targets,) MEMORY_DELAY readings ago
    came: BoolArray  # (targets,) that was a value of its own
    lane: Array  # (targets, columns of Lane)
    made: BoolArray  # (horizons,) a forecast for now was made, across no gap
    expected: Array  # (targets,) one step ahead
    errors: Array  # (horizons, targets)
    features: Array  # (FEATURES, targets)
    where: IntArray  # (FEATURES, targets)
    nearest: IntArray  # (2,) prototype, and its distance in steps
    apart: npt.NDArray[np.uint8]  # (prototypes,)
    context: npt.NDArray[np.uint8]  # (4,)
    inputs: Array  # (2 * channels + hidden,)
    gates: Array  # (4 * hidden,)
    steps: Array  # (horizons * targets,)
    blocks: FloatArray  # (BLOCKS,)


def scratch(model: Model) -> Scratch:
    """Room for one reading."""
    fields, channels, targets = layout(model), len(model.channels), len(model.targets)
    horizons, hidden = len(model.network.horizons), model.network.hidden
    return Scratch(
        x=np.empty(channels, np.float32),
        before=np.empty(channels, np.float32),
        then=np.empty(targets, np.float32),
        came=np.empty(targets, np.bool_),
        lane=np.empty(fields["lane"].shape, np.float32),
        made=np.empty(horizons, np.bool_),
        expected=np.empty(targets, np.float32),
        errors=np.empty((horizons, targets), np.float32),
        features=np.empty((FEATURES, targets), np.float32),
        where=np.empty((FEATURES, targets), np.int64),
        nearest=np.empty(2, np.int64),
        apart=np.empty(fields["hits"].shape[1], np.uint8),
        context=np.empty(4, np.uint8),
        inputs=np.empty(2 * channels + hidden, np.float32),
        gates=np.empty(4 * hidden, np.float32),
        steps=np.empty(horizons * targets, np.float32),
        blocks=np.empty(BLOCKS, np.float64),
    )


@entered
def table_at(at: IntArray) -> Table:
    """The table behind `addresses(*Table)`."""
    return Table(
        matrix(at[0], np.int64),
        matrix(at[1], np.int32),
        matrix(at[2], np.float32),
        matrix(at[3], np.float32),
        cube(at[4], np.float64),
        cube(at[5], np.float32),
        cube(at[6], np.int32),
        cube(at[7], np.uint32),
        block(at[8], np.uint8),
        cube(at[9], np.uint16),
        block(at[10], np.uint16),
        stack(at[11], np.uint8),
        cube(at[12], np.float64),
        cube(at[13], np.int64),
        matrix(at[14], np.float64),
        matrix(at[15], np.float32),
        cube(at[16], np.float32),
        cube(at[17], np.uint32),
        cube(at[18], np.float32),
    )


@entered
def net_at(at: IntArray) -> Net:
    """The network behind `addresses(*Net)`."""
    return Net(
        cube(at[0], np.float32),
        matrix(at[1], np.float32),
        cube(at[2], np.float32),
        matrix(at[3], np.float32),
        vector(at[4], np.int64),
        vector(at[5], np.int64),
        vector(at[6], np.int64),
    )


@entered
def scoring_at(at: IntArray) -> Scoring:
    """The scoring behind `addresses(*Scoring)`."""
    return Scoring(
        vector(at[0], np.float32),
        vector(at[1], np.float32),
        vector(at[2], np.float32),
        vector(at[3], np.float32),
        vector(at[4], np.float32),
        vector(at[5], np.float32),
    )


@entered
def scratch_at(at: IntArray) -> Scratch:
    """The scratch behind `addresses(*Scratch)`."""
    return Scratch(
        vector(at[0], np.float32),
        vector(at[1], np.float32),
        vector(at[2], np.float32),
        vector(at[3], np.bool_),
        matrix(at[4], np.float32),
        vector(at[5], np.bool_),
        vector(at[6], np.float32),
        matrix(at[7], np.float32),
        matrix(at[8], np.float32),
        matrix(at[9], np.int64),
        vector(at[10], np.int64),
        vector(at[11], np.uint8),
        vector(at[12], np.uint8),
        vector(at[13], np.float32),
        vector(at[14], np.float32),
        vector(at[15], np.float32),
        vector(at[16], np.float64),
    )
