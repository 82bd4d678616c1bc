"""Fleets to measure with: a model with random weights, sensors that have long been running, readings of one instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.model import Model
from pipeline.core.readings import FloatArray, ReadingBatch
from pipeline.core.table import Arrays
from pipeline.fast import KernelError, walkers
from tests import models
from tests.models import INTERVAL, START

SETTLED = 320  # readings: a window to begin with, and what follows until scores are given
SETTLED_SENSORS = 256
SHARE = 10_000  # sensors of a partition


@dataclass(slots=True)
class Fleet:
    """Sensors of one model and where their clocks stand."""

    model: Model
    names: tuple[str, ...]
    clock: int = 0

    @classmethod
    def of(cls, sensors: int, channels: int, hidden: int) -> Fleet:
        """A fleet that has not sent anything."""
        return cls(models.model(channels, hidden=hidden, window=256), tuple(f"s{i}" for i in range(sensors)))

    def tick(self) -> None:
        """Time for the next reading of every sensor."""
        self.clock += 1

    def row(self, rows: Sequence[int] | range) -> ReadingBatch:
        """The readings of these sensors now."""
        return self.batch(rows, self.values(rows), np.full(len(rows), self.clock))

    def catch_up(self, sensor: int, readings: int) -> ReadingBatch:
        """Many readings of one sensor."""
        intervals = self.clock + 1 + np.arange(readings)
        values = np.concatenate([replace(self, clock=clock).values([sensor]) for clock in intervals.tolist()])
        self.clock += readings
        return self.batch([sensor] * readings, values, intervals)

    def batch(self, rows: Sequence[int] | range, values: FloatArray, intervals: np.ndarray) -> ReadingBatch:
        """Readings at so many intervals after the start."""
        at = np.asarray(rows, np.int64)
        times = START + intervals.astype(np.int64) * INTERVAL
        names, usable, nothing = [self.names[i] for i in rows], np.ones(len(at), np.bool_), np.zeros_like(at)
        return ReadingBatch(names, times, values, usable, at // SHARE, intervals, nothing)

    def values(self, rows: Sequence[int] | range) -> FloatArray:
        """What they send now, (n, channels)."""
        noise = np.random.default_rng(self.clock).standard_normal((len(rows), len(self.model.channels)))
        phase = np.asarray(rows)[:, None] % 97
        signal: FloatArray = 20 + 3 * np.sin(self.clock / 9 + phase) + 0.1 * noise
        return signal


@cache
def settled(channels: int, hidden: int) -> tuple[Fleet, Arrays]:
    """A few sensors that have run until they are scored like those that have always been there, and their state."""
    fleet = Fleet.of(SETTLED_SENSORS, channels, hidden)
    detector = Detector(fleet.model)
    for _ in range(SETTLED):
        fleet.tick()
        detector.step(fleet.row(range(SETTLED_SENSORS)))
    return fleet, detector.snapshot(0)


def running(sensors: int, channels: int, hidden: int, detector: Detector | None = None) -> tuple[Fleet, Detector]:
    """A fleet whose sensors have the state of the settled few, again and again, `SHARE` to a partition."""
    few, _ = settled(channels, hidden)
    fleet = replace(few, names=tuple(f"s{i}" for i in range(sensors)))
    detector = detector or Detector(fleet.model)
    for partition, first in enumerate(range(0, sensors, SHARE)):
        detector.restore(partition, state_of(fleet.names[first : first + SHARE], channels, hidden))
    return fleet, detector


def state_of(names: Sequence[str], channels: int, hidden: int) -> Arrays:
    """What a snapshot of such sensors holds."""
    _, state = settled(channels, hidden)
    which = np.arange(len(names)) % SETTLED_SENSORS
    return {field: array[which] for field, array in state.items()} | {"names": np.array(names, np.bytes_)}


def known(sensors: int, channels: int, hidden: int) -> Model:
    """A model that knows every sensor of the fleet, so that a service scores from their first reading on."""
    few = Fleet.of(SETTLED_SENSORS, channels, hidden)
    values = np.stack([replace(few, clock=row).values(range(SETTLED_SENSORS)) for row in range(SETTLED)])
    taught = models.learnt(few.model, models.stream(values))
    which = np.arange(sensors) % SETTLED_SENSORS
    names = sorted(f"s{i}" for i in range(sensors))
    tables = {name: array[which] for name, array in taught.sensors.arrays.items()}
    return replace(taught, sensors=replace(taught.sensors, names=tuple(names), arrays=tables))


@dataclass(frozen=True, slots=True)
class Form:
    """One of the ways a step is computed; the words are the detector's."""

    name: str
    words: dict[str, Any]

    def detector(self, model: Model, rules: Rules | None = None) -> Detector:
        """A detector that steps in this form."""
        return Detector(model, rules, **self.words)


NUMPY = Form("numpy", {})


def kernel() -> tuple[Form | None, str]:
    """The compiled form, or why there is none."""
    try:
        return Form("kernel", {"walkers": walkers("numba")}), ""
    except KernelError as error:
        return None, str(error)
