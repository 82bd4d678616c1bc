"""A partition that falls silent: one alert instead of a gap for each of its sensors.

Who is silent together is read off when each silence became a gap, `last + limit`, not off when a tick noticed it. Of
those that became gaps within two of a sensor's own limits before it, the first are gaps of their own; from the sensor
on that makes them more than the allowed share of those that were still speaking then, they are one alert. So it does
not matter at which ticks the partition was looked at: readings that come in between only leave fewer of them silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Resolution, Severity, State, alert_id
from pipeline.core.events import Covered, Tick
from pipeline.core.readings import BoolArray, IntArray
from pipeline.core.table import NEVER

SHARE = 0.2  # of a partition's sensors
RELEASE = 0.5  # of that share: so few are silent when the alert ends
FEWEST = 2  # one sensor is not silent together with itself
TOGETHER = 2  # times a sensor's limit: gaps that began so shortly before its own belong together
NOBODY = ModelRef("", "", "")  # no model speaks for a partition


class Silences(NamedTuple):
    """The sensors of a partition as they are before a tick, one row each."""

    last: IntArray  # (n,) µs, event time of the last reading
    limit: IntArray  # (n,) µs, a longer silence is a gap
    told: BoolArray  # (n,) a gap alert of its own is open
    offsets: IntArray  # (n,) of the last reading

    @classmethod
    def of(cls, parts: Iterable[Silences]) -> Silences:
        """Those of several groups."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def late(self, time: int) -> BoolArray:
        """Whose silence is a gap by `time` (µs), (n,)."""
        late: BoolArray = time - self.last > self.limit
        return late


class Outage(NamedTuple):
    """An open `input-silent` alert as it was last told, and what it covers."""

    start: int  # µs: the last reading before it
    until: int  # µs: silences that began by then are part of it
    told: int  # µs
    silent: int
    sensors: int
    first_offset: int
    last_offset: int


class InputWatch:
    """Which partitions are silent. What is decided depends on the tick and on the partition's own sensors alone."""

    def __init__(self, share: float = SHARE) -> None:
        """`share` of a partition's sensors that may be silent together; with 1, no partition is ever called silent."""
        self._share = share
        self._outages: dict[int, Outage] = {}

    def judge(self, partition: int, time: int, found: Silences) -> tuple[Tick, list[Alert]]:
        """The tick for the detectors at event time `time` (µs), and what is to be said of the partition itself."""
        outage = self._outages.get(partition)
        if outage is None:
            return self._opened(partition, time, found, found.late(time))
        time = max(time, outage.until)  # a backlog that comes first is behind what the wait has shown
        late = found.late(time)
        silent = late & ~found.told
        covered = int((silent & (found.last <= outage.until)).sum())
        if covered <= RELEASE * self._share * (covered + int((~late).sum())):
            del self._outages[partition]
            return Tick(partition, time), [self._alert(partition, self._seen(outage, time, found, covered, late), 2)]
        since = late & (found.last > outage.until)
        if self._tipping(found, since, since & ~found.told) is not None:
            outage = self._outages[partition] = outage._replace(until=time)
        return Tick(partition, time, Covered(NEVER, outage.until)), []

    def outage(self, partition: int) -> Outage | None:
        """What is open there."""
        return self._outages.get(partition)

    def restore(self, partition: int, outage: Outage | None) -> Tick:
        """Go on with what was open; the tick tells the detectors, and notices nobody."""
        self.drop(partition)
        if outage is None:
            return Tick(partition, NEVER)
        self._outages[partition] = outage
        return Tick(partition, NEVER, Covered(NEVER, outage.until))

    def drop(self, partition: int) -> None:
        """Let a partition go."""
        self._outages.pop(partition, None)

    def open_alerts(self) -> list[Alert]:
        """Every partition that is silent now."""
        return [self._alert(partition, outage, 1) for partition, outage in sorted(self._outages.items())]

    def _opened(self, partition: int, time: int, found: Silences, late: BoolArray) -> tuple[Tick, list[Alert]]:
        tipped = self._tipping(found, late, late & ~found.told)
        if tipped is None:
            return Tick(partition, time), []
        became, since = tipped
        together = late & (found.last + found.limit >= since)
        before = together & (found.last + found.limit <= became)
        bare = Outage(int(found.last[before].max()), time, time, 0, 0, int(found.offsets[before].min()), -1)
        outage = self._outages[partition] = self._seen(bare, time, found, int(together.sum()), late)
        return Tick(partition, time, Covered(became, time)), [self._alert(partition, outage, 1)]

    def _tipping(self, found: Silences, late: BoolArray, candidates: BoolArray) -> tuple[int, int] | None:
        """When the first of `candidates` with too many silent beside it became a gap, and since when others count."""
        if not candidates.any():
            return None
        became = found.last + found.limit
        every, silent = np.sort(became), np.sort(became[late])
        at = became[candidates]
        since = at - TOGETHER * found.limit[candidates]
        beside = np.searchsorted(silent, at, "right") - np.searchsorted(silent, since, "left")
        speaking = len(every) - np.searchsorted(every, at, "right")
        tipping = np.flatnonzero((beside >= FEWEST) & (beside > self._share * (beside + speaking)))
        if len(tipping) == 0:
            return None
        first = at[tipping].min()
        return int(first), int(since[tipping][at[tipping] == first].min())

    def _seen(self, outage: Outage, time: int, found: Silences, silent: int, late: BoolArray) -> Outage:
        sensors, newest = silent + int((~late).sum()), int(found.offsets.max(initial=-1))
        return outage._replace(told=max(time, outage.start), silent=silent, sensors=sensors, last_offset=newest)

    def _alert(self, partition: int, outage: Outage, revision: int) -> Alert:
        sensor, ended = f"partition-{partition}", revision > 1
        return Alert(
            alert_id=alert_id(sensor, Kind.INPUT_SILENT, "", outage.start),
            revision=revision,
            state=State.RESOLVED if ended else State.FIRING,
            kind=Kind.INPUT_SILENT,
            severity=Severity.WARNING,
            sensor=sensor,
            start=outage.start,
            last=outage.told,
            evidence=Evidence(partition, outage.first_offset, outage.last_offset),
            model=NOBODY,
            end=outage.told if ended else None,
            resolution=Resolution.RETURNED if ended else None,
            measure=100 * outage.silent / outage.sensors if outage.sensors else 0.0,
            limit=100 * self._share,
            unit="%",
            detection_delay_ms=None if ended else (outage.told - outage.start) // 1000,
        )
