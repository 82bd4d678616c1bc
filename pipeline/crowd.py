"""Says in the log, at most once a minute, who was evicted and who comes from two partitions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

from pipeline.groups import Stepped

PAUSE_SECONDS = 60.0
MOST_NAMES = 5

log = structlog.get_logger(__name__)


class Crowd:
    """Gathers what turns bring until it is time to say it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._due = clock, 0.0
        self._evicted: Counter[str] = Counter()
        self._split: list[str] = []
        self._splits = 0

    def turned(self, stepped: Stepped) -> None:
        """What a turn brought."""
        self._evicted.update(stepped.evicted)
        self._splits += len(stepped.split)
        self._split += stepped.split[: MOST_NAMES - len(self._split)]
        if self._clock() < self._due or not (self._evicted or self._splits):
            return
        self._due = self._clock() + PAUSE_SECONDS
        if self._evicted:
            log.warning(
                "sensors evicted", groups=dict(self._evicted), effect="who speaks again begins anew",
                remedy="raise detection.max_sensors_per_partition, or stop whoever invents names",
            )  # fmt: skip
        if self._splits:
            log.warning(
                "sensors in two partitions", count=self._splits, some=self._split,
                effect="each part is followed by itself", remedy="key by sensor, hashed with murmur2",
            )  # fmt: skip
        self._evicted.clear()
        self._split, self._splits = [], 0
