"""Readings in stream order, one after another: all that a round does with a reading that is nothing special.

What a reading is follows from it and from its sensor's state, never from what stands beside it: how a stream is cut
changes nothing. One that is special, or that an alert would tell of, is left as if it had not come, for a round to
take, and so are those of its sensor that follow it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba.core import types

from pipeline.core.alerting import OPEN
from pipeline.core.engine import LARGEST_FORECAST, SETTLING, SETTLING_SCORE
from pipeline.core.novelty import MEMORY_DELAY
from pipeline.core.readings import NO_SEQ, BoolArray, FloatArray, IntArray
from pipeline.core.scaling import LARGEST_RAW, LARGEST_SCALED
from pipeline.core.table import FEATURES, MARK_BITS, UNSEEN
from pipeline.core.tails import BLOCK_ROWS
from pipeline.fast import ahead, episode, lanes, network, ordinary, tails
from pipeline.fast.compile import compiled, kept
from pipeline.fast.state import (
    BACK,
    CORRECTION,
    FILLED,
    FITTED,
    LAST,
    LEARN_FROM,
    LEARNED,
    LOG_ERROR,
    MOVED,
    NETWORK,
    OFFSET,
    RUN,
    SCORE,
    SEEN,
    SEQ,
    SEQ_SEEN,
    SINCE,
    STATE,
    STEP,
    STEPPED,
    Batch,
    Net,
    Said,
    Scoring,
    Scratch,
    Table,
    net_at,
    scoring_at,
    scratch_at,
    table_at,
)  # fmt: skip

AHEAD = 4  # readings: how long memory is given
ZERO, ONE = np.float32(0), np.float32(1)
LEAST_STEPPED, WIDEST = np.float32(1e-9), float(LARGEST_SCALED)


@compiled
def pace(
    table: Table, batch: Batch, said: Said, net: Net, scoring: Scoring, scratch: Scratch, threshold: float,
    max_future: int, todo: npt.NDArray[np.intp], waiting: BoolArray, first: npt.NDArray[np.intp],
    rest: npt.NDArray[np.intp],
) -> tuple[int, int, int]:  # fmt: skip
    """As `walk`, which is compiled last: what it calls has to be there."""
    firsts, others, n = 0, 0, len(todo)
    for i in range(min(n, 2 * AHEAD)):
        ahead.counts(table, batch.rows[todo[i]])
    for i in range(min(n, AHEAD)):
        ahead.rest(table, batch.rows[todo[i]])
    for i in range(n):
        at = todo[i]
        row = batch.rows[at]
        if i + 2 * AHEAD < n:
            ahead.counts(table, batch.rows[todo[i + 2 * AHEAD]])
        if i + AHEAD < n:
            ahead.rest(table, batch.rows[todo[i + AHEAD]])
        if waiting[row]:
            rest[others] = at
            others += 1
        elif not (
            ordinary.next_in_time(table, batch, row, at, max_future)
            and take_in(table, batch, said, net, scoring, scratch, threshold, row, at)
        ):
            waiting[row] = True
            first[firsts] = at
            firsts += 1
    for i in range(firsts):
        waiting[batch.rows[first[i]]] = False
    return len(todo) - firsts - others, firsts, others


@compiled
def take_in(
    table: Table, batch: Batch, said: Said, net: Net, scoring: Scoring, scratch: Scratch, threshold: float, row: int,
    at: int,
) -> bool:  # fmt: skip
    """Score and learn the reading; False, with nothing changed, where an alert would tell of it."""
    time, since = batch.times[at], table.counts[row, SINCE]
    news = time >= table.clock[row, LEARN_FROM]
    if not ordinary.steady(table, batch, net, row, at, news):
        return False
    read(table, batch, net, row, at, scratch)
    surprise = surprised(table, net, scoring, row, scratch)
    score = episode.score(surprise, table.level[row])
    if since < SETTLING or not news:
        score = min(score, SETTLING_SCORE)
    score = float(np.float32(score))
    watched = news and since >= SETTLING
    if watched and not episode.goes_on(table, row, score, time, threshold):
        return False
    said.scores[at] = score
    for t in range(len(net.targets)):
        location, scale = table.scale[row, net.targets[t], 0], table.scale[row, net.targets[t], 1]
        said.expected[at, t] = float(scratch.expected[t]) * scale + location if scratch.made[0] else np.nan
        said.band[at, t] = float(np.exp(table.lane[row, t, LOG_ERROR])) * scale
    learn(table, batch, net, row, at, news, surprise, scratch)
    table.level[row, SCORE] = score
    if watched:
        episode.move(table, row, score, threshold)
    said.alerting[at], said.imputed[at] = table.counts[row, STATE] == OPEN, table.counts[row, FILLED]
    return True


@compiled
def read(table: Table, batch: Batch, net: Net, row: int, at: int, scratch: Scratch) -> None:
    """The scaled values, those before, and the errors of the forecasts for now."""
    seen, since, window = int(table.counts[row, SEEN]), table.counts[row, SINCE], table.window.shape[1]
    for c in range(len(scratch.x)):
        raw = min(max(batch.values[at, c], -LARGEST_RAW), LARGEST_RAW)
        x = (raw - table.scale[row, c, 0]) / table.scale[row, c, 1]
        scratch.x[c] = np.float32(min(max(x, -WIDEST), WIDEST))
        scratch.before[c] = table.window[row, (seen - 1) % window, c]
    for h in range(len(net.horizons)):
        scratch.made[h] = since >= net.horizons[h]
    for t in range(len(net.targets)):
        c = net.targets[t]
        old = (seen - MEMORY_DELAY) % window
        scratch.then[t] = table.window[row, old, c]
        filled = table.counts[row, FILLED] > 0 and marked(table.filled[row, t], old)
        scratch.came[t] = seen >= MEMORY_DELAY and not filled
        for k in range(scratch.lane.shape[1]):
            scratch.lane[t, k] = table.lane[row, t, k]
        for h in range(len(net.horizons)):
            z = table.forecast[row, t, net.slots[h] + seen % net.horizons[h]]
            forecast = np.sinh(min(max(z, -LARGEST_FORECAST), LARGEST_FORECAST))
            if h == 0:
                forecast += scratch.lane[t, CORRECTION]
                scratch.expected[t] = forecast
            scratch.errors[h, t] = scratch.x[c] - forecast


@compiled
def marked(words: npt.NDArray[np.uint32], slot: int) -> bool:
    """Whether the value at this place of the window never came; `words` (words,)."""
    return bool((words[slot // MARK_BITS] >> np.uint32(slot % MARK_BITS)) & np.uint32(1) != 0)


@compiled
def surprised(table: Table, net: Net, scoring: Scoring, row: int, scratch: Scratch) -> np.float32:
    """The combined surprise: features of each channel, how rare they are, the mean and the loudest."""
    unseen, targets, seen = table.counts[row, FITTED] == UNSEEN, len(net.targets), int(table.counts[row, SEEN])
    total, loudest, weights = ZERO, ZERO, scoring.unseen if unseen else scoring.usual
    for t in range(targets):
        x, before = scratch.x[net.targets[t]], scratch.before[net.targets[t]]
        if unseen and scratch.made[0]:
            lanes.earn(scratch.lane[t], x, before)
        lanes.look(table, row, t, x, scratch.then[t], seen, unseen, scratch)
        voice = ZERO
        for f in range(FEATURES):
            value = scratch.features[f, t]
            where = tails.tail_bin(value)
            scratch.where[f, t] = where
            voice += weights[f] * tails.surprise(table.tail[row, t, f], value, where, targets, scoring)
        total += voice
        loudest = max(loudest, voice)
    loud = scoring.loud[1] if unseen else scoring.loud[0]
    return np.float32((ONE - loud) * total / np.float32(targets) + loud * loudest)


@compiled
def learn(
    table: Table, batch: Batch, net: Net, row: int, at: int, news: bool, surprise: np.float32, scratch: Scratch
) -> None:
    """Everything that the reading changes but the episode."""
    clock, count = table.clock[row], table.counts[row]
    seen, learned, targets = int(count[SEEN]), int(count[LEARNED]), len(net.targets)
    for t in range(targets):
        lanes.keep(table, row, t, scratch.then[t], seen, scratch)
    if news:
        if learned % BLOCK_ROWS == 0:
            tails.enter(table.tail[row], table.pending[row], learned)
        block = learned // BLOCK_ROWS % 2
        for t in range(targets):
            for f in range(FEATURES):
                table.pending[row, t, block, f, scratch.where[f, t]] += np.uint8(1)
        episode.learn(table.level[row], table.blocks[row], surprise, learned, targets, scratch.blocks)
        count[LEARNED] += 1
    forecast(table, net, row, seen, scratch)
    measure(table, batch, net, row, at)
    remember(table, batch, row, at, seen % table.window.shape[1], scratch)
    count[SEEN] += 1
    count[SINCE] += 1
    clock[LAST] = batch.times[at]
    clock[OFFSET] = batch.offsets[at]
    if len(batch.seqs) > 0 and batch.seqs[at] != NO_SEQ:
        clock[SEQ_SEEN] = clock[SEQ_SEEN] << (batch.seqs[at] - clock[SEQ]) | 1
        clock[SEQ] = batch.seqs[at]


@compiled
def remember(table: Table, batch: Batch, row: int, at: int, slot: int, scratch: Scratch) -> None:
    """Put the values into their place of the window; what never came leaves it there."""
    for c in range(len(scratch.x)):
        table.window[row, slot, c] = scratch.x[c]
        table.raw[row, c] = batch.values[at, c]
    if table.counts[row, FILLED] == 0:
        return
    for t in range(len(table.filled[row])):
        if marked(table.filled[row, t], slot):
            table.filled[row, t, slot // MARK_BITS] &= ~(np.uint32(1) << np.uint32(slot % MARK_BITS))
            table.counts[row, FILLED] -= 1


@compiled
def forecast(table: Table, net: Net, row: int, seen: int, scratch: Scratch) -> None:
    """What the network expects from here, as far as it has come true for a sensor that it was not trained on."""
    targets, unseen = len(net.targets), table.counts[row, FITTED] == UNSEEN
    network.step(net, table.counts[row, NETWORK], table.carried[row], scratch)
    for t in range(targets):
        z, gain = network.squash(scratch.x[net.targets[t]]), ONE
        if unseen:
            lane = table.lane[row, t]
            lane[STEP] = scratch.steps[t]
            gain = min(max(lane[MOVED] / max(lane[STEPPED], LEAST_STEPPED), ZERO), ONE)
        for h in range(len(net.horizons)):
            slot = net.slots[h] + seen % net.horizons[h]
            table.forecast[row, t, slot] = z + scratch.steps[h * targets + t] * gain


@compiled
def measure(table: Table, batch: Batch, net: Net, row: int, at: int) -> None:
    """Repeats and readings within the limits, of which none is to be told."""
    for t in range(len(net.targets)):
        c = net.targets[t]
        raw, tally, bounds = batch.values[at, c], table.tally[row, t], table.bounds[row, t]
        same = raw == table.raw[row, c] and tally[RUN] > 0
        if not same:
            table.since[row, t, 0] = batch.times[at]
        tally[RUN] = tally[RUN] + 1 if same else 1
        tally[BACK] = 0 if raw > bounds[1] or raw < bounds[0] else tally[BACK] + 1


INTEGER, NUMBER = types.int64, types.float64
ADDRESSES, TIMES, NUMBERS, FLAGS = INTEGER[:, ::1], INTEGER[::1], NUMBER[:, ::1], types.boolean[::1]


@kept(
    ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES, NUMBER, INTEGER, TIMES, TIMES, NUMBERS, FLAGS, TIMES, TIMES, TIMES,
    NUMBER[::1], FLAGS, NUMBERS, NUMBERS, TIMES, TIMES, FLAGS, INTEGER[:, ::1],
)  # fmt: skip
def walk(
    table: IntArray, net: IntArray, scoring: IntArray, scratch: IntArray, threshold: float, max_future: int,
    rows: npt.NDArray[np.intp], times: IntArray, values: FloatArray, usable: BoolArray, offsets: IntArray,
    received: IntArray, seqs: IntArray, scores: FloatArray, alerting: BoolArray, expected: FloatArray,
    band: FloatArray, imputed: IntArray, todo: npt.NDArray[np.intp], waiting: BoolArray, left: npt.NDArray[np.intp],
) -> tuple[int, int, int]:  # fmt: skip
    """Take in the readings at positions `todo`. The positions that are `left`: a row for the first of each sensor, and
    one for those that wait for it. Returns how many were taken in, and how many are in each of the two.

    The first four are `addresses`; `waiting` (rows of the table,) is false before and after.
    """
    return pace(
        table_at(table), Batch(rows, times, values, usable, offsets, received, seqs),
        Said(scores, alerting, expected, band, imputed), net_at(net), scoring_at(scoring), scratch_at(scratch),
        threshold, max_future, todo, waiting, left[0], left[1],
    )  # fmt: skip
