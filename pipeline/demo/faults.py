"""Faults at random times from a seed: what goes wrong in the plant, where, from which row to which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pipeline.core.readings import BoolArray, FloatArray
from pipeline.demo.plant import DAY_ROWS, DECIMALS, Line, Plant

QUIET_ROWS = 300  # at the start of the stream, for every sensor to settle
REST_ROWS = 400  # of one sensor, from the end of a fault to the start of its next
WINDOW_ROWS = 100  # after its end in which a fault may still be found; every fault's window lies in the stream


class FaultKind(StrEnum):
    """What goes wrong; in the words of the final table."""

    SPIKE = "spike"
    SHIFT = "level shift"
    DRIFT = "slow drift"
    STUCK = "stuck value"
    NOISE = "noise"
    FREQUENCY = "frequency"
    LOST = "lost sensor"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. Spike, shift and drift are sized in robust deviations of the signal's differences."""

    kind: FaultKind
    sensor: str
    channel: str  # "" where the sensor is lost with all its channels
    first_row: int
    last_row: int  # still at fault
    size: float  # noise and frequency: what the plain one is multiplied by; stuck and lost: 0


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a kind, each drawn evenly between least and most; `either_way`: the size may be negative."""

    rows: tuple[int, int]
    size: tuple[float, float] = (0.0, 0.0)
    either_way: bool = False


RANGES = {
    FaultKind.SPIKE: Range((1, 3), (6.0, 10.0), either_way=True),
    FaultKind.SHIFT: Range((100, 200), (3.0, 5.0), either_way=True),
    FaultKind.DRIFT: Range((500, 500), (4.0, 4.0), either_way=True),
    FaultKind.STUCK: Range((60, 150)),
    FaultKind.NOISE: Range((100, 200), (3.0, 3.0)),
    FaultKind.FREQUENCY: Range((100, 200), (1.6, 2.4)),
    FaultKind.LOST: Range((30, 80)),
}


def schedule(plant: Plant, seed: int, first_row: int, rows: int, per_10k: float = 6.0) -> list[Fault]:
    """Faults in `rows` rows from `first_row` on, `per_10k` of them in 10,000 readings, all kinds equally often.

    Sorted by start. A kind that finds no place any more, as in a very short stream, is left out.
    """
    rng = np.random.default_rng((plant.seed, seed))
    free = np.ones((len(plant.sensors), rows), dtype=np.bool_)  # a fault may start here as far as others let it
    free[:, :QUIET_ROWS] = False
    machines = [(line, sensor) for line in plant.lines for sensor in line.sensors]
    faults = []
    for turn in range(round(len(machines) * rows * per_10k / 10_000)):
        kind = list(FaultKind)[turn % len(FaultKind)]
        limits = RANGES[kind]
        length = int(rng.integers(limits.rows[0], limits.rows[1] + 1))
        starts = np.flatnonzero(_room(free, length))
        if not len(starts):
            continue
        which, start = divmod(int(rng.choice(starts)), rows)
        line, sensor = machines[which]
        swinging = [c.name for c in line.channels if c.swing]
        channel = str(rng.choice(swinging if kind is FaultKind.FREQUENCY else line.names))
        size = rng.uniform(*limits.size) * (rng.choice((-1, 1)) if limits.either_way else 1)
        begin, end = first_row + start, first_row + start + length - 1
        faults.append(Fault(kind, sensor, "" if kind is FaultKind.LOST else channel, begin, end, float(size)))
        free[which, max(start - REST_ROWS, 0) : start + length + REST_ROWS] = False
    return sorted(faults, key=lambda f: (f.first_row, f.sensor))


def _room(free: BoolArray, length: int) -> BoolArray:
    """Where a fault of `length` rows may start, (sensors, rows): all its rows are free, its window in the stream."""
    taken = np.pad(np.cumsum(~free, axis=1), ((0, 0), (1, 0)))  # up to each row
    room = np.zeros_like(free)
    starts = max(free.shape[1] - length - WINDOW_ROWS + 1, 0)
    room[:, :starts] = taken[:, length : length + starts] == taken[:, :starts]
    return room


def deviations(line: Line) -> FloatArray:
    """IQR / 1.349 of the first differences of every signal without faults, (sensors, channels), in its unit."""
    differences = np.diff(line.block(0, 2 * DAY_ROWS), axis=0)
    lower, upper = np.percentile(differences, (25, 75), axis=0)
    return np.asarray((upper - lower) / 1.349)


class Injection:
    """Applies faults to the plant's blocks; the outcome for a row is the same whatever block it comes in."""

    def __init__(self, plant: Plant, faults: Sequence[Fault]) -> None:
        self._faults = {line.kind: [f for f in faults if f.sensor in line.sensors] for line in plant.lines}
        self._deviations = {line.kind: deviations(line) for line in plant.lines}

    def __call__(self, line: Line, first_row: int, values: FloatArray) -> None:
        """Alters values (rows, sensors, channels) in place; a lost sensor's are NaN."""
        for fault in self._faults[line.kind]:
            begin, end = max(fault.first_row, first_row), min(fault.last_row + 1, first_row + len(values))
            if begin < end:
                sensor = line.sensors.index(fault.sensor)
                self._alter(line, fault, sensor, begin, values[begin - first_row : end - first_row, sensor])

    def _alter(self, line: Line, fault: Fault, sensor: int, begin: int, values: FloatArray) -> None:
        """One fault on its sensor's rows from `begin` on, values (rows, channels)."""
        if fault.kind is FaultKind.LOST:
            values[:] = np.nan
            return
        channel = line.names.index(fault.channel)
        deviation, noise = self._deviations[line.kind][sensor, channel], line.noise[sensor, channel]
        rows = np.arange(begin, begin + len(values))
        since = rows - fault.first_row
        length = fault.last_row - fault.first_row + 1
        signal = values[:, channel]
        match fault.kind:
            case FaultKind.SPIKE | FaultKind.SHIFT:
                signal += fault.size * deviation
            case FaultKind.DRIFT:
                signal += fault.size * deviation * (since + 1) / length
            case FaultKind.STUCK:
                signal[:] = line.block(fault.first_row - 1, 1)[0, sensor, channel]
            case FaultKind.NOISE:
                extra = np.random.default_rng((fault.first_row, sensor, channel)).standard_normal(length)[since]
                signal += np.sqrt(fault.size**2 - 1) * noise * extra  # variances add up
            case FaultKind.FREQUENCY:
                changed = line.oscillation(rows, fault.size, fault.first_row) - line.oscillation(rows)
                signal += changed[:, sensor, channel]
        np.round(signal, DECIMALS, out=signal)
