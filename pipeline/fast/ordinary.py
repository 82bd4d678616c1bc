"""Which readings the compiled form takes in: those of which nothing but a score is to be said. Others go to rounds."""

from __future__ import annotations

import numpy as np

from pipeline.core.quality import BACK_READINGS, LATE_STEP
from pipeline.core.readings import NO_SEQ, IntArray
from pipeline.core.sequence import SPAN
from pipeline.core.table import NEVER, UNFITTED
from pipeline.fast.compile import compiled
from pipeline.fast.state import (
    ASTRAY,
    BACK,
    BELIEVED_OFFSET,
    BEYOND,
    FITTED,
    GAP_FROM,
    GAP_LIMIT,
    LAST,
    MISSED,
    RUN,
    SEEN,
    SEQ,
    SEQ_SEEN,
    SET_BACK,
    STUCK,
    STUCK_LIMIT,
    USUAL_STEP,
    WRONG_CLOCK,
    Batch,
    Net,
    Table,
)  # fmt: skip


@compiled
def next_in_time(table: Table, batch: Batch, row: int, at: int, max_future: int) -> bool:
    """Whether this form may take the reading in: a whole reading, next in time, of a sensor that is being scored."""
    clock, count = table.clock[row], table.counts[row]
    time, received, last = batch.times[at], batch.received[at], clock[LAST]
    if count[FITTED] == UNFITTED or count[SEEN] == 0 or last == NEVER:
        return False
    if count[ASTRAY] != 0 or count[WRONG_CLOCK] != 0 or clock[SET_BACK] != 0 or clock[GAP_FROM] != NEVER:
        return False
    if time <= last or time - last > clock[GAP_LIMIT] or (received > 0 and time > received + max_future):
        return False
    if not batch.usable[at] or batch.offsets[at] < clock[BELIEVED_OFFSET] or not numbered_on(clock, batch, at):
        return False
    if time - last > LATE_STEP * clock[USUAL_STEP]:
        return False
    for t in range(table.tally.shape[1]):
        if table.tally[row, t, MISSED] != 0:
            return False
    for c in range(batch.values.shape[1]):  # noqa: SIM110 - compiled, a generator costs more
        if not np.isfinite(batch.values[at, c]):
            return False
    return True


@compiled
def numbered_on(clock: IntArray, batch: Batch, at: int) -> bool:
    """Whether the reading has no number, or one that follows soon after the newest of its sensor."""
    if len(batch.seqs) == 0 or batch.seqs[at] == NO_SEQ:
        return True
    return bool(clock[SEQ_SEEN] != 0 and 0 < batch.seqs[at] - clock[SEQ] < SPAN)


@compiled
def steady(table: Table, batch: Batch, net: Net, row: int, at: int, news: bool) -> bool:
    """Whether no stuck value and no crossed limit begins or ends with this reading."""
    for t in range(len(net.targets)):
        c = net.targets[t]
        raw, tally, bounds = batch.values[at, c], table.tally[row, t], table.bounds[row, t]
        run, limit = tally[RUN], tally[STUCK_LIMIT]
        same = raw == table.raw[row, c] and run > 0
        if tally[STUCK] == 1:
            if not same:
                return False
        elif news and limit > 0 and (run + 1 if same else 1) >= limit:
            return False
        outside = raw > bounds[1] or raw < bounds[0]
        if tally[BEYOND] == 0:
            if outside:
                return False
        elif not outside and tally[BACK] + 1 >= BACK_READINGS:
            return False
    return True
