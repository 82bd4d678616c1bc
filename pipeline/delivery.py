"""Outputs on their way out: gathered turn by turn, handed over with the positions, kept until both are committed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from pipeline.core.alerts import State
from pipeline.ports import Outputs, Position, Sink

BREATH_SECONDS = 0.1  # between two commits at least, whatever there is to say: ten a second


class Delivery:
    """What waits for the next commit, and when that is due.

    A commit comes every `commit_seconds`, and at once (but for a breath) where an alert opened or resolved.
    """

    def __init__(self, sink: Sink, commit_seconds: float) -> None:
        self._sink, self._commit_seconds = sink, commit_seconds
        self._waiting = Outputs()
        self._oldest = math.inf  # µs, timestamp of the oldest record since the last commit
        self._tried = -math.inf  # monotonic s, when a commit was last tried
        self.failures = 0  # in a row

    def add(self, outputs: Outputs, oldest: float = math.inf) -> None:
        """Take in what a turn has to say, and the timestamp (µs) of its oldest record."""
        self._waiting += outputs
        self._oldest = min(self._oldest, oldest)

    def forget(self, partitions: AbstractSet[int]) -> None:
        """These partitions are another member's, who will say the same."""
        self._waiting = self._waiting.without(partitions)

    def due_in(self, now: float) -> float:
        """Seconds until the next commit is due; 0 or less where it is."""
        urgent = any(alert.state is not State.UPDATE for alert in self._waiting.alerts)
        pause = min(BREATH_SECONDS, self._commit_seconds) if urgent else self._commit_seconds
        return self._tried + pause - now

    def commit(self, done: Mapping[int, Position], now: float) -> tuple[Outputs, float] | None:
        """Hand everything over; what it was and its oldest timestamp (µs), or None where nothing of it is committed."""
        self._tried = now
        if not self._sink.deliver(self._waiting, done):
            self.failures += 1
            return None
        self.failures = 0
        delivered, oldest = self._waiting, self._oldest
        self._waiting, self._oldest = Outputs(), math.inf
        return delivered, oldest
