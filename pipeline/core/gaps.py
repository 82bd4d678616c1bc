"""Who is silent: noticed by a tick, or by the reading that ends it, and either way told as the same gap."""

from __future__ import annotations

import numpy as np

from pipeline.core import reorder
from pipeline.core.alerts import Alert
from pipeline.core.events import Tick
from pipeline.core.readings import BoolArray, IntArray
from pipeline.core.reporting import Reporter
from pipeline.core.rounds import Rows
from pipeline.core.silence import Silences
from pipeline.core.table import NEVER, Clock, SensorTable


class Gaps:
    """The silences of a table's sensors, and of whole partitions, in which those of their sensors are no gaps."""

    def __init__(self, table: SensorTable) -> None:
        self._table = table
        self._covered: dict[int, Tick] = {}  # the newest of a partition that is silent itself

    def notice(self, tick: Tick, reporter: Reporter) -> list[Alert]:
        """Tell of the sensors of a partition that have been silent for longer than is usual for them."""
        self._covered.pop(tick.partition, None)
        if tick.covered is not None:
            self._covered[tick.partition] = tick
        clock = self._table.arrays.clock
        rows = np.flatnonzero(self._table.partition == tick.partition)
        newest = reorder.newest(self._table.arrays, rows)
        rows = rows[(newest != NEVER) & (clock[rows, Clock.GAP_FROM] == NEVER)]
        last, limit = reorder.heard(self._table.arrays, rows), clock[rows, Clock.GAP_LIMIT]
        silent = tick.time - last > limit
        if tick.covered is not None:
            silent &= (last + limit < tick.covered.since) | (last > tick.covered.until)
        rows = self._table.by_name(rows[silent])
        clock[rows, Clock.GAP_FROM] = reorder.newest(self._table.arrays, rows)
        return [reporter.gap(int(row), int(clock[row, Clock.GAP_FROM]), tick.time) for row in rows]

    def are_covered(self, partitions: IntArray, last: IntArray) -> BoolArray:
        """Whether a silence since `last` (µs) is part of one of its partition, (n,)."""
        covered = np.zeros(len(partitions), np.bool_)
        for partition, tick in self._covered.items():
            if tick.covered is not None:
                covered |= (partitions == partition) & (last <= tick.covered.until)
        return covered

    def of(self, partition: int) -> Silences:
        """Who has been silent for how long there."""
        rows = np.flatnonzero(self._table.partition == partition)
        rows = rows[reorder.newest(self._table.arrays, rows) != NEVER]
        clock, last = self._table.arrays.clock[rows], reorder.heard(self._table.arrays, rows)
        return Silences(last, clock[:, Clock.GAP_LIMIT], clock[:, Clock.GAP_FROM] != NEVER, clock[:, Clock.OFFSET])

    def silent(self, rows: Rows) -> BoolArray:
        """Whether a gap is open, or that of the partition, (n,)."""
        clock = self._table.arrays.clock[rows]
        silent: BoolArray = clock[:, Clock.GAP_FROM] != NEVER
        for partition, tick in self._covered.items():
            silent |= (self._table.partition[rows] == partition) & (
                tick.time - reorder.newest(self._table.arrays, rows) > clock[:, Clock.GAP_LIMIT]
            )
        return silent

    def drop(self, partition: int) -> None:
        """Let a partition go."""
        self._covered.pop(partition, None)
