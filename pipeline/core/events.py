"""What enters the detector and what comes out: ordered events, the rules, and the outcome of one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from pipeline.core.alerts import Alert
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, BoolArray, FloatArray, IntArray, Rejected
from pipeline.core.thresholds import Budget


class Covered(NamedTuple):
    """Silences that are part of one alert on their partition: nothing is told of each."""

    since: int  # µs: those that became gaps from then on,
    until: int  # µs: after a last reading at or before then


@dataclass(frozen=True, slots=True)
class Tick:
    """A partition has been read to its end and its event time has reached `time` (µs): who is silent?"""

    partition: int
    time: int
    covered: Covered | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Swap:
    """From the next reading on, `model` serves the group."""

    model: Model


@dataclass(frozen=True, slots=True)
class Retire:
    """A sensor is gone for good: its open alerts are resolved as retired and its state is dropped.

    One that speaks again begins anew. What stands at `offset` says so; delivered again, it changes nothing.
    """

    sensor: str
    time: int  # µs
    partition: int = 0
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Maintain:
    """Somebody works on a sensor from `time` to `until` (µs): its readings of then that stand behind are not usable.

    It takes the place of what was said of the sensor before.
    """

    sensor: str
    time: int
    until: int
    partition: int = 0
    received: int = 0  # µs, the record's timestamp


Event = Tick | Swap | Retire


@dataclass(frozen=True, slots=True)
class Bound:
    """Physical limits of a channel of every sensor that matches `sensor` (a shell pattern), in the channel's unit."""

    sensor: str
    channel: str
    low: float
    high: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything but the model that can change an alert."""

    budget: Budget = field(default_factory=lambda: Budget.parse("1/10000/sensor"))
    fleet: int | None = None  # sensors a fleet budget is shared by; None: those of the bundle
    max_future: int = 60 * SECOND  # µs a reading's time may lie ahead of its record's timestamp
    bounds: tuple[Bound, ...] = ()
    reorder: int = 0  # later readings of its sensor that a reading waits for, to be put in order
    bridge: int = 4  # missing readings in a row, at most, that the forecast stands in for; 0: none
    most_sensors: int | None = None  # of one partition; a new one evicts the one that was not seen for longest

    def bound(self, sensor: str, channel: str) -> Bound | None:
        """The first bound that matches, as an operator reads a list."""
        return next((b for b in self.bounds if b.channel == channel and fnmatchcase(sensor, b.sensor)), None)


@dataclass(slots=True, eq=False)
class Outcome:
    """What one call of the detector did. Arrays are in batch order, one row a reading."""

    scores: FloatArray  # (n,) finite; a reading that is not scored repeats its sensor's last score
    alerting: BoolArray  # (n,) a forecast alert is open after the reading
    expected: FloatArray  # (n, targets) the one-step forecast in the channel's unit, NaN where there is none
    band: FloatArray  # (n, targets) half width of the usual error around it
    imputed: IntArray  # (n,) values of the window, after the reading, that never came and were filled in
    alerts: list[Alert] = field(default_factory=list)
    told_at: list[int] = field(default_factory=list)  # each alert's row; empty where no reading raised them
    rejected: list[Rejected] = field(default_factory=list)
    # scored, warming, late, duplicate, unusable, future, evicted, imputed, reordered
    counts: dict[str, int] = field(default_factory=dict)
    split: list[str] = field(default_factory=list)  # sensors that came new and have a row in another partition

    @classmethod
    def empty(cls, readings: int, targets: int) -> Outcome:
        """Nothing said yet of so many readings."""
        nothing, zeros = np.empty((readings, targets)), np.zeros(readings)
        nothing.fill(np.nan)
        return cls(zeros, np.zeros(readings, np.bool_), nothing, nothing.copy(), np.zeros(readings, np.int64))

    def count(self, what: str, how_many: int) -> None:
        """Add to the tally of what became of readings."""
        if how_many:
            self.counts[what] = self.counts.get(what, 0) + int(how_many)
