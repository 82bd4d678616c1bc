"""Which sensors of a partition have a row, and who makes room for a new one: the one that was not seen for longest.

The cap is one partition's, for what another partition does must not change an alert here. What is evicted, and when,
is what it would be if the readings came one by one: a batch is taken up to the first reading whose place cannot be
known before those in front of it have been read. A reading that is refused, since it is ahead of its record, makes room
for nobody: its sensor has a row only if it had one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.core.names import coded
from pipeline.core.readings import BoolArray, IntArray, ReadingBatch
from pipeline.core.rounds import Rows
from pipeline.core.table import Clock, SensorTable

NOWHERE = -1

Evict = Callable[[int, int], None]  # row, position of the reading that needs it


class Places:
    """Gives the sensors of a batch their rows."""

    def __init__(self, table: SensorTable, most: int | None) -> None:
        """`most` sensors of one partition; None: as many as come."""
        self._table, self._most = table, most
        self._removed: dict[int, int] = {}  # partition -> offset: who is unknown and was read before it, was removed

    def take(self, batch: ReadingBatch, ahead: BoolArray, begin: int, evict: Evict) -> tuple[Rows, list[int]]:
        """Rows of the readings from `begin` on, as many as have one now, and those among them that are new.

        NOWHERE for a reading that is delivered again though its sensor was removed since, and for one of an unknown
        sensor that is `ahead` (n,) of its record. `evict` has to remove a row.
        """
        if self._all_fit(batch):
            return self._located(batch, ahead)
        names, partitions, offsets = list(batch.sensors), batch.partitions.tolist(), batch.offsets.tolist()
        index, touched, rows, made = self._table.index, set[int](), list[int](), list[int]()
        victims: dict[int, list[int]] = {}  # partition -> who is next to go, in reverse
        for at in range(begin, len(batch)):
            name, partition = names[at], partitions[at]
            here = index.setdefault(partition, {})
            row = here.get(name)
            if row is None:
                if ahead[at] or offsets[at] < self._removed.get(partition, -1):
                    rows.append(NOWHERE)
                    continue
                if self._most is not None and len(here) >= self._most:
                    if partition not in victims:
                        victims[partition] = self._longest_unseen(partition, len(batch) - at)
                    if not victims[partition] or victims[partition][-1] in touched:
                        break  # only once these have been read is it known who was seen last
                    evict(victims[partition].pop(), at)
                    self.removed(partition, offsets[at])
                row = self._table.claim(name, partition)
                made.append(row)
            touched.add(row)
            rows.append(row)
        return np.array(rows, np.intp), made

    def _located(self, batch: ReadingBatch, ahead: BoolArray) -> tuple[Rows, list[int]]:
        if not ahead.any():
            return self._table.locate(batch.sensors, batch.partitions)
        names, rows = coded(batch.sensors), np.full(len(batch), NOWHERE, np.intp)
        rows[~ahead], made = self._table.locate(names.take(~ahead), batch.partitions[~ahead])
        for at in np.flatnonzero(ahead).tolist():  # one that stands before its sensor's first finds a blank row
            rows[at] = self._table.index.get(int(batch.partitions[at]), {}).get(names[at], NOWHERE)
        return rows, made

    def _all_fit(self, batch: ReadingBatch) -> bool:
        if self._removed:
            return False
        fullest = max(map(len, self._table.index.values()), default=0)
        return self._most is None or fullest + len(batch) <= self._most

    def removed(self, partition: int, offset: int) -> None:
        """A sensor was removed by what stands at `offset`: its readings before that may be delivered again."""
        self._removed[partition] = max(offset, self._removed.get(partition, -1))

    def drop(self, partition: int) -> None:
        """Let a partition go."""
        self._removed.pop(partition, None)

    def _longest_unseen(self, partition: int, wanted: int) -> list[int]:
        """Those whose last reading stands first in the topic, so many at least; the very first comes last."""
        rows = np.flatnonzero(self._table.partition == partition)
        offsets: IntArray = self._table.arrays.clock[rows, Clock.OFFSET]
        if wanted < len(rows):
            few = offsets <= np.partition(offsets, wanted - 1)[wanted - 1]
            rows, offsets = rows[few], offsets[few]
        names = self._table.names
        order = sorted(
            zip(offsets.tolist(), rows.tolist(), strict=True), key=lambda o: (o[0], names[o[1]]), reverse=True
        )
        return [row for _, row in order]
